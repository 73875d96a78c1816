"""Queues on a simulated clock: hand-made cases, and queueing delays that theory knows."""

import numpy as np
import pytest

from tabi_bench import device
from tabi_bench.device import Begun
from tabi_bench.serving.arrivals import poisson, recorded
from tabi_bench.serving.clock import SimulatedClock, WallClock
from tabi_bench.serving.queues import POLICIES, Limits, Server
from tabi_bench.system import Answer, System
from tabi_bench.tasks.base import Query

MS = 1_000_000


class Timed:
    """Stage s takes `costs_ms[s]` for a batch of any size; `hard` ones are re-routed. log: (name, stage, ids)."""

    def __init__(self, clock, costs_ms=(1.0,), hard=(), log=None, name="A"):
        self.clock, self.costs, self.hard, self.name = clock, costs_ms, set(hard), name
        self.log = [] if log is None else log
        self.stages = len(costs_ms)

    begin = System.begin

    def run(self, stage, items):
        self.log.append((self.name, stage, [item.query.id for item in items]))
        self.clock.wait_until(self.clock.now() + round(self.costs[stage] * MS))
        for item in items:
            item.stage += item.query.id in self.hard
        return [item if item.query.id in self.hard and stage == 0 else Answer(0, stage) for item in items]


def stream(system, due_ms, clock, **limits):
    calls = [(system, Query(k, ("x",))) for k in range(len(due_ms))]
    due = (np.array(due_ms) * MS).astype(np.int64)
    server = Server(calls, due, clock, Limits(**{"max_batch": 4, **limits}))
    result = server.serve()
    return result, ((result.finished_ns - result.started_ns - due) / MS).tolist()


def test_a_batch_is_what_waits_when_the_thread_is_free():
    clock = SimulatedClock()
    system = Timed(clock, [10.0])
    _, latency = stream(system, [0, 1, 2, 3, 4, 5, 30], clock)
    assert [ids for _, _, ids in system.log] == [[0], [1, 2, 3, 4], [5], [6]], "at most four at once"
    assert latency == [10, 19, 18, 17, 16, 25, 10], "from the scheduled arrival, however late the thread was"


def test_a_batch_waits_to_be_filled_and_not_longer():
    clock = SimulatedClock()
    system = Timed(clock, [1.0])
    _, latency = stream(system, [0, 2, 4, 6, 20, 40], clock, max_wait_ns=5 * MS)
    assert [ids for _, _, ids in system.log] == [[0, 1, 2], [3], [4], [5]]
    assert latency[:4] == [6, 4, 2, 6] and latency[4] == 6
    assert latency[5] == 1, "nothing can join the last query of a run: it does not wait"


def test_early_returns_leave_and_the_rerouted_of_several_batches_form_new_ones():
    clock = SimulatedClock()
    system = Timed(clock, [2.0, 20.0], hard=[1, 2, 3])
    result, latency = stream(system, [0, 0, 1, 1], clock, max_batch=2, policy="small_first")
    assert [call[1:] for call in system.log] == [(0, [0, 1]), (0, [2, 3]), (1, [1, 2]), (1, [3])]
    assert latency[0] == 2, "an early return does not wait for the others of its batch"
    assert latency[1:] == [24, 23, 43]
    assert [answer.level for answer in result.answers] == [0, 1, 1, 1]
    assert result.busy_ns.sum() == result.finished_ns.max() - result.started_ns, "the thread was never idle"


@pytest.mark.parametrize(
    "policy, order",
    [("large_first", [0, 1, 0]), ("small_first", [0, 0, 1]), ("deadline", [0, 1, 0]), ("fullest", [0, 0, 1])],
)
def test_which_queue_runs_next(policy, order):
    """After the first batch one query waits for stage 1, and three newer ones for stage 0."""
    clock = SimulatedClock()
    system = Timed(clock, [2.0, 2.0], hard=[0])
    stream(system, [0, 1, 1, 1], clock, policy=policy)
    assert [stage for _, stage, _ in system.log] == order and policy in POLICIES


def test_deadline_prefers_an_older_query_of_an_earlier_stage():
    clock = SimulatedClock()
    log = []
    first, second = Timed(clock, [2.0, 2.0], log=log), Timed(clock, [5.0, 2.0], [1], log, "B")
    calls = [(first, Query(0, ("x",))), (second, Query(1, ("x",))), (first, Query(2, ("x",)))]
    Server(calls, np.array([0, 0, 0]), clock, Limits(1, policy="deadline")).serve()
    assert [(name, stage) for name, stage, _ in log] == [("A", 0), ("B", 0), ("B", 1), ("A", 0)]


def test_systems_and_operating_points_never_share_a_batch():
    clock = SimulatedClock()
    log = []
    systems = [Timed(clock, [1.0], log=log, name=name) for name in "AB"]
    calls = [(systems[k % 2], Query(k, ("x",))) for k in range(4)]
    Server(calls, np.zeros(4, np.int64), clock, Limits(8)).serve()
    assert log == [("A", 0, [0, 2]), ("B", 0, [1, 3])]


class OnDevice(Timed):
    """A batch takes 10 ms on a device, beside the thread; a look at it 1 ms. `encode` fails on query 8."""

    read_ahead = System.read_ahead

    def __init__(self, clock):
        super().__init__(clock)
        self.read, self.encoders, self.free, self.ends = [], (self.encode,), 0, []

    def encode(self, texts):
        self.read.append((texts[0], round(self.clock.now() / MS)))
        if texts == ("8",):
            raise ValueError
        return texts

    def ready(self, end):
        self.clock.wait_until(self.clock.now() + MS)
        return self.clock.now() >= end

    def begin(self, stage, items):
        self.log.append((round(self.clock.now() / MS), [item.query.id for item in items]))
        for item in items:
            if item.query.id != 8:
                item.encoding(self.encode)
        end = self.free = max(self.free, self.clock.now()) + 10 * MS

        def result(since):
            self.clock.wait_until(end)
            self.ends.append((round(since / MS), round(end / MS)))
            return [Answer(0, stage) for _ in items]

        return Begun(result, lambda: self.ready(end))


def test_while_the_device_works_what_has_arrived_is_tokenised_once_and_the_next_batch_follows():
    clock = SimulatedClock()
    system = OnDevice(clock)
    calls = [(system, Query(k, (str(k),))) for k in range(11)]
    due = np.array([0] * 8 + [2, 4, 60]) * MS
    result = Server(calls, due, clock, Limits(4)).serve()
    assert system.log[:2] == [(0, [0, 1, 2, 3]), (1, [4, 5, 6, 7])], "nothing is known yet of how long a batch takes"
    assert system.log[2] == (15, [8, 9]), "half of the time that the batch before it is expected to take"
    assert system.log[3:] == [(60, [10])]
    first = [(str(k), int(k > 3)) for k in range(8)]
    assert sorted(system.read, key=lambda one: int(one[0])) == [*first, ("8", 3), ("9", 5), ("10", 60)], (
        "what waits is read before its turn"
    )
    assert system.ends == [(0, 10), (10, 20), (20, 30), (30, 70)], "a batch counts from the end of the one before"
    latency = (result.finished_ns - result.started_ns - due) // MS
    assert latency.tolist() == [10] * 4 + [20] * 4 + [28, 26, 10]
    assert result.busy_ns.sum() == 40 * MS, "two batches on their way are not counted twice"


def test_a_queue_that_outgrows_its_limit_ends_the_run():
    clock = SimulatedClock()
    result, _ = stream(Timed(clock, [10.0]), np.arange(500), clock, max_batch=2, most_waiting=40)
    assert result.overloaded and result.answers[-1] is None
    result, _ = stream(Timed(clock, [10.0]), np.arange(500), clock, max_batch=16, most_waiting=40)
    assert not result.overloaded and None not in result.answers


def test_a_run_ends_once_too_many_of_those_that_count_are_late():
    clock = SimulatedClock()
    late = {"max_batch": 1, "bound_ns": 2 * MS, "counted": 2}
    system = Timed(clock, [1.0])
    result, _ = stream(system, [0, 0, 0, 0, 0, 100, 200], clock, **late, most_late=3)
    assert not result.overloaded and len(result.answered) == 7, "four are late, one of them does not count"
    result, _ = stream(system, [0, 0, 0, 0, 0, 0, 100, 200], clock, **late, most_late=3)
    assert result.overloaded and len(result.answered) == 6, "the sixth is one too many"


def one_at_a_time(load, count, seed, clock, ms):
    """Mean wait in units of the service time, beside the service itself."""
    due = poisson(count, seed) / (load / ms) * MS
    query = Query(0, ("x",))
    result = Server([(Timed(clock, [ms]), query)] * count, due.astype(np.int64), clock, Limits(1)).serve()
    return ((result.finished_ns - result.started_ns - due) / MS / ms).mean() - 1


@pytest.mark.parametrize(
    ("load", "count", "within"),
    [(0.5, 200_000, 0.03), *(pytest.param(load, 1_000_000, 0.01, marks=pytest.mark.slow) for load in (0.3, 0.5))],
)
def test_waiting_in_an_m_d_1_queue(load, count, within):
    """Pollaczek and Khinchine: load / (2 (1 - load)) service times."""
    wait = one_at_a_time(load, count, 1, SimulatedClock(), 1.0)
    assert wait == pytest.approx(load / (2 * (1 - load)), rel=within)


class SpinningClock(WallClock):
    """Never sleeps, which would make a service longer by as much as the machine wakes up late."""

    def wait_until(self, ns):
        while self.now() < ns:
            pass


@pytest.mark.slow
def test_waiting_in_an_m_d_1_queue_on_the_real_clock():
    """At half load. A query's service is all that the thread does for it: the fixed cost and the bookkeeping.

    The delay is Pollaczek and Khinchine's, whose second moment counts the stalls of a machine with other work.
    """
    clock, count, ms = SpinningClock(), 50_000, 0.2
    due = (poisson(count, 1) * 2 * ms * MS).astype(np.int64)
    calls = [(Timed(clock, [ms]), Query(0, ("x",)))] * count
    with device.quiet_collector():
        result = Server(calls, due, clock, Limits(1)).serve()
    finished = result.finished_ns - result.started_ns
    began = np.maximum(due, np.concatenate([[0], finished[:-1]]))  # when the thread should have begun
    service, latency = (finished - began) / MS, (finished - due) / MS
    lost = np.maximum(service - 2 * ms, 0).sum() / service.sum()
    if lost > 0.02:
        pytest.skip(f"this machine is not quiet: stalls took {lost:.2%} of the time of service")
    per_ms = count / (due[-1] / MS)
    known = per_ms * (service**2).mean() / (2 * (1 - per_ms * service.mean()))
    print(f"service {service.mean():.4f} ms, waits {(latency - service).mean():.4f} ms, known {known:.4f}")
    assert (latency - service).mean() == pytest.approx(known, rel=0.05)


def test_arrivals_are_scaled_not_redrawn():
    assert (poisson(10, 3) == poisson(10, 3)).all() and (poisson(10, 3) != poisson(10, 4)).all()
    gaps = np.diff(poisson(100_000, 0))
    assert gaps.mean() == pytest.approx(1, rel=0.02) and gaps.std() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("1\n3\n2\n", "line 3 goes backwards, from 3 to 2 s"),
        ("1\nlate\n", "one column"),
        ("1 2\n3 4\n", "one a line"),
        ("5\n5\n", "all 2 queries arrive at once"),
        ("1\nnan\n", "finite"),
    ],
)
def test_recorded_times_are_read_or_refused(tmp_path, text, reason):
    file = tmp_path / "times.txt"
    file.write_text("10\n10.5\n12\n")
    assert recorded(file).tolist() == [0, 0.5, 2]
    file.write_text(text)
    with pytest.raises(ValueError, match=reason):
        recorded(file)
