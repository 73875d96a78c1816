"""Intervals and tests for what a session measured: 95 %, two-sided, unless said otherwise.

Scores: the unit is the row. A metric of labels depends on the rows only through how often each combination of label and
predictions occurs, so a bootstrap resample is one multinomial draw over these few cells.

Latencies: the unit is the block, drawn jointly for all systems, as its queries share clocks, other tenants and memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest, t

from tabi_bench.evaluation.metrics import metric_of, score

RESAMPLES = 2000
P99_QUERIES = 662  # the fewest queries from which a p99 is reported
BLOCKS = 40  # the fewest blocks from which a percentile has an interval
_CHUNK = 4_000_000  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A number and its interval, from `n` queries; low and high are None where too few blocks were measured."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Percentile(Interval):
    """A latency percentile and its interval; low and high are None below BLOCKS blocks.

    `distinct`: queries behind it, as topping up repeats some. `enough`: n reaches what this percentile needs.
    """

    distinct: int
    enough: bool


# --- scores -----------------------------------------------------------------------------------------------------------


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share."""
    ci = binomtest(int(correct), int(n)).proportion_ci(level, method="wilson")
    return Interval(correct / n, float(ci.low), float(ci.high), int(n))


def resampled(
    metric: str, labels: np.ndarray, *predictions: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """(P, R) scores of P systems on R bootstrap resamples of the N rows, the same rows for all (paired).

    labels and each of predictions: (N,).
    """
    rng, known = np.random.default_rng(seed), metric_of(metric)
    rows = np.stack([np.asarray(labels), *map(np.asarray, predictions)], axis=1)
    cells, sizes = rows, np.ones(len(rows), np.int64)
    if known.regression:
        pass  # each row stands for itself
    elif metric == "accuracy":  # fewer cells: only which systems are right counts
        right = (rows == rows[:, :1]).astype(np.int64)
        cells, sizes = np.unique(right, axis=0, return_counts=True)
    else:
        cells, sizes = np.unique(rows, axis=0, return_counts=True)
    step, parts = max(1, _CHUNK // len(cells)), []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(len(rows), sizes / len(rows), size=min(step, resamples - start)).astype(np.float64)
        parts.append([known.scores(cells[:, 0], column, drawn) for column in cells.T[1:]])
    return np.concatenate(parts, axis=1)


def _bounds(samples: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_interval(
    metric: str, labels: np.ndarray, predictions: np.ndarray, level: float = 0.95, seed: int = 0
) -> Interval:
    """The score with its interval: Wilson's for accuracy, percentile bootstrap for other metrics."""
    if metric == "accuracy":
        return wilson(int(np.sum(np.asarray(labels) == np.asarray(predictions))), len(labels), level)
    low, high = _bounds(resampled(metric, labels, predictions, seed=seed)[0], level)
    return Interval(score(metric, labels, predictions), low, high, len(labels))


def score_difference(
    metric: str, labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, level: float = 0.95, seed: int = 0
) -> Interval:
    """Score of `ours` minus score of `reference` on the same rows, with its paired bootstrap interval."""
    a, b = resampled(metric, labels, ours, reference, seed=seed)
    low, high = _bounds(a - b, level)
    return Interval(score(metric, labels, ours) - score(metric, labels, reference), low, high, len(labels))


def difference_se(metric: str, labels: np.ndarray, ours: np.ndarray, reference: np.ndarray, seed: int = 0) -> float:
    """Standard error of the paired difference: closed form for accuracy, bootstrap for other metrics."""
    labels = np.asarray(labels)
    if metric == "accuracy":
        gain = (np.asarray(ours) == labels).astype(np.float64) - (np.asarray(reference) == labels)
        return float(gain.std(ddof=1) / np.sqrt(len(labels))) if len(labels) > 1 else 0.0
    a, b = resampled(metric, labels, ours, reference, seed=seed)
    return float((a - b).std(ddof=1))


def mcnemar(labels: np.ndarray, ours: np.ndarray, reference: np.ndarray) -> float:
    """Exact two-sided p that both are right equally often: a sign test on the rows where just one is right."""
    right, other = np.asarray(ours) == np.asarray(labels), np.asarray(reference) == np.asarray(labels)
    won, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def outcome(measured: Interval, target: float) -> Literal["met", "within noise", "missed"]:
    """met (the point reaches the target) | within noise (its interval contains it) | missed."""
    if measured.value >= target - 1e-12:  # a score may equal its target up to rounding
        return "met"
    return "within noise" if measured.high is not None and measured.high >= target else "missed"


# --- latencies --------------------------------------------------------------------------------------------------------


def ratio_of_totals(above: np.ndarray, below: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(...,) ratio of two totals over blocks (..., B), and half the width of its interval; infinite for one block.

    Linearised (Cochran 1977, 6.3): the residuals above - ratio x below have the ratio's error, t with B - 1 degrees of
    freedom. Blocks may have unequal sizes.
    """
    blocks = above.shape[-1]
    total = below.sum(-1)
    ratio = above.sum(-1) / total
    if blocks < 2:
        return ratio, np.full_like(ratio, np.inf)
    residuals = above - ratio[..., None] * below
    error = np.sqrt(blocks / (blocks - 1) * (residuals**2).sum(-1)) / total
    return ratio, t.ppf((1 + level) / 2, blocks - 1) * error


def mean_latency(ms: np.ndarray, blocks: np.ndarray, level: float = 0.95) -> Interval:
    """Mean of (N,) latencies that were measured in `blocks` (N,)."""
    sizes, totals = _block_totals(blocks, np.ones(len(ms)), ms)
    return _interval(*ratio_of_totals(totals, sizes, level), len(ms))


def latency_reduction(ours: np.ndarray, reference: np.ndarray, blocks: np.ndarray, level: float = 0.95) -> Interval:
    """Reduction of mean latency in percent, 100 (1 - mean(ours) / mean(reference)).

    ours, reference: (N,) ms of the same queries in served order; blocks: (N,) number of the interleaved block.
    """
    above, below = _block_totals(blocks, ours, reference)
    ratio, half = ratio_of_totals(above, below, level)
    return _interval(100 * (1 - ratio), 100 * half, len(ours))


def percentile(ms: np.ndarray, q: float, blocks: np.ndarray, queries: np.ndarray, level: float = 0.95) -> Percentile:
    """Percentile `q` (0..1) of (N,) latencies; from BLOCKS blocks on with an interval, by a bootstrap of whole blocks.

    queries: (N,) query ids, to count distinct ones.
    """
    order = np.argsort(ms, kind="stable")
    x = np.asarray(ms, np.float64)[order]
    _, block = np.unique(blocks, return_inverse=True)
    low = high = None
    enough = len(x) >= (P99_QUERIES if q >= 0.99 else 1)
    if enough and block.max() + 1 >= BLOCKS:
        low, high = _bounds(_resampled_percentiles(x, q, block[order]), level)
    return Percentile(float(np.quantile(x, q)), low, high, len(x), len(np.unique(queries)), enough)


def _resampled_percentiles(x: np.ndarray, q: float, block: np.ndarray) -> np.ndarray:
    """(R,) percentile of sorted latencies x (N,) under resamples of their blocks (N,), numbered from 0.

    Cumulated at about 200 ranks first: only between those that hold every resample's percentile is each rank looked at.
    """
    rng, n, blocks = np.random.default_rng(0), len(x), int(block.max()) + 1
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
    wanted = q * (drawn @ np.bincount(block))[:, None]
    ranks = np.unique(np.linspace(0, n, 200).astype(int))
    edges = np.stack([np.bincount(block[:rank], minlength=blocks) for rank in ranks], axis=1)
    inside = (drawn @ edges < wanted).sum(axis=1) - 1  # of the ranks: the last one before the percentile
    first, last = ranks[inside.min()], ranks[inside.max() + 1]
    before, places = drawn @ edges[:, [inside.min()]], []
    step = max(1, _CHUNK // (last - first))
    for start in range(0, RESAMPLES, step):
        part = slice(start, start + step)
        passed = before[part] + np.cumsum(drawn[part][:, block[first:last]], axis=1)
        places.append(first + (passed < wanted[part]).sum(axis=1))
    return x[np.concatenate(places)]


def _block_totals(blocks: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """The sums (B,) of each of `values` (N,) over every block."""
    _, block = np.unique(blocks, return_inverse=True)
    return [np.bincount(block, value) for value in values]


def _interval(value: np.ndarray, half: np.ndarray, n: int) -> Interval:
    known = bool(np.isfinite(half))
    return Interval(float(value), float(value - half) if known else None, float(value + half) if known else None, n)
