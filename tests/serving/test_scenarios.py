"""Scenarios offline and server on systems that only take time, and the settings that they refuse."""

import gc
import signal
import time

import numpy as np
import pytest

from tabi_bench import device, progress
from tabi_bench.config import ConfigError, read_file
from tabi_bench.serving.load import Run, confirmed, goodput, grew, most_late
from tabi_bench.serving.offline import Offline
from tabi_bench.serving.scenario import Expected, parts
from tabi_bench.serving.server import OpenLoop
from tabi_bench.system import System
from tabi_bench.tasks.base import Query

QUERIES = [Query(row, ("word " * (1 + row % 7),)) for row in range(60)]


class Spinner:
    """A stage takes `fixed_ms` and `each_ms` per query; every fourth query is re-routed. sizes: (stage, batch size)."""

    stages, encoders = 2, ()

    def __init__(self, fixed_ms=0.2, each_ms=0.02):
        self.fixed, self.per_item, self.sizes, self.lengths = fixed_ms, each_ms, [], []

    begin = System.begin

    def run(self, stage, items):
        end = time.perf_counter() + (self.fixed + self.per_item * len(items)) / 1e3
        self.sizes.append((stage, len(items)))
        self.lengths.append([len(item.query.texts[0]) for item in items])
        while time.perf_counter() < end:
            pass
        results = []
        for item in items:
            item.so_far.stages_ns["level1"] = 1000
            hard = stage == 0 and item.query.id % 4 == 0
            item.stage += hard
            results.append(item if hard else item.answer(item.query.id % 2, stage))
        return results


def systems(**kinds):
    return {name: [system] * len(QUERIES) for name, system in kinds.items()}


EXPECTED = Expected(alone_ms=1.0, device_ms=0.05)


def server(kinds, expected=EXPECTED, **options):
    config = read_file("scenario", "server", **{"seconds": 0.05, "max_batch": 8, **options})
    return OpenLoop(config, 0, "cpu").serve(systems(**kinds), QUERIES, expected)


def test_offline_serves_every_query_once_a_pass_sorted_by_length_and_stage_by_stage():
    system = Spinner()
    config = read_file("scenario", "offline", max_batch=16, least_seconds=0)
    serving = Offline(config, 0, "cpu").serve(systems(a=system, b=Spinner()), QUERIES, Expected(1.0, 1.0))
    trace = serving.traces["a"]
    assert trace.groupby("block").row.nunique().tolist() == [60] * 5 and trace.first_pass.sum() == 60
    last = system.sizes[-5:]
    assert last == [(0, 16), (0, 16), (0, 16), (0, 12), (1, 15)], "re-routed queries of all batches are one batch"
    assert np.diff(np.concatenate(system.lengths[-5:-1])).min() >= 0
    assert trace.groupby("block").latency_ms.nunique().tolist() == [1] * 5
    assert trace.latency_ms.min() * 60 >= 5 * 0.2 + 75 * 0.02, "a pass's time, spread over its queries"
    assert serving.facts["a"]["mean_batch"] == 15 and serving.facts["a"]["busy_share"] <= 1


def test_an_offline_block_lasts_as_long_as_asked_and_words_are_met_before_it():
    system, texts = Spinner(), []
    system.encoders = (texts.append,)
    config = read_file("scenario", "offline", max_batch=16, least_seconds=0.05)
    serving = Offline(config, 0, "cpu").serve(systems(a=system), QUERIES, Expected(1.0, 1.0))
    repeats, trace = serving.facts["a"]["passes_a_block"], serving.traces["a"]
    assert repeats > 1 and len(trace) == 5 * 60 and texts == [query.texts for query in QUERIES]
    assert sum(stage == 0 and size == 12 for stage, size in system.sizes[-5 * (1 + 5 * repeats) :]) == 1 + 5 * repeats
    assert trace.latency_ms.min() * 60 >= 5 * 0.2 + 75 * 0.02, "a pass's time, not the block's, spread over its queries"


def test_server_serves_all_systems_the_same_arrivals_and_every_query():
    serving = server({"a": Spinner(), "b": Spinner(0.1)}, rate=400.0)  # 20 queries a run: a stall overloads none
    a, b = serving.traces["a"], serving.traces["b"]
    assert (a.row == b.row).all() and (a.block == b.block).all() and set(a.block) == {0, 1, 2}
    assert set(a.row[a.first_pass]) == set(range(60)), "the accuracy is of all queries"
    assert (a.latency_ms >= 0.2).all() and (a.stage_wait_ms >= -1e-6).all()
    facts = serving.facts["a"]
    assert facts["rate"] == 400 and facts["slo_ms"] == 5 and facts["predicted_qps"] == 20_000
    assert facts["saturation_qps"] <= 1e3 / (75 / 60 * 0.02), "more than its queries cost alone"
    assert facts["p99"]["low"] <= facts["p99"]["value"] <= facts["p99"]["high"] and len(facts["runs"]) == 3


def test_rows_of_two_plans_are_served_in_runs_of_their_own():
    """INFaaS has one plan, Tabi one for each half: their queries never wait beside each other."""
    first, second, single = Spinner(), Spinner(), Spinner()
    halves = [first] * 25 + [second] * 35
    config = read_file("scenario", "server", seconds=0.05, max_batch=8, rate=400.0)
    both = {"infaas": [single] * 60, "tabi": halves}
    assert [part.tolist() for part in parts(both)] == [list(range(25)), list(range(25, 60))]
    serving = OpenLoop(config, 0, "cpu").serve(both, QUERIES, EXPECTED)
    blocks = serving.traces["tabi"].groupby("block").row
    assert [(rows.max() < 25, rows.min() >= 25) for _, rows in blocks] == [(True, False), (False, True)] * 3
    assert (serving.traces["infaas"].row == serving.traces["tabi"].row).all()
    assert set(serving.traces["tabi"].row[serving.traces["tabi"].first_pass]) == set(range(60))
    assert len(serving.facts["tabi"]["runs"]) == 6


def test_the_default_rate_is_70_percent_of_the_references_saturation():
    facts = server({"a": Spinner(2.0, 0.0), "b": Spinner(0.1)}).facts
    assert facts["a"]["rate"] == facts["b"]["rate"] == pytest.approx(0.7 * facts["a"]["saturation_qps"])
    assert 200 < facts["a"]["saturation_qps"] <= 60 / 10 / 2e-3, (
        "ten batches of 2 ms: eight at stage one, two at stage two"
    )


def test_a_system_that_is_overloaded_has_no_latency_but_says_so():
    serving = server({"a": Spinner(), "slow": Spinner(30.0)}, rate=2000.0, seconds=0.5)
    assert list(serving.traces) == ["a"]
    assert "overloaded at 2000 queries a second: its queue grows without bound" in serving.refused["slow"]


def test_a_rate_that_no_system_survives_is_refused():
    with pytest.raises(
        ValueError, match=r"no system survives scenario.rate: overloaded at 20000 .* the reference saturates at"
    ):
        server({"a": Spinner(5.0)}, rate=20_000.0, seconds=0.4)


class Hanging(Spinner):
    """Hangs at its first batch that counts: the one after warming up."""

    def run(self, stage, items):
        if gc.isenabled():
            return super().run(stage, items)
        time.sleep(10)


@pytest.mark.parametrize("scenario", [Offline, OpenLoop])
def test_a_model_that_hangs_under_load_is_said_and_interrupted(scenario, monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    monkeypatch.setenv("TABI_BENCH_WAIT_S", "0.2")
    config = read_file("scenario", "offline" if scenario is Offline else "server", max_batch=8)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a parallel run ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            scenario(config, 0, "cpu").serve(systems(a=Hanging()), QUERIES, EXPECTED)
    finally:
        signal.signal(signal.SIGINT, before)
    assert any("serving: no step for" in message and "may hang" in message for message in caplog.messages)
    assert "ended. TABI_BENCH_WAIT_S" in caplog.messages[-1]


def test_a_bound_below_the_floor_is_refused():
    with pytest.raises(ValueError, match=r"scenario.slo_ms=0.5 is below the floor: the reference alone takes 1.000 ms"):
        server({"a": Spinner()}, slo_ms=0.5)


@pytest.mark.parametrize("key, value", [("rate", 0.0), ("max_batch", 0), ("arrival_seeds", 2), ("policy", "luck")])
def test_settings_out_of_bounds_are_refused_by_name(composed, key, value):
    with pytest.raises(ConfigError, match=f"scenario.{key}="):
        composed("scenario=server", f"scenario.{key}={value}")


def test_recorded_times_give_their_own_rate_and_are_repeated(tmp_path):
    file = tmp_path / "times.txt"
    file.write_text("".join(f"{t}\n" for t in (0, 0.001, 0.004, 0.005)))
    serving = server({"a": Spinner(0.05, 0.001)}, times=str(file))
    assert serving.facts["a"]["rate"] == pytest.approx(600)
    loop = OpenLoop(read_file("scenario", "server"), 0, "cpu")
    loop.gaps = np.array([0, 0.001, 0.004, 0.005])
    assert (loop._due(6, 0, 600.0) / 1e6).tolist() == pytest.approx([0, 1, 4, 5, 6, 9])
    assert (loop._due(3, 0, 1200.0) / 1e6).tolist() == pytest.approx([0, 0.5, 2])


def test_curve_and_goodput_of_a_system():
    serving = server({"a": Spinner()}, rate=400.0, curve=[0.05, 0.1], goodput=True, slo_ms=20.0)
    facts = serving.facts["a"]
    assert [point["rate"] / facts["saturation_qps"] for point in facts["curve"]] == pytest.approx([0.05, 0.1])
    assert facts["goodput"]["qps"] > 0 and len(facts["goodput"]["seeds"]) == 3


def test_a_goodput_is_confirmed_by_a_longer_run(monkeypatch):
    seconds = []
    each = OpenLoop._each
    monkeypatch.setattr(OpenLoop, "_each", lambda *args: seconds.append(args[3]) or each(*args))
    serving = server({"a": Spinner()}, rate=400.0, goodput=True, slo_ms=20.0, seconds=0.2, confirm_seconds=0.5)
    facts = serving.facts["a"]["goodput"]
    passed = sorted(seed["passed"] for seed in facts["seeds"])[1]
    assert 0 < facts["qps"] <= passed and facts["seconds"] == 0.5 and seconds[-1] == 0.5 and 0.2 in seconds


def test_a_rate_that_a_longer_run_does_not_keep_is_lowered_by_steps():
    assert confirmed(at(1000), 10.0, 900.0) == 900
    assert 950 < confirmed(at(1000), 10.0, 1050.0) <= 1000
    assert confirmed(at(1000), 10.0, 2000.0) == pytest.approx(2000 / 1.05**15)
    assert confirmed(at(0), 10.0, 100.0) == 0


def test_after_a_part_that_fails_no_other_is_served():
    served = []

    def serve(rate):
        for ms in (50.0, 5.0):
            served.append(ms)
            yield Run(rate, np.full(100, ms), False)

    assert confirmed(serve, 10.0, 100.0) == 0 and served == [50.0] * 6


def at(knee):
    """Two runs of which one's p99 passes 10 ms above the rate `knee`."""
    return lambda rate: [Run(rate, np.full(100, ms), False) for ms in (5.0, 5.0 if rate <= knee else 50.0)]


@pytest.mark.parametrize("knee, start", [(1000, 100), (1000, 999), (1000, 50_000), (3, 2000)])
def test_bisection_ends_within_five_percent_of_the_knee(knee, start):
    result = goodput(at(knee), 10.0, start)
    assert result["passed"] <= knee < result["failed"] <= 1.05 * result["passed"] + 1e-9


def test_no_rate_passes_where_the_bound_is_out_of_reach():
    assert goodput(at(0), 10.0, 100.0)["passed"] is None


def test_the_last_quarter_must_keep_the_bound_too():
    latency = np.full(1000, 1.0)
    latency[-6:] = 20.0
    assert np.quantile(latency, 0.99) <= 10 and not Run(1.0, latency, False).keeps(10.0)
    latency[-6:] = 1.0
    latency[:6] = 20.0
    assert Run(1.0, latency, False).keeps(10.0) and not Run(1.0, latency, True).keeps(10.0)


@pytest.mark.parametrize("count", [1, 40, 99, 400, 401, 12_345])
def test_a_run_that_is_given_up_for_late_queries_cannot_keep_its_bound(count):
    late = int(most_late(count)) + 1
    latency = np.full(max(count, late), 1.0)
    latency[:late] = 10.1
    assert not Run(1.0, latency, False).keeps(10.0)


def test_a_rate_far_too_high_is_given_up_before_its_run_ends():
    config = read_file("scenario", "server", seconds=5.0, max_batch=1, slo_ms=3.0)
    loop = OpenLoop(config, 0, "cpu")
    loop.systems, loop.queries, loop.slo_ms, loop.bar = {}, QUERIES, 3.0, progress.progress(total=1, desc="", unit="")
    system = Spinner(2.0, 0.0)
    run, stream, _ = loop._run([system] * 60, np.arange(60).repeat(40), 0, 400.0, bounded=True)
    assert run.overloaded and not run.keeps(3.0)
    assert 25 <= len(stream.answered) < 1200, "a hundredth of 2,400 queries were late long before the last one"


def test_a_growing_queue_is_not_a_noisy_one():
    random = np.random.default_rng(0)
    noisy = random.exponential(5.0, 400)
    assert not grew(noisy) and grew(np.linspace(1, 200, 400) + noisy)


def packages(root, *microjoules):
    for number, value in enumerate(microjoules):
        (root / f"intel-rapl:{number}" / f"intel-rapl:{number}:0").mkdir(parents=True, exist_ok=True)
        (root / f"intel-rapl:{number}" / "energy_uj").write_text(f"{value}\n")
        (root / f"intel-rapl:{number}:0").mkdir(exist_ok=True)  # a part of the package, which counts it already
        (root / f"intel-rapl:{number}:0" / "energy_uj").write_text("7000000\n")


def test_rapl_sums_packages_and_not_their_parts(tmp_path):
    assert device.rapl_joules(tmp_path) is None
    packages(tmp_path, 2_500_000, 1_000_000)
    assert device.rapl_joules(tmp_path) == 3.5
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert device.rapl_joules(tmp_path) is None, "unreadable, as on most machines"


def test_energy_between_two_readings():
    assert device.difference(1.0, 3.0) == 2.0
    assert np.isnan(device.difference(None, 3.0)) and np.isnan(device.difference(3.0, 1.0)), "a counter that wrapped"


def test_an_answer_keeps_the_stages_that_its_system_booked():
    serving = server({"a": Spinner()}, rate=500.0)
    assert np.allclose(serving.traces["a"].stage_level1_ms, 1e-3)
