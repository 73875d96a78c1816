"""Plan search for three levels: both thresholds jointly, on full text first, then on pruned text around its best.

For each number of rows that level 1 re-routes, the rest is a search over the last threshold, as for a pair. These
numbers are tried on a grid, then all of them around the grid's best.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.cascade.cuts import Cut, Reading
from tabi_bench.cascade.search import Candidate, LastStep, answers_of

if TYPE_CHECKING:
    from tabi_bench.cascade.plans import Point
    from tabi_bench.cascade.search import Search

GRID = 48  # numbers of rows re-routed by level 1 that are tried first
HOPELESS = 1.3  # a full-text setting this much slower than the best so far is not refined by pruning


@dataclass(frozen=True)
class Middle:
    """A setting of three levels before its first threshold: level 1 and 2 wherever level 2 was asked.

    cut: all rows by level 1's confidence; spent_ms: level 1's time over all rows; small: (N, K) its output; base, both:
    (N,) answers after level 1 and 2; output: (N, K) of both combined; sure: (N,) confidence in it.
    """

    point: Point
    cut: Cut
    spent_ms: float
    small: np.ndarray
    base: np.ndarray
    both: np.ndarray
    sure: np.ndarray
    second: Reading
    third: Reading


def triples(found: Search) -> None:
    """Offers three-level points to `found`, which has searched the pairs; their best is kept as `found.pairwise`."""
    found.pairwise = found.best
    if not found.options.fewer_levels:
        found.best = None
    full_text = {}
    for names in combinations(found.rungs, 3):
        for number, point in enumerate(found.settings(names, (0.0, 0.0))):
            best = _joint(found, _middle(found, point), HOPELESS * found.limit_ms)
            if best is not None:
                full_text[names, number] = best
                if 0.0 in found.options.alphas:
                    found.offer(best)
    for alpha in sorted(set(found.options.alphas) - {0.0}):
        for (names, number), best in sorted(full_text.items(), key=lambda item: item[1].latency_ms):
            point = list(found.settings(names, (alpha, alpha)))[number]
            _pruned(found, point, round((1 - best.shares[0]) * found.n))


def _middle(found: Search, point: Point) -> Middle:
    """Where level 2 has not run, its confidence and answers mean nothing, and no caller may look."""
    small, second = found.rungs[point.models[0]], found.reading(point, 1)
    spent = small.ms_importance if point.wants_importance(0) else small.ms
    output = point.combine_rows([small.output, second.output])
    sure = found.sure(point, 1, np.nan_to_num(output), second.pooled)
    sure[~np.isfinite(second.output).all(axis=1)] = np.nan  # a level that failed is unsure
    base, both = answers_of(small.output), answers_of(output)
    third = found.reading(point, 2)
    return Middle(point, found.cut(point), float(spent.sum()), small.output, base, both, sure, second, third)


def _joint(found: Search, middle: Middle, limit_ms: float, most: int | None = None) -> Candidate | None:
    """The fastest point below `limit_ms`, level 1 re-routing at most `most` rows: a grid, then around its best."""
    firsts = _firsts(found, middle, limit_ms, most)
    if found.exhaustive:
        return _fastest(_tries(found, middle, firsts, limit_ms))
    grid = np.unique(np.linspace(0, len(firsts) - 1, GRID).astype(int)) if len(firsts) else []
    best = _fastest(_tries(found, middle, firsts[grid], limit_ms)) if len(firsts) else None
    if best is None:
        return None
    at = int(np.searchsorted(firsts, round((1 - best.shares[0]) * found.n)))
    step = int(np.diff(grid).max(initial=1))
    around = firsts[max(0, at - step + 1) : at + step]
    return _fastest([best, *_tries(found, middle, around, best.latency_ms)])


def _tries(found: Search, middle: Middle, firsts: Iterable[int], limit_ms: float) -> list[Candidate]:
    """The best point for each of `firsts`, each faster than those before it."""
    best: list[Candidate] = []
    for first in firsts:
        limit = limit_ms if found.exhaustive or not best else min(limit_ms, best[-1].latency_ms)
        candidate = found.last_threshold(_step(found, middle, int(first)), limit)
        if candidate is not None:
            best.append(candidate)
    return best


def _fastest(candidates: list[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda candidate: candidate.latency_ms, default=None)


def _firsts(found: Search, middle: Middle, limit_ms: float, most: int | None) -> np.ndarray:
    """The counts at which level 1 alone may be followed by anything that meets the target below `limit_ms`."""
    cut, over = middle.cut, found.profile.overhead_ms
    spent = middle.spent_ms + np.concatenate([[0.0], np.cumsum(middle.second.ms[cut.order] + over)])
    counts = cut.counts[(spent[cut.counts] < limit_ms * found.n) & (cut.counts <= (found.n if most is None else most))]
    right = found.profile.labels.astype(middle.base.dtype)
    least = found.hope.first_met(middle.base, right, cut.order, counts)
    return counts[:0] if least is None else counts[counts >= least]


def _step(found: Search, middle: Middle, first: int) -> LastStep:
    """What is left to decide once level 1 re-routes its `first` least sure rows."""
    rows, base = middle.cut.order[:first], middle.base.copy()
    base[rows] = middle.both[rows]
    spent = middle.spent_ms + float((middle.second.ms[rows] + found.profile.overhead_ms).sum())
    inner = Cut.of(middle.sure, rows, found.far)
    passed = [middle.small, middle.second.output]
    taus, shares = [middle.cut.tau(first)], [1 - first / found.n]
    return LastStep(middle.point, passed, base, spent, inner, middle.third, taus, shares)


def _pruned(found: Search, point: Point, first: int) -> None:
    """Pruned text for the rows that the best full-text point re-routes at level 1, and thresholds below that one."""
    second, cut = found.reading(point, 1), found.cut(point)
    rows = cut.order if found.exhaustive else cut.order[:first]
    spent = found.rungs[point.models[0]].ms_importance.sum()
    for known in (False, True):  # bounded by the shortest text, then by their own lengths
        if known:
            second.time(found.profile, rows)
        if spent + (second.ms[rows] + found.profile.overhead_ms).sum() >= found.limit_ms * found.n:
            return
    found.run += second.run(found.profile, rows, point.temperatures[1])
    best = _joint(found, _middle(found, point), found.limit_ms, len(rows))
    if best is not None:
        found.offer(best)
