"""The last step of planning: plans that the profile calls about equally fast serve tune rows, and the fastest is kept.

A profile times models one by one and holds medians. In serving a model is slowed by what ran before it (a model on the
host finds its tables displaced), and its slow calls count; points a tenth apart cannot be told apart by it. So they
race, as in Maron and Moore (1994): side by side on the same queries, in short blocks, by the `answer` of serving.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import count
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench import device
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.system import Cascade
from tabi_bench.system import FoldPlan, Plan

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query
    from tabi_bench.zoo.base import Zoo

log = logging.getLogger(__name__)
FINALISTS = 5
WITHIN = 1.3  # of the least predicted latency: by so much profiles were seen to be off
ALIKE = 1.03  # times the predicted latency of another plan: where serving tells no difference either, fewer models do
BLOCK = 20  # queries in a row; a point's first block warms up


class Race:
    """Serves points and remembers what it took: whoever asks for the same race is told the same."""

    def __init__(self, task: str, zoo: Zoo, engine: Engine, queries: list[Query], seed: int, seconds: float) -> None:
        self.task, self.zoo, self.engine, self.queries = task, zoo, engine, queries
        self.seed, self.seconds = seed, seconds
        self._known: dict[tuple, np.ndarray] = {}

    def __call__(self, points: Sequence[Point], rows: np.ndarray) -> np.ndarray:
        """(P, N) milliseconds of each point on the same N of the validation rows `rows`, in seeded order."""
        key = (*map(repr, points), rows.tobytes())
        if key not in self._known:
            self._known[key] = self._run([self._deploy(point) for point in points], rows)
        return self._known[key]

    def _deploy(self, point: Point) -> Cascade:
        plan = Plan("race", self.task, [FoldPlan([], None, 0.0, point.plain())], self.seed, {})
        return Cascade.deploy(plan, self.zoo, self.engine, None)

    def _run(self, systems: list[Cascade], rows: np.ndarray) -> np.ndarray:
        """Whole blocks in turn until time is up, at least one after the warm-up."""
        order = np.random.default_rng(self.seed).permutation(rows)
        blocks = np.array_split(order, max(1, len(order) // BLOCK))
        taken: list[list[int]] = [[] for _ in systems]
        with device.exclusive(device.describe(self.engine.device)["id"], log), device.quiet_collector():
            end = perf_counter() + self.seconds
            for number in count():
                batch = [self.queries[row] for row in blocks[number % len(blocks)]]
                for turn in range(len(systems)):
                    lane = (number + turn) % len(systems)
                    times = [_time(systems[lane], query) for query in batch]
                    taken[lane] += times if number else []
                if number and perf_counter() > end:
                    return np.array(taken) / 1e6


def _time(system: Cascade, query: Query) -> int:
    """Nanoseconds of one answer."""
    start = perf_counter_ns()
    system.answer(query)
    return perf_counter_ns() - start


def race(profile: Profile, entries: Sequence[tuple[float, Point]]) -> tuple[int, dict | None]:
    """The position of the entry to keep, and the race in plain data (None where none was run).

    entries: (predicted ms, point), the fastest first. The first is kept unless another one is faster by more than a
    standard error of their difference, query by query; what is as fast as that by prediction and in the race, with
    fewer models, comes before it.
    """
    close = [entry for entry in entries[:FINALISTS] if entry[0] <= WITHIN * entries[0][0]]
    if profile.race is None or len(close) < 2:
        return 0, None
    times = profile.race([point for _, point in close], profile.rows)
    kept = _simplest(close, times, fastest(times))
    facts = {
        "models": [point.models for _, point in close],
        "predicted_ms": [predicted for predicted, _ in close],
        "served_ms": times.mean(axis=1).tolist(),
        "queries": times.shape[1],
        "kept": kept,
    }
    return kept, facts


def fastest(times: np.ndarray) -> int:
    """Which of (P, N) to keep: the fastest of those that beat the first by more than a standard error, or the first."""
    apart, error = _apart(times, 0)
    return int(min(np.flatnonzero(apart < -error), key=lambda k: times[k].mean(), default=0))


def _simplest(close: list[tuple[float, Point]], times: np.ndarray, kept: int) -> int:
    """Of what cannot be told from `kept` the one with the fewest models, the first of them."""
    apart, error = _apart(times, kept)
    alike = [k for k, (ms, _) in enumerate(close) if ms <= ALIKE * close[kept][0] and apart[k] <= error[k]]
    return min(alike, key=lambda k: (len(close[k][1].models), k != kept))


def _apart(times: np.ndarray, other: int) -> tuple[np.ndarray, np.ndarray]:
    """(P,) mean differences of (P, N) from one of them, and their standard errors."""
    apart = times - times[other]
    return apart.mean(axis=1), apart.std(axis=1, ddof=1) / np.sqrt(times.shape[1])
