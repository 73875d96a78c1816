"""One thread that serves arriving queries in batches: the queues between stages, and which of them runs next.

Queries that wait for the same stage of the same system (one operating point) form a batch. Those that it answers leave
at once; those that it re-routes wait for the next stage, where they form batches with the re-routed of other batches.

A device works at a batch while the thread prepares the next one: that follows once the device should be half done with
the one before, so that it need not wait, and holds as many queries as have arrived by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from tabi_bench.device import Begun
from tabi_bench.serving.clock import Clock
from tabi_bench.system import Answer, Item, System
from tabi_bench.tasks.base import Query

READ_AT_ONCE = 8  # queries tokenised between two looks at the device: 80 us, pruned ones 200
AT_ONCE = 2  # batches on their way: one that the device is at, and one that follows
DONE = 0.5  # of a batch, when the next one follows


@dataclass(slots=True)
class Queue:
    """What waits for one stage of one system. waiting: (place in the stream, item, nanoseconds of its entry).

    unread: the last of those items, which were not tokenised ahead.
    """

    system: System
    stage: int
    waiting: deque[tuple[int, Item, int]] = field(default_factory=deque)
    unread: deque[Item] = field(default_factory=deque)

    @property
    def first(self) -> int:
        """The place of the query that arrived first among those at the head."""
        return self.waiting[0][0]


@dataclass(slots=True)
class Flight:
    """A batch on its way through a stage. kind: batches that should take as long; started_ns: of its preparation."""

    queue: Queue
    batch: list[tuple[int, Item, int]]
    kind: tuple[int, int, int]
    begun: Begun[list[Answer | Item]]
    started_ns: int


def large_first(queue: Queue) -> tuple[int, ...]:
    """The latest stage first, so that a query that was begun is finished; then the query that arrived first."""
    return -queue.stage, queue.first


def small_first(queue: Queue) -> tuple[int, ...]:
    """The earliest stage first, so that batches of later stages grow; then the query that arrived first."""
    return queue.stage, queue.first


def deadline(queue: Queue) -> tuple[int, ...]:
    """The query that arrived first, whatever its stage: all have the same time to be answered in."""
    return (queue.first,)


def fullest(queue: Queue) -> tuple[int, ...]:
    """The longest queue, whose batch uses the device best; then the query that arrived first."""
    return -len(queue.waiting), queue.first


POLICIES: dict[str, Callable[[Queue], tuple[int, ...]]] = {
    rule.__name__: rule for rule in (large_first, small_first, deadline, fullest)
}


@dataclass(frozen=True)
class Limits:
    """max_batch: queries; max_wait_ns: how long a batch waits to be filled; policy: of POLICIES.

    most_waiting: with more queries waiting than this, serving is given up as overloaded; so it is once more than
    `most_late` of those from place `counted` on were answered later than `bound_ns` after they were due.
    """

    max_batch: int
    max_wait_ns: int = 0
    policy: str = "large_first"
    most_waiting: float = np.inf
    bound_ns: float = np.inf
    most_late: float = np.inf
    counted: int = 0


@dataclass
class Stream:
    """What became of N queries. finished_ns, busy_ns: (N,) when each was answered, and its share of its batches.

    overloaded: a limit was passed; answers and times are then incomplete (None, -1).
    """

    answers: list[Answer | None]
    started_ns: int
    finished_ns: np.ndarray
    busy_ns: np.ndarray
    batches: int = 0
    items: int = 0  # in all batches: a query once per stage
    overloaded: bool = False

    @property
    def answered(self) -> list[Answer]:
        """The answers that there are: all, unless it was overloaded."""
        return [answer for answer in self.answers if answer is not None]


class Server:
    """Serves one stream: call (k) is the system and the query of place k, due at due_ns (k) after the start."""

    def __init__(self, calls: Sequence[tuple[System, Query]], due_ns: np.ndarray, clock: Clock, limits: Limits):
        n = len(calls)
        self.calls, self.due, self.clock, self.limits = calls, due_ns.tolist(), clock, limits
        self.rule = POLICIES[limits.policy]
        self.queues: dict[tuple[int, int], Queue] = {}
        self.flights: deque[Flight] = deque()  # in the order in which they end
        self.taken_ns: dict[tuple[int, int, int], int] = {}  # by the last batch of each kind
        self.arrived = self.waiting = self.late = 0
        self.start = self.ended = clock.now()  # ended: of the last batch
        self.result = Stream([None] * n, self.start, np.full(n, -1, np.int64), np.zeros(n, np.int64))

    def serve(self) -> Stream:
        """Until every query is answered, or the queue has outgrown its limit."""
        while self.arrived < len(self.calls) or self.waiting or self.flights:
            self._admit()
            if self.waiting > self.limits.most_waiting or self.late > self.limits.most_late:
                self.result.overloaded = True
                break
            if self.flights and self.flights[0].begun.ready():
                self._end()
                continue
            queue = self._next() if self._may_follow() else None
            if queue is not None:
                self._begin(queue)
            elif self.flights:
                self._read_ahead()
            else:
                self.clock.wait_until(self._wake_ns())
        return self.result

    def _admit(self) -> None:
        """Everything that is due by now."""
        now, due = self.clock.now() - self.start, self.due
        while self.arrived < len(due) and due[self.arrived] <= now:
            system, query = self.calls[self.arrived]
            self._enter(system, self.arrived, Item(query), self.start + due[self.arrived])
            self.arrived += 1

    def _read_ahead(self) -> None:
        """While the device works: has a few of those that wait read that are to run first.

        What a text raises here, it raises again when its turn comes.
        """
        queues = [queue for queue in self.queues.values() if queue.unread]
        if queues:
            queue = min(queues, key=self.rule)
            items = [queue.unread.popleft() for _ in range(min(READ_AT_ONCE, len(queue.unread)))]
            with suppress(Exception):
                queue.system.read_ahead(queue.stage, items)

    def _enter(self, system: System, place: int, item: Item, now: int) -> None:
        key = id(system), item.stage
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = Queue(system, item.stage)
        queue.waiting.append((place, item, now))
        queue.unread.append(item)
        self.waiting += 1

    def _ready(self, queue: Queue, now: int) -> bool:
        """A batch that is full, has waited long enough, or that nothing can join any more."""
        limits = self.limits
        full = len(queue.waiting) >= limits.max_batch
        return full or now - queue.waiting[0][2] >= limits.max_wait_ns or self._complete(queue)

    def _complete(self, queue: Queue) -> bool:
        """Whether no query is left that could still enter this queue."""
        return self.arrived == len(self.calls) and len(queue.waiting) == self.waiting and not self.flights

    def _next(self) -> Queue | None:
        """The ready queue that comes first by the policy's rule."""
        now = self.clock.now()
        ready = [queue for queue in self.queues.values() if queue.waiting and self._ready(queue, now)]
        return min(ready, key=self.rule) if ready else None

    def _wake_ns(self) -> int:
        """When the next query arrives, or the next batch has waited long enough."""
        times = [queue.waiting[0][2] + self.limits.max_wait_ns for queue in self.queues.values() if queue.waiting]
        if self.arrived < len(self.due):
            times.append(self.start + self.due[self.arrived])
        return min(times)

    def _may_follow(self) -> bool:
        """Whether a batch may begin: the device is free, or should be half done with its last one."""
        if not self.flights:
            return True
        last = self.flights[-1]
        since = self.clock.now() - max(last.started_ns, self.ended)
        return len(self.flights) < AT_ONCE and since >= DONE * self.taken_ns.get(last.kind, 0)

    def _begin(self, queue: Queue) -> None:
        """One batch of a queue, on its way through its stage."""
        size = min(len(queue.waiting), self.limits.max_batch)
        for _ in range(size - len(queue.waiting) + len(queue.unread)):
            queue.unread.popleft()
        batch = [queue.waiting.popleft() for _ in range(size)]
        self.waiting -= size
        started, kind = self.clock.now(), (id(queue.system), queue.stage, size.bit_length())
        begun = queue.system.begin(queue.stage, [item for _, item, _ in batch])
        self.flights.append(Flight(queue, batch, kind, begun, started))

    def _end(self) -> None:
        """Of the batch that was begun first: answers leave, the others wait for their next stage."""
        flight, result = self.flights.popleft(), self.result
        results, size = flight.begun.result(self.ended), len(flight.batch)
        now = self.clock.now()
        taken = now - max(flight.started_ns, self.ended)
        self.ended, self.taken_ns[flight.kind] = now, taken
        result.batches += 1
        result.items += size
        places, answers = [place for place, _, _ in flight.batch], result.answers
        counted, due_by = self.limits.counted, now - self.start - self.limits.bound_ns  # what was due before is late
        result.busy_ns[places] += taken // size
        result.finished_ns[places] = now  # of those that go on: until their last stage
        for place, answer in zip(places, results, strict=True):
            if isinstance(answer, Item):
                self._enter(flight.queue.system, place, answer, now)
            else:
                answers[place] = answer
                self.late += place >= counted and self.due[place] < due_by
