"""Intervals of scores and latencies: by hand, against brute force, and what must hold for any numbers."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tabi_bench.evaluation.calibration import auroc, ece, reliability
from tabi_bench.evaluation.deferral import area, deferral_curve, oracle_curve, random_curve
from tabi_bench.evaluation.statistics import (
    P99_QUERIES,
    Interval,
    difference_se,
    latency_reduction,
    mcnemar,
    mean_latency,
    outcome,
    percentile,
    ratio_of_totals,
    resampled,
    score_difference,
    score_interval,
    wilson,
)

N = 12
BITS = arrays(np.int64, N, elements=st.integers(0, 1))
SURE = arrays(np.float64, N, elements=st.floats(0, 1))


# --- scores -----------------------------------------------------------------------------------------------------------


def test_the_paired_bootstrap_agrees_with_drawing_rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    ours, other = (np.where(rng.random(200) < share, labels, (labels + 1) % 3) for share in (0.85, 0.8))
    actual = score_difference("accuracy", labels, ours, other)
    rows = rng.integers(0, 200, (4000, 200))
    gain = (ours == labels).astype(float) - (other == labels)
    low, high = np.quantile(gain[rows].mean(axis=1), [0.025, 0.975])
    assert actual.value == pytest.approx(gain.mean())
    assert (actual.low, actual.high) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("metric", ["matthews", "pearson"])
def test_the_bootstrap_is_paired(metric):
    """Two equal systems differ by nothing in every resample, although each one's score varies."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 100).astype(float if metric == "pearson" else int)
    says = np.where(rng.random(100) < 0.8, labels, 1 - labels)
    actual = score_difference(metric, labels, says, says)
    assert (actual.value, actual.low, actual.high) == (0, 0, 0)
    own = score_interval(metric, labels, says)
    assert own.low < own.value < own.high


def test_the_standard_error_of_a_difference_by_hand():
    labels = np.zeros(4, int)
    ours, other = np.array([0, 0, 1, 0]), np.array([1, 0, 1, 0])  # gains 1, 0, 0, 0: deviation .5
    assert difference_se("accuracy", labels, ours, other) == pytest.approx(0.25)


def test_outcomes():
    assert outcome(Interval(0.9, 0.85, 0.95, 10), 0.9) == "met"
    assert outcome(Interval(0.9, 0.85, 0.95, 10), 0.94) == "within noise"
    assert outcome(Interval(0.9, 0.85, 0.95, 10), 0.96) == "missed"


@given(st.integers(1, 500), st.data())
def test_wilson_holds_its_share_and_stays_within_bounds(n, data):
    correct = data.draw(st.integers(0, n))
    actual = wilson(correct, n)
    assert 0 <= actual.low <= correct / n + 1e-9 and correct / n - 1e-9 <= actual.high <= 1
    assert wilson(correct, n, 0.99).low <= actual.low + 1e-12


@given(BITS, BITS, BITS)
def test_mcnemar_is_the_sign_test(labels, ours, other):
    p = mcnemar(labels, ours, other)
    assert p == mcnemar(labels, other, ours)
    won = int(((ours == labels) & (other != labels)).sum())
    lost = int(((other == labels) & (ours != labels)).sum())
    n, least = won + lost, min(won, lost)
    assert p == pytest.approx(min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n))


@settings(max_examples=30, deadline=None)
@given(BITS, BITS)
def test_resampled_scores_are_those_of_rows(labels, says):
    drawn = resampled("accuracy", labels, says, resamples=200)[0]
    assert ((drawn * N - np.round(drawn * N)) < 1e-9).all() and 0 <= drawn.min() <= drawn.max() <= 1
    if (labels == says).all():
        assert (drawn == 1).all()


# --- latencies --------------------------------------------------------------------------------------------------------


def blocks_of(n: int, size: int = 50) -> np.ndarray:
    return np.arange(n) // size


def test_the_mean_by_hand():
    """Two blocks with totals 3 and 9: residuals -3 and 3 about 3 per query, t(1) = 12.706."""
    mean = mean_latency(np.array([1.0, 2.0, 4.0, 5.0]), np.array([0, 0, 1, 1]))
    half = 12.7062 * np.sqrt(2 * (9 + 9)) / 4
    assert (mean.value, mean.low, mean.high) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-3)


def test_the_reduction_is_a_ratio_of_totals():
    """Blocks of two and one queries: 6 of 12 ms in all; residuals 3 - .5 * 8 and 3 - .5 * 4."""
    reduction = latency_reduction(np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0]), np.array([0, 0, 1]))
    half = 100 * 12.7062 * np.sqrt(2 * (1 + 1)) / 12
    assert (reduction.value, reduction.high) == pytest.approx((50.0, 50 + half), abs=1e-3)


@pytest.mark.parametrize("measure", [mean_latency, lambda ms, blocks: latency_reduction(ms, 2 * ms, blocks)])
def test_one_block_has_no_interval(measure):
    only = measure(np.array([1.0, 2.0, 3.0]), np.zeros(3, int))
    assert (only.low, only.high) == (None, None) and np.isfinite(only.value)


def test_drift_between_blocks_cancels():
    """Both systems slow down in the second block alike: the reduction is the same, and certain."""
    block = blocks_of(100)
    reference = np.where(block == 0, 2.0, 20.0)
    reduction = latency_reduction(reference / 2, reference, block)
    assert (reduction.value, reduction.low, reduction.high) == pytest.approx((50.0, 50.0, 50.0))


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, 20, elements=st.floats(0.1, 50)), st.floats(0.1, 10))
def test_the_reduction_does_not_depend_on_the_unit(ms, unit):
    ours, reference, block = ms, ms[::-1], blocks_of(20, 6)
    one, other = latency_reduction(ours, reference, block), latency_reduction(unit * ours, unit * reference, block)
    assert (one.value, one.low) == pytest.approx((other.value, other.low), abs=1e-6)
    assert one.low <= one.value <= one.high


def simulated(blocks: int, effect: float, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(runs, B) sizes and block totals of two systems; expected ratio .6, mean 6 and 10 ms, a last block of 20 for 50.

    In a query of 10 ms a shared part varies, the length of its text; of ours 45 % of the queries take 2 ms and the
    others 9.27. `effect`: the deviation of a factor that the queries of one system share in a block. Sums of gamma and
    Bernoulli variables are drawn as such.
    """
    rng = np.random.default_rng(seed)
    sizes = np.full(blocks, 50)
    sizes[-1] = 20
    length = rng.gamma(8.0 * sizes, 1 / 8, (runs, blocks))
    early = rng.binomial(sizes, 0.45, (runs, blocks))
    noise = rng.gamma(4.0 * sizes, 1 / 4, (2, runs, blocks))
    late_ms = (6 - 0.45 * 2) / 0.55
    ours = 2 * early + late_ms * (sizes - early) + 1.5 * (length - sizes) + 1.0 * (noise[0] - sizes)
    reference = 8 * length + 2 * noise[1]
    factors = rng.normal(1, effect, (2, runs, blocks)) * rng.normal(1, effect, (runs, blocks))
    return np.broadcast_to(sizes, (runs, blocks)), factors[0] * ours, factors[1] * reference


COVERED = [(blocks, effect) for blocks in (8, 16, 40, 80, 200) for effect in (0.0, 0.05, 0.2)]


@pytest.mark.parametrize(("blocks", "effect"), COVERED)
def test_intervals_of_latencies_cover(blocks, effect):
    sizes, ours, reference = simulated(blocks, effect, runs=2000, seed=blocks)
    for above, below, truth in ((ours, reference, 0.6), (ours, sizes, 6.0)):
        ratio, half = ratio_of_totals(above, below)
        assert 0.93 <= np.mean(np.abs(ratio - truth) <= half) <= 0.97


def test_queries_alone_would_not_cover():
    """What resampling queries within blocks amounts to: blocks that differ are far outside their own noise."""
    _, ours, reference = simulated(40, 0.2, runs=500, seed=1)
    quiet = simulated(40, 0.0, runs=500, seed=1)
    within = ratio_of_totals(quiet[1], quiet[2])[1]
    assert np.mean(np.abs(ratio_of_totals(ours, reference)[0] - 0.6) <= within) < 0.7


# --- percentiles ------------------------------------------------------------------------------------------------------


def test_a_percentile_needs_blocks_and_queries():
    n = 2000
    ms, queries = np.arange(float(n)), np.arange(n) % 700
    enough, few = percentile(ms, 0.9, blocks_of(n, 50), queries), percentile(ms, 0.9, blocks_of(n, 52), queries)
    assert enough.low < enough.value < enough.high and enough.distinct == 700
    assert few.enough and (few.low, few.high) == (None, None), "39 blocks"
    short = percentile(ms[:661], 0.99, blocks_of(661, 10), queries[:661])
    assert P99_QUERIES == 662 and not short.enough and short.low is None
    assert percentile(ms[:662], 0.99, blocks_of(662, 10), queries[:662]).low is not None
    assert percentile(ms[:50], 0.5, blocks_of(50, 1), queries[:50]).enough


def test_whole_blocks_are_drawn():
    """Every fifth block is slow: the 80 % quantile is one of two values, and the interval holds both."""
    block = blocks_of(1000, 20)
    ms = np.where(block % 5 == 0, 10.0, 1.0) + 1e-6 * np.arange(1000)
    assert percentile(ms, 0.8, block, block).low < 2 and percentile(ms, 0.8, block, block).high > 9
    mixed = np.random.default_rng(0).permutation(1000)
    drawn = percentile(ms[mixed], 0.7, block, block)
    assert drawn.high < 2, "the same latencies, no longer together, leave no doubt"


@pytest.mark.parametrize(("q", "least"), [(0.5, 0.92), pytest.param(0.99, 0.88, marks=pytest.mark.slow)])
def test_the_interval_of_a_percentile_covers(q, least):
    """Exponential latencies times a factor per block, whose quantiles are known from many draws."""
    rng = np.random.default_rng(2)

    def draw(blocks: int) -> np.ndarray:
        return (rng.exponential(size=(blocks, 25)) * rng.normal(1, 0.05, (blocks, 1))).ravel()

    truth = np.quantile(draw(80_000), q)
    block, runs = blocks_of(40 * 25, 25), 300
    intervals = [percentile(draw(40), q, block, block) for _ in range(runs)]
    assert least <= np.mean([p.low <= truth <= p.high for p in intervals]) <= 0.99


# --- calibration and deferral -----------------------------------------------------------------------------------------


@given(SURE, BITS)
def test_calibration_error_lies_between_bias_and_one(confidence, correct):
    table = reliability(confidence, correct)
    assert (
        table.n.sum() == N and ((table.confidence >= table.low - 1e-9) & (table.confidence <= table.high + 1e-9)).all()
    )
    assert abs(confidence.mean() - correct.mean()) - 1e-9 <= ece(confidence, correct) <= 1


@given(SURE, BITS)
def test_auroc_counts_pairs(confidence, correct):
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    actual = auroc(confidence, correct)
    if not len(right) or not len(wrong):
        assert np.isnan(actual)
        return
    pairs = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    assert actual == pytest.approx(pairs)


@given(SURE, BITS, BITS)
def test_no_order_defers_better_than_the_oracle(confidence, small, large):
    curve, best = deferral_curve(confidence, small, large), oracle_curve(small, large)
    assert (curve <= best + 1e-12).all()
    assert curve[0] == small.mean() and curve[-1] == pytest.approx(large.mean())
    line = random_curve(small, large)
    assert (best >= line - 1e-12).all() and area(curve) <= area(best) + 1e-12
    assert area(line) == pytest.approx((small.mean() + large.mean()) / 2)
