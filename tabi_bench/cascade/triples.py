"""Plan search for three levels: both thresholds jointly, on full text first, then pruned around the optimum found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.profiling.profile import PruneKey

if TYPE_CHECKING:
    from tabi_bench.cascade.plans import Point
    from tabi_bench.cascade.search import Cut, Search, Seen

HOPELESS = 1.3  # a full-text setting this much slower than the best so far is not refined by pruning


@dataclass(frozen=True)
class Reading:
    """One setting of three levels: level 1's cut and time (N,), and what levels 2 and 3 say of what they read."""

    point: Point
    cut: Cut
    spent: np.ndarray
    second: Seen
    third: Seen


def triples(found: Search) -> None:
    """Offers three-level points to `found`, which has searched the pairs; their best is kept as `found.pairwise`."""
    envelope = found.best
    found.pairwise = envelope and {"models": envelope.point.models, "latency_ms": envelope.latency_ms}
    if not found.options.fewer_levels:
        found.best = None
    for names in combinations(found.rungs, 3):
        for point in found.settings(names, (0.0, 0.0)):
            before = found.best
            first = _joint(found, _full_text(found, point))
            if 0.0 not in found.options.alphas:  # full text only told where to look
                found.best = before
            for alpha in sorted(set(found.options.alphas) - {0.0}):
                if first is not None:
                    _joint_pruned(found, replace(point, alphas=[alpha, alpha]), first)
    if found.best is None:
        found.best = envelope


def _reading(found: Search, point: Point, second: Seen, third: Seen) -> Reading:
    from tabi_bench.cascade.search import Cut

    small = found.rungs[point.models[0]]
    cut = Cut.of(found.sure(point, 0, small.output, small.pooled), np.arange(found.n), found.far)
    return Reading(point, cut, small.ms_importance if point.wants_importance(0) else small.ms, second, third)


def _full_text(found: Search, point: Point) -> Reading:
    from tabi_bench.cascade.search import Seen

    rungs = [found.rungs[name] for name in point.models[1:]]
    return _reading(found, point, *(Seen(rung.output, rung.pooled, rung.ms, found.n) for rung in rungs))


def _joint(found: Search, reading: Reading) -> int | None:
    """The best first count: a grid over all, then every one around the grid's best. None if none meets the target."""
    from tabi_bench.cascade.search import FIRST_THRESHOLDS

    counts = reading.cut.counts
    grid = np.unique(np.linspace(0, len(counts) - 1, FIRST_THRESHOLDS).astype(int))
    tried = {int(i): _second_threshold(found, reading, int(counts[i])) for i in grid}
    tried = {i: latency for i, latency in tried.items() if latency is not None}
    if not tried:
        return None
    best = min(tried, key=tried.__getitem__)
    around = grid[np.abs(grid - best).argsort()[:3]]
    for i in range(around.min() + 1, around.max()):
        tried[i] = _second_threshold(found, reading, int(counts[i])) or np.inf
    return int(counts[min(tried, key=tried.__getitem__)])


def _joint_pruned(found: Search, point: Point, first: int) -> None:
    """Pruned text for the rows that the best full-text point re-routes: the first count stays, the second is free."""
    small, *larger = point.models
    keys = [PruneKey(small, name, point.alphas[0], point.importance, point.pruning) for name in larger]
    reading = _reading(found, point, *map(found.seen, keys))
    rows = reading.cut.order[: found.n if found.exhaustive else first]
    found.time(reading.second, rows)
    least = (reading.spent.sum() + (reading.second.ms[rows[:first]] + found.profile.overhead_ms).sum()) / found.n
    if found.best is not None and least >= found.best.latency_ms and not found.exhaustive:
        return
    for seen in (reading.second, reading.third):
        found.time(seen, rows)
        found.look(point, seen, rows)
    if found.exhaustive:
        _joint(found, reading)
    else:
        _second_threshold(found, reading, first)


def _second_threshold(found: Search, reading: Reading, first: int) -> float | None:
    """The least re-routing to level 3 that meets the target when level 1 re-routes its `first` least sure rows."""
    from tabi_bench.cascade.search import Cut

    point, rows, over = reading.point, reading.cut.order[:first], found.profile.overhead_ms
    spent = reading.spent.sum() + (reading.second.ms[rows] + over).sum()
    if found.best is not None and spent / found.n >= HOPELESS * found.best.latency_ms:
        return None
    outputs = [found.rungs[point.models[0]].output, reading.second.output, reading.third.output]
    both, base = point.combine(outputs[:2], [0, 1]), rules.label_of(outputs[0])
    base[rows] = rules.label_of(both[rows])
    other = rules.label_of(point.combine(outputs, [0, 1, 2]))
    inner = Cut.of(found.sure(point, 1, both, reading.second.pooled), rows, found.far)
    second = found.target.first_met(base, other, inner.order, inner.counts)
    if second is None:
        return None
    again = inner.order[:second]
    latency = float(spent + (reading.third.ms[again] + over).sum()) / found.n
    said = np.where(np.isin(np.arange(found.n), again), other, base)
    shares = [1 - first / found.n, (first - second) / found.n, second / found.n]
    found.offer(latency, point, [reading.cut.tau(first), inner.tau(second)], said, shares)
    return latency
