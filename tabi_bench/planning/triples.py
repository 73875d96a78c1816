"""Plan search for three levels: both thresholds jointly, on full text, then on pruned text.

A setting is guessed at first, for many numbers of rows that level 1 re-routes and every last threshold at once: what
has not run is hoped to go well, as for pairs. What the fastest guess reads is run, and the setting guessed at again,
until no guess beats the best point found.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.evaluation.metrics import predictions_from
from tabi_bench.planning.cuts import Cut, Known, LastStep

if TYPE_CHECKING:
    from tabi_bench.cascade.point import Point
    from tabi_bench.planning.search import Search

GRID = 64  # numbers of rows re-routed by level 1 that are guessed at first, then all of them around the fastest
CELLS = 2_000_000  # of the table over both thresholds, worked out at once
MATTERS = 1e-3  # a guess is followed if it beats the best point by this share of its latency


@dataclass(frozen=True)
class Middle:
    """A setting of three levels before its first threshold, as far as known, hoped for beyond.

    cut: all rows by level 1's confidence; spent_ms: level 1's time over all rows; small: (N, K) its output; base, both,
    last: (N,) answers after level 1, 2, 3; sure: (N,) confidence after level 2.
    """

    point: Point
    cut: Cut
    spent_ms: float
    small: np.ndarray
    base: np.ndarray
    both: np.ndarray
    last: np.ndarray
    sure: np.ndarray
    second: Known
    third: Known


def triples(found: Search) -> None:
    """Offers three-level points to `found`, which has searched the pairs; their best is kept as `found.pairwise`."""
    found.pairwise = found.best
    if not found.options.fewer_levels:
        found.forget()
    for alpha in sorted(set(found.options.alphas)):
        for names in combinations(found.models, 3):
            for point in found.settings(names, (alpha, alpha)):
                _setting(found, point)


def _setting(found: Search, point: Point) -> None:
    """Offers the best points of a setting, until no guess at it beats the best point of all."""
    cut, second = found.cut(point), found.reading(point, 1)
    tried: list[int] = []
    if found.exhaustive:
        for level in (1, 2):
            found.ask(found.reading(point, level), cut.order, point.temperatures[level])
    while True:
        middle = _middle(found, point, cut)
        first = _fastest(found, middle, np.setdiff1d(_firsts(found, middle), tried))
        if first is None:
            return
        if second.known(cut.order[:first]) < first:
            found.ask(second, cut.order[:first], point.temperatures[1])
            continue
        tried.append(first)
        candidate = found.last_threshold(_step(found, middle, first), found.limit_ms)
        if candidate is not None:
            found.offer(candidate)


def _middle(found: Search, point: Point, cut: Cut) -> Middle:
    """Where level 2 has not run it is taken to be as sure as on full text."""
    small, second, third = found.models[point.models[0]], found.reading(point, 1), found.reading(point, 2)
    whole = [found.models[name] for name in point.models]
    spent = small.ms_importance if point.wants_importance(0) else small.ms
    ran2, ran3 = second.ran[:, None], third.ran[:, None]
    output = np.where(ran2, second.output, whole[1].output)
    pooled = whole[1].pooled
    if pooled is not None and second.pooled is not None:
        pooled = np.where(ran2, second.pooled, pooled)
    voted = point.combine_rows([small.output, output])
    sure = found.sure(point, 1, np.nan_to_num(voted), pooled)
    sure[~np.isfinite(output).all(axis=1)] = np.nan  # a level that failed is unsure
    base, both = predictions_from(small.output), predictions_from(voted)
    both = np.where(second.ran, both, found.hoped(base, both))
    last = predictions_from(point.combine_rows([small.output, output, np.where(ran3, third.output, whole[2].output)]))
    last = np.where(third.ran, last, found.hoped(both, last))
    return Middle(point, cut, float(spent.sum()), small.output, base, both, last, sure, second, third)


def _firsts(found: Search, middle: Middle) -> np.ndarray:
    """The counts at which level 1 alone may be followed by anything faster than the best point."""
    spent = _spent_ms(found, middle)
    counts = middle.cut.counts
    return counts[spent[counts] < found.limit_ms * found.n]


def _spent_ms(found: Search, middle: Middle) -> np.ndarray:
    """(N + 1,) time of levels 1 and 2 over all rows, by number of rows that level 1 re-routes."""
    each = middle.second.ms[middle.cut.order] + _level_ms(found, middle, 1)
    return middle.spent_ms + np.concatenate([[0.0], np.cumsum(each)])


def _level_ms(found: Search, middle: Middle, level: int) -> float:
    return found.profile.level_ms(middle.point.alphas[level - 1] > 0)


def _fastest(found: Search, middle: Middle, firsts: np.ndarray) -> int | None:
    """Which of `firsts` is guessed to lead to the fastest point; None if no guess beats the best point."""
    if not len(firsts):
        return None
    limit_ms = found.limit_ms if found.exhaustive else (1 - MATTERS) * found.limit_ms
    grid = np.arange(len(firsts))
    if not found.exhaustive:
        grid = np.unique(np.linspace(0, len(firsts) - 1, GRID).astype(int))
    guesses = _guesses(found, middle, firsts[grid], limit_ms)
    at, step = grid[guesses.argmin()], int(np.diff(grid).max(initial=1))
    if np.isfinite(guesses.min()) and step > 1:
        firsts = firsts[max(0, at - step + 1) : at + step]
        guesses = _guesses(found, middle, firsts, limit_ms)
    else:
        firsts = firsts[grid]
    return int(firsts[guesses.argmin()]) if np.isfinite(guesses.min()) else None


def _guesses(found: Search, middle: Middle, firsts: np.ndarray, limit_ms: float) -> np.ndarray:
    """(F,) mean latency of the fastest point that may meet the target, by `firsts`; infinite from `limit_ms` on."""
    cut, target = middle.cut, found.target
    rank = np.empty(found.n, np.int64)
    rank[cut.order] = np.arange(found.n)
    inner = Cut.of(middle.sure, cut.order[: firsts[-1]], found.dispatcher)
    base, both, last = (target.features(said) for said in (middle.base, middle.both, middle.last))
    started = base.sum(0) + np.concatenate([np.zeros((1, base.shape[1])), np.cumsum((both - base)[cut.order], axis=0)])
    spent, extra = _spent_ms(found, middle), middle.third.ms[inner.order] + _level_ms(found, middle, 2)
    gain, parts = (last - both)[inner.order], []
    for some in np.array_split(firsts, 1 + len(firsts) * len(inner.order) // CELLS):
        passed = rank[inner.order] < some[:, None]  # (f, M) rows that level 2 reads, least sure first
        late = _sums(passed, extra, spent[some])[:, inner.counts]
        width = max(1, int((late < limit_ms * found.n).sum(axis=1).max(initial=0)))
        sums = [_sums(passed, gain[:, k], started[some, k])[:, inner.counts[:width]] for k in range(gain.shape[1])]
        met = target.may_meet(np.stack(sums, axis=-1)) & (late[:, :width] < limit_ms * found.n)
        parts.append(np.where(met.any(axis=1), late[np.arange(len(some)), met.argmax(axis=1)] / found.n, np.inf))
    return np.concatenate(parts)


def _sums(passed: np.ndarray, each: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(f, M + 1) start (f,) plus the running sums of `each` (M,) over the rows passed (f, M)."""
    table = np.empty((len(passed), len(each) + 1))
    table[:, 0] = 0.0
    np.cumsum(passed * each, axis=1, out=table[:, 1:])
    return table + start[:, None]


def _step(found: Search, middle: Middle, first: int) -> LastStep:
    """What is left to decide once level 1 re-routes its `first` least sure rows."""
    rows, base = middle.cut.order[:first], middle.base.copy()
    base[rows] = middle.both[rows]
    spent = middle.spent_ms + float((middle.second.ms[rows] + _level_ms(found, middle, 1)).sum())
    inner = Cut.of(middle.sure, rows, found.dispatcher)
    passed = [middle.small, middle.second.output]
    taus, shares = [middle.cut.tau(first)], [1 - first / found.n]
    return LastStep(middle.point, passed, base, spent, inner, middle.third, taus, shares)
