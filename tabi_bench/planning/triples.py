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


def triples(search: Search) -> None:
    """Offers three-level points to `search`, which has searched the pairs; their best is kept as `search.pairwise`."""
    search.pairwise = search.best
    if not search.options.fewer_levels:
        search.forget()
    for alpha in sorted(set(search.options.alphas)):
        for names in combinations(search.models, 3):
            for point in search.settings(names, (alpha, alpha)):
                _setting(search, point)


def _setting(search: Search, point: Point) -> None:
    """Offers the best points of a setting, until no guess at it beats the best point of all."""
    cut, second = search.cut(point), search.reading(point, 1)
    tried: list[int] = []
    if search.exhaustive:
        for level in (1, 2):
            search.ask(search.reading(point, level), cut.order, point.temperatures[level])
    while True:
        middle = _middle(search, point, cut)
        first = _fastest(search, middle, np.setdiff1d(_firsts(search, middle), tried))
        if first is None:
            return
        if second.known(cut.order[:first]) < first:
            search.ask(second, cut.order[:first], point.temperatures[1])
            continue
        tried.append(first)
        candidate = search.last_threshold(_step(search, middle, first), search.limit_ms)
        if candidate is not None:
            search.offer(candidate)


def _middle(search: Search, point: Point, cut: Cut) -> Middle:
    """Where level 2 has not run it is taken to be as sure as on full text."""
    small, second, third = search.models[point.models[0]], search.reading(point, 1), search.reading(point, 2)
    whole = [search.models[name] for name in point.models]
    spent = small.ms_importance if point.wants_importance(0) else small.ms
    ran2, ran3 = second.ran[:, None], third.ran[:, None]
    output = np.where(ran2, second.output, whole[1].output)
    pooled = whole[1].pooled
    if pooled is not None and second.pooled is not None:
        pooled = np.where(ran2, second.pooled, pooled)
    voted = point.combine_rows([small.output, output])
    sure = search.sure(point, 1, np.nan_to_num(voted), pooled)
    sure[~np.isfinite(output).all(axis=1)] = np.nan  # a level that failed is unsure
    base, both = predictions_from(small.output), predictions_from(voted)
    both = np.where(second.ran, both, search.hoped(base, both))
    last = predictions_from(point.combine_rows([small.output, output, np.where(ran3, third.output, whole[2].output)]))
    last = np.where(third.ran, last, search.hoped(both, last))
    return Middle(point, cut, float(spent.sum()), small.output, base, both, last, sure, second, third)


def _firsts(search: Search, middle: Middle) -> np.ndarray:
    """The counts at which level 1 alone may be followed by anything faster than the best point."""
    spent = _spent_ms(search, middle)
    counts = middle.cut.counts
    return counts[spent[counts] < search.limit_ms * search.n]


def _spent_ms(search: Search, middle: Middle) -> np.ndarray:
    """(N + 1,) time of levels 1 and 2 over all rows, by number of rows that level 1 re-routes."""
    added_ms = middle.second.ms[middle.cut.order] + _level_ms(search, middle, 1)
    return middle.spent_ms + np.concatenate([[0.0], np.cumsum(added_ms)])


def _level_ms(search: Search, middle: Middle, level: int) -> float:
    return search.profile.level_ms(middle.point.alphas[level - 1] > 0)


def _fastest(search: Search, middle: Middle, firsts: np.ndarray) -> int | None:
    """Which of `firsts` is guessed to lead to the fastest point; None if no guess beats the best point."""
    if not len(firsts):
        return None
    limit_ms = search.limit_ms if search.exhaustive else (1 - MATTERS) * search.limit_ms
    grid = np.arange(len(firsts))
    if not search.exhaustive:
        grid = np.unique(np.linspace(0, len(firsts) - 1, GRID).astype(int))
    guesses = _guesses(search, middle, firsts[grid], limit_ms)
    at, step = grid[guesses.argmin()], int(np.diff(grid).max(initial=1))
    if np.isfinite(guesses.min()) and step > 1:
        firsts = firsts[max(0, at - step + 1) : at + step]
        guesses = _guesses(search, middle, firsts, limit_ms)
    else:
        firsts = firsts[grid]
    return int(firsts[guesses.argmin()]) if np.isfinite(guesses.min()) else None


def _guesses(search: Search, middle: Middle, firsts: np.ndarray, limit_ms: float) -> np.ndarray:
    """(F,) mean latency of the fastest point that may meet the target, by `firsts`; infinite from `limit_ms` on."""
    cut, target = middle.cut, search.target
    rank = np.empty(search.n, np.int64)
    rank[cut.order] = np.arange(search.n)
    inner = Cut.of(middle.sure, cut.order[: firsts[-1]], search.dispatcher)
    base, both, last = (target.features(predictions) for predictions in (middle.base, middle.both, middle.last))
    started = base.sum(0) + np.concatenate([np.zeros((1, base.shape[1])), np.cumsum((both - base)[cut.order], axis=0)])
    spent, extra = _spent_ms(search, middle), middle.third.ms[inner.order] + _level_ms(search, middle, 2)
    gain, parts = (last - both)[inner.order], []
    for some in np.array_split(firsts, 1 + len(firsts) * len(inner.order) // CELLS):
        passed = rank[inner.order] < some[:, None]  # (f, M) rows that level 2 reads, least sure first
        late = _sums(passed, extra, spent[some])[:, inner.counts]
        width = max(1, int((late < limit_ms * search.n).sum(axis=1).max(initial=0)))
        sums = [_sums(passed, gain[:, k], started[some, k])[:, inner.counts[:width]] for k in range(gain.shape[1])]
        met = target.may_meet(np.stack(sums, axis=-1)) & (late[:, :width] < limit_ms * search.n)
        parts.append(np.where(met.any(axis=1), late[np.arange(len(some)), met.argmax(axis=1)] / search.n, np.inf))
    return np.concatenate(parts)


def _sums(passed: np.ndarray, values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(f, M + 1) start (f,) plus the running sums of `values` (M,) over the rows passed (f, M)."""
    table = np.empty((len(passed), len(values) + 1))
    table[:, 0] = 0.0
    np.cumsum(passed * values, axis=1, out=table[:, 1:])
    return table + start[:, None]


def _step(search: Search, middle: Middle, first: int) -> LastStep:
    """What is left to decide once level 1 re-routes its `first` least sure rows."""
    rows, base = middle.cut.order[:first], middle.base.copy()
    base[rows] = middle.both[rows]
    spent = middle.spent_ms + float((middle.second.ms[rows] + _level_ms(search, middle, 1)).sum())
    inner = Cut.of(middle.sure, rows, search.dispatcher)
    passed = [middle.small, middle.second.output]
    taus, shares = [middle.cut.tau(first)], [1 - first / search.n]
    return LastStep(middle.point, passed, base, spent, inner, middle.third, taus, shares)
