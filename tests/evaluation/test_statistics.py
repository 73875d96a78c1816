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
    found = score_difference("accuracy", labels, ours, other)
    rows = rng.integers(0, 200, (4000, 200))
    gain = (ours == labels).astype(float) - (other == labels)
    low, high = np.quantile(gain[rows].mean(axis=1), [0.025, 0.975])
    assert found.value == pytest.approx(gain.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("metric", ["matthews", "pearson"])
def test_the_bootstrap_is_paired(metric):
    """Two equal systems differ by nothing in every resample, although each one's score varies."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 100).astype(float if metric == "pearson" else int)
    says = np.where(rng.random(100) < 0.8, labels, 1 - labels)
    found = score_difference(metric, labels, says, says)
    assert (found.value, found.low, found.high) == (0, 0, 0)
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
    found = wilson(correct, n)
    assert 0 <= found.low <= correct / n + 1e-9 and correct / n - 1e-9 <= found.high <= 1
    assert wilson(correct, n, 0.99).low <= found.low + 1e-12


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


def test_the_order_statistics_of_p99():
    n = 1000
    ms = np.arange(1, n + 1, dtype=float)
    found = percentile(ms, 0.99, queries=np.arange(n) % 400)
    low, high = int(found.low), int(found.high)  # ranks, as the values are 1..n
    cdf = np.cumsum([comb(n, k) * 0.99**k * 0.01 ** (n - k) for k in range(n + 1)])
    assert cdf[high - 1] - cdf[low - 1] >= 0.95  # P(low <= B < high)
    assert found.distinct == 400 and low < 990 < high


def test_p99_needs_662_queries():
    assert P99_QUERIES == 662
    assert not percentile(np.arange(661.0), 0.99).enough
    few, enough = (percentile(np.arange(float(n)), 0.99) for n in (661, 662))
    assert few.low is None and few.high is None
    assert enough.enough and enough.low is not None and enough.high is not None
    assert percentile(np.arange(50.0), 0.5).enough


def test_the_interval_of_p99_covers():
    """Exponential latencies, whose 99 % quantile is known."""
    rng, truth = np.random.default_rng(2), -np.log(0.01)
    found = [percentile(rng.exponential(size=800), 0.99) for _ in range(400)]
    covered = np.mean([p.low <= truth <= p.high for p in found if p.high is not None])
    assert covered >= 0.93


def test_the_mean_by_hand():
    found = mean_latency(np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.low) == pytest.approx((2.0, 2.0 - 1.95996 / np.sqrt(3)), abs=1e-4)


def test_the_reduction_is_a_ratio_of_means():
    ours, reference = np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0])
    assert latency_reduction(ours, reference).value == pytest.approx(50.0)


def test_drift_between_blocks_cancels():
    """Both systems slow down in the second block alike: the reduction is the same, and certain."""
    block = np.repeat([0, 1], 50)
    reference = np.where(block == 0, 2.0, 20.0)
    found = latency_reduction(reference / 2, reference, block)
    assert (found.value, found.low, found.high) == pytest.approx((50.0, 50.0, 50.0))


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, 20, elements=st.floats(0.1, 50)), st.floats(0.1, 10))
def test_the_reduction_does_not_depend_on_the_unit(ms, unit):
    ours, reference = ms, ms[::-1]
    one, other = latency_reduction(ours, reference), latency_reduction(unit * ours, unit * reference)
    assert one.value == pytest.approx(other.value, abs=1e-6) and one.low == pytest.approx(other.low, abs=1e-6)
    assert one.low <= one.value + 1e-9 or len(set(ms)) < 3


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
    found = auroc(confidence, correct)
    if not len(right) or not len(wrong):
        assert np.isnan(found)
        return
    pairs = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    assert found == pytest.approx(pairs)


@given(SURE, BITS, BITS)
def test_no_order_defers_better_than_the_oracle(confidence, small, large):
    curve, best = deferral_curve(confidence, small, large), oracle_curve(small, large)
    assert (curve <= best + 1e-12).all()
    assert curve[0] == small.mean() and curve[-1] == pytest.approx(large.mean())
    line = random_curve(small, large)
    assert (best >= line - 1e-12).all() and area(curve) <= area(best) + 1e-12
    assert area(line) == pytest.approx((small.mean() + large.mean()) / 2)
