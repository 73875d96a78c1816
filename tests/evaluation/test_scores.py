"""Intervals, calibration and deferral by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from tabi_bench.evaluation.calibration import auroc, ece, reliability
from tabi_bench.evaluation.deferral import area, deferral_curve, oracle_curve, random_curve
from tabi_bench.evaluation.metrics import FAILED, METRICS, metric_of, predictions_from, score, weighted_ranks
from tabi_bench.evaluation.statistics import mcnemar, resampled, score_difference, score_interval, wilson
from tabi_bench.planning.targets import Target


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
def test_matthews_and_f1_are_those_of_sklearn(kinds, n, seed):
    labels, others = np.random.default_rng(seed).integers(0, kinds, (2, n))
    for predictions in (others, labels):
        assert score("matthews", labels, predictions) == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-9)
        for name, label in (("f1", 1), ("f1@2", 2)):
            expected = f1_score(labels == label, predictions == label, zero_division=0.0)
            assert score(name, labels, predictions) == pytest.approx(expected)


@given(st.integers(3, 60), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 3.0, 1e4]))
def test_correlations_are_those_of_scipy(n, seed, offset):
    labels, noise = np.random.default_rng(seed).normal(size=(2, n))
    predictions = offset + np.round(labels + noise, 1)  # with ties
    labels = np.round(labels, 1)
    if len(set(labels)) > 1 and len(set(predictions)) > 1:
        assert score("pearson", labels, predictions) == pytest.approx(pearsonr(labels, predictions)[0], abs=1e-6)
        assert score("spearman", labels, predictions) == pytest.approx(spearmanr(labels, predictions)[0], abs=1e-9)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_a_constant_side_correlates_with_nothing(name):
    varied, constant = np.array([0, 1, 1, 0]), np.full(4, 1)
    if name != "matthews":
        varied, constant = varied * 0.3, constant * 0.1
    assert score(name, varied, constant) == score(name, constant, varied) == score(name, constant, constant) == 0


def test_ranks_under_weights_are_those_of_repeated_rows():
    values, weights = np.array([3.0, 1.0, 3.0, 2.0]), np.array([[1.0, 2.0, 1.0, 0.0]])
    # 1 1 3 3: ranks 1.5 and 3.5 about their mean of 2.5
    assert weighted_ranks(values, weights)[0, :3].tolist() == [1.0, -1.0, 1.0]


def test_metrics_are_known_by_name():
    assert [metric_of(name).regression for name in METRICS] == [False, False, True, False, True]
    for name in ("f2", "f1@", "f1@x"):
        with pytest.raises(ValueError, match="unknown metric"):
            score(name, np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="as many predictions"):
        score("accuracy", np.zeros(2), np.zeros(3))


def sample(name: str, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the predictions of a better and a worse system."""
    rng = np.random.default_rng(0)
    if metric_of(name).regression:
        labels = rng.uniform(0, 5, n)
        return labels, labels + rng.normal(0, 1, n), labels + rng.normal(0, 2, n)
    labels = rng.integers(0, 2, n)
    return labels, *(np.where(rng.random(n) < share, labels, 1 - labels) for share in (0.85, 0.7))


@pytest.mark.parametrize("name", [*METRICS, "f1@0"])
def test_every_metric_has_a_bootstrap(name):
    """Against scores of rows that are drawn one by one: an interval and a paired difference."""
    labels, good, poor = sample(name)
    drawn = resampled(name, labels, good, poor, resamples=1000)
    rows = np.random.default_rng(1).integers(0, 300, (400, 300))
    slow = np.array([[score(name, labels[r], predictions[r]) for r in rows] for predictions in (good, poor)])
    assert drawn.mean(axis=1) == pytest.approx(slow.mean(axis=1), abs=0.01)
    assert (drawn[0] - drawn[1]).std() == pytest.approx((slow[0] - slow[1]).std(), rel=0.2)
    own, apart = score_interval(name, labels, good), score_difference(name, labels, good, poor)
    assert own.low < own.value < own.high and 0 < apart.low < apart.value < apart.high
    assert score_difference(name, labels, good, good).high == 0, "the same rows for both"


@pytest.mark.parametrize("name", [*METRICS, "f1@0"])
@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_every_metric_has_a_target(name, kind):
    """Rows are re-routed one by one: the plain rule is the score itself; a margin asks for more of them."""
    labels, good, poor = sample(name, 120)
    order, counts = np.random.default_rng(3).permutation(120), np.arange(121)
    goal = score(name, labels, good) - 0.05
    plain = Target(kind, goal, 0.05, name, 0.0, labels, "best", good)
    mixed = [np.where(np.isin(np.arange(120), order[:count]), good, poor) for count in counts]
    expected = np.array([score(name, labels, predictions) for predictions in mixed]) >= goal - 1e-9
    assert (plain.scan(poor, good, order, counts) == expected).all() and not expected[0] and expected[-1]
    assert plain.first_met(poor, good, order, counts) == expected.argmax()
    careful = Target(kind, goal - 0.05 * (kind == "absolute"), 0.05, name, 0.5, labels, "best", good)
    strict = Target(kind, goal - 0.05 * (kind == "absolute"), 0.05, name, 2.0, labels, "best", good)
    assert careful.first_met(poor, good, order, counts) <= (strict.first_met(poor, good, order, counts) or 121)
    assert bool(plain.may_meet(plain.features(good).sum(axis=0))) and plain.meets(good)
    if name != "spearman":
        assert not plain.may_meet(plain.features(poor).sum(axis=0)), "sums rule it out"


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
    assert predictions_from(outputs).tolist() == [1, FAILED, 0]
    assert predictions_from(np.array([[0.5], [np.nan]])).tolist() == [0.5, FAILED]
    assert score("f1", np.array([1, 1, 0]), predictions_from(outputs)) == pytest.approx(2 / 3)
    confidence, right = np.array([0.9, np.nan, 0.8]), np.array([True, False, True])
    assert auroc(confidence, right) == 1.0
    assert reliability(confidence, right).n.sum() == 3 and np.isfinite(ece(confidence, right))
    assert deferral_curve(confidence, right, np.ones(3)).tolist() == pytest.approx([2 / 3, 1, 1, 1])
