"""Intervals, calibration and deferral by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef
from tabi_bench.evaluation.targets import FAILED, predictions_of

from tabi_bench.evaluation.calibration import auroc, ece, reliability
from tabi_bench.evaluation.deferral import area, deferral_curve, oracle_curve, random_curve
from tabi_bench.evaluation.metrics import matthews, score
from tabi_bench.evaluation.statistics import mcnemar, resampled, wilson


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (.8 + .19207) / 1.38415, half width 1.96 sqrt(.016 + .0096036) / 1.38415
    interval = wilson(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_mcnemar_by_hand():
    labels, ours = np.zeros(8, int), np.array([0, 0, 0, 0, 0, 1, 0, 0])
    other = np.array([1, 1, 1, 1, 1, 0, 0, 0])  # won 5, lost 1: p = 2 (1 + 6) / 2^6
    assert mcnemar(labels, ours, other) == pytest.approx(14 / 64)
    assert mcnemar(labels, ours, ours) == 1.0


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_matthews_is_what_sklearn_says(kinds, n, seed):
    labels, says = np.random.default_rng(seed).integers(0, kinds, (2, n))
    for answers in (says, labels):
        assert matthews(labels, answers) == pytest.approx(matthews_corrcoef(labels, answers), abs=1e-9)


def test_matthews_bootstrap_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    says = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    drawn = resampled("matthews", labels, says, resamples=1000)[0]
    rows = rng.integers(0, 300, (300, 300))
    slow = [matthews_corrcoef(labels[r], says[r]) for r in rows]
    assert drawn.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(slow), rel=0.2)


def test_calibration_by_hand():
    confidence, correct = np.array([0.55, 0.58, 0.95, 0.95]), np.array([1, 0, 1, 1])
    table = reliability(confidence, correct, bins=10)
    assert table.n.tolist() == [2, 2]
    assert table.accuracy.tolist() == [0.5, 1.0]
    assert ece(confidence, correct, bins=10) == pytest.approx(0.5 * 0.065 + 0.5 * 0.05)
    assert auroc(confidence, correct) == pytest.approx(2 / 3)
    assert np.isnan(auroc(confidence, np.ones(4)))


def test_deferral_by_hand():
    confidence = np.array([0.9, 0.2, 0.6, 0.4])
    small, large = np.array([1, 0, 1, 0]), np.array([1, 1, 0, 0])
    assert deferral_curve(confidence, small, large).tolist() == [0.5, 0.75, 0.75, 0.5, 0.5]
    assert oracle_curve(small, large).tolist() == [0.5, 0.75, 0.75, 0.75, 0.5]
    assert area(random_curve(small, large)) == 0.5
    assert area(oracle_curve(small, large)) == pytest.approx(0.6875)


def test_a_failed_model_is_never_right_nor_sure():
    """NaN: no answer of any class, no confidence; the first to be re-routed. F1 counts it as not the label."""
    outputs = np.array([[0.1, 0.9], [np.nan, 0.5], [0.8, 0.2]])
    assert predictions_of(outputs).tolist() == [1, FAILED, 0]
    assert predictions_of(np.array([[0.5], [np.nan]])).tolist() == [0.5, FAILED]
    assert score("f1", np.array([1, 1, 0]), predictions_of(outputs)) == pytest.approx(2 / 3)
    confidence, right = np.array([0.9, np.nan, 0.8]), np.array([True, False, True])
    assert auroc(confidence, right) == 1.0
    assert reliability(confidence, right).n.sum() == 3 and np.isfinite(ece(confidence, right))
    assert deferral_curve(confidence, right, np.ones(3)).tolist() == pytest.approx([2 / 3, 1, 1, 1])
