"""Intervals and tests for what a session measured: 95 %, two-sided, unless said otherwise.

Resampling never loops over resamples. Classification metrics depend on the rows only through how often each combination
of label and predictions occurs, so a bootstrap resample is one multinomial draw over these few cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest

from tabi_bench.evaluation.metrics import score

RESAMPLES = 2000
P99_QUERIES = 662  # the fewest queries from which a p99 is reported with an interval
_CHUNK = 4_000_000  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A number and its interval, from `n` queries."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Percentile:
    """A latency percentile with the order statistics around it; low or high is None where too few queries say.

    `distinct`: queries behind it, as topping up repeats some. `enough`: n reaches what this percentile needs.
    """

    value: float
    low: float | None
    high: float | None
    n: int
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

    metric: accuracy, matthews or pearson; labels and each of predictions: (N,).
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    if metric == "accuracy":
        right = np.stack([np.asarray(p) == labels for p in predictions], axis=1)
        cells, sizes = np.unique(right, axis=0, return_counts=True)
        counts = rng.multinomial(len(labels), sizes / len(labels), size=resamples)
        return (counts @ cells.astype(np.float64)).T / len(labels)
    if metric == "matthews":
        cells, sizes = np.unique(np.stack([labels, *predictions], axis=1), axis=0, return_counts=True)
        counts = rng.multinomial(len(labels), sizes / len(labels), size=resamples).astype(np.float64)
        return np.stack([_weighted_matthews(counts, cells[:, 0], column) for column in cells.T[1:]])
    if metric == "pearson":
        chunks = _row_counts(np.zeros(len(labels), np.int64), resamples, rng)
        return np.concatenate([[_weighted_pearson(c, labels, p) for p in predictions] for c in chunks], axis=1)
    raise ValueError(f"no bootstrap for metric {metric!r}; there are: accuracy, matthews, pearson")


def _weighted_matthews(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(R,) Matthews correlations from (R, C) counts of C cells (Gorodkin 2004)."""
    classes = np.union1d(labels, predictions)
    true = counts @ (labels[:, None] == classes).astype(np.float64)
    said = counts @ (predictions[:, None] == classes).astype(np.float64)
    n = counts.sum(axis=1)
    covariance = counts @ (labels == predictions).astype(np.float64) * n - (true * said).sum(axis=1)
    scale = np.sqrt((n**2 - (true**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1)))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def _weighted_pearson(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R,) Pearson correlations of (N,) x and y under (R, N) counts."""
    x, y = x - np.mean(x), y - np.mean(y)  # centred beforehand: the moments below stay well conditioned
    n = counts.shape[1]
    mx, my, xx, yy, xy = (counts @ np.stack([x, y, x * x, y * y, x * y], axis=1) / n).T
    scale = np.sqrt(np.maximum(xx - mx**2, 0) * np.maximum(yy - my**2, 0))
    return np.divide(xy - mx * my, scale, out=np.zeros_like(scale), where=scale > 1e-12)


def _row_counts(blocks: np.ndarray, resamples: int, rng: np.random.Generator):
    """Yields (r, N) float64: how often each row occurs in each of r resamples, drawn within its block; r sum to R."""
    n = len(blocks)
    order = np.argsort(blocks, kind="stable")
    _, first, size = np.unique(blocks[order], return_index=True, return_counts=True)
    start, span = np.repeat(first, size), np.repeat(size, size)
    step = max(1, _CHUNK // n)
    for done in range(0, resamples, step):
        r = min(step, resamples - done)
        drawn = start + (rng.random((r, n)) * span).astype(np.int64)
        flat = order[drawn] + n * np.arange(r)[:, None]
        yield np.bincount(flat.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def _bounds(samples: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_interval(
    metric: str, labels: np.ndarray, predictions: np.ndarray, level: float = 0.95, seed: int = 0
) -> Interval:
    """The score with its interval: Wilson's for accuracy, percentile bootstrap for Matthews and Pearson."""
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
    """Standard error of the paired difference: closed form for accuracy, bootstrap for Matthews and Pearson."""
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


def outcome(measured: Interval, target: float) -> str:
    """met (the point reaches the target) | within noise (its interval contains it) | missed."""
    if measured.value >= target - 1e-12:  # a score may equal its target up to rounding
        return "met"
    return "within noise" if measured.high >= target else "missed"


# --- latencies --------------------------------------------------------------------------------------------------------


def percentile(latency_ms: np.ndarray, q: float, queries: np.ndarray | None = None, level: float = 0.95) -> Percentile:
    """Percentile `q` (0..1) of (N,) latencies; its interval are the order statistics that bracket it with `level`.

    queries: (N,) query ids, to count distinct ones. With B ~ Bin(N, q): P(x_(l) <= quantile < x_(u)) = P(l <= B < u).
    """
    x = np.sort(np.asarray(latency_ms, np.float64))
    low, high = (int(binom.ppf(p, len(x), q)) for p in ((1 - level) / 2, (1 + level) / 2))
    enough = len(x) >= (P99_QUERIES if q >= 0.99 else 1)
    return Percentile(
        value=float(np.quantile(x, q)),
        low=float(x[low - 1]) if low >= 1 and enough else None,
        high=float(x[high]) if high < len(x) and enough else None,
        n=len(x),
        distinct=len(x) if queries is None else len(np.unique(queries)),
        enough=enough,
    )


def mean_latency(latency_ms: np.ndarray, level: float = 0.95) -> Interval:
    """Mean of (N,) latencies with its normal interval (the central limit theorem holds for hundreds of queries)."""
    x = np.asarray(latency_ms, np.float64)
    half = float(-_normal_quantile((1 - level) / 2) * x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def _normal_quantile(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))


def latency_reduction(
    ours: np.ndarray,
    reference: np.ndarray,
    blocks: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Reduction of mean latency in percent, 100 (1 - mean(ours) / mean(reference)): a ratio of means.

    ours, reference: (N,) ms of the same queries in served order; blocks: (N,) number of the interleaved block. Queries
    are resampled within their block, the same ones for both systems, so that slow drift of the device cancels.
    """
    both = np.stack([ours, reference], axis=1).astype(np.float64)
    blocks = np.zeros(len(both), np.int64) if blocks is None else np.asarray(blocks)
    rng = np.random.default_rng(seed)
    sums = np.concatenate([counts @ both for counts in _row_counts(blocks, resamples, rng)])
    low, high = _bounds(100 * (1 - sums[:, 0] / sums[:, 1]), level)
    return Interval(float(100 * (1 - both[:, 0].mean() / both[:, 1].mean())), low, high, len(both))
