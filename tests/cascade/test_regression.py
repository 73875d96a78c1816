"""What is fitted on tune: temperature, vote weight, and a score's chance of agreement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabi_bench.cascade.calibration import fit_temperature, nll, vote_weight
from tabi_bench.cascade.regression import Agreement, fit_agreement


def test_nll_by_hand():
    logits, labels = np.log([[3.0, 1.0], [1.0, 1.0]]), np.array([0, 1])
    assert nll(logits, labels) == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
    assert nll(2 * logits, labels, 2.0) == pytest.approx(nll(logits, labels))


@given(st.integers(0, 1000), st.floats(0.2, 5.0))
@settings(deadline=None, max_examples=30)
def test_the_fitted_temperature_never_raises_the_nll_and_scales_with_the_logits(seed, scale):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(60, 3)), random.integers(0, 3, 60)
    logits[np.arange(60), labels] += 1.5
    fitted = fit_temperature(logits, labels)
    assert nll(logits, labels, fitted) <= nll(logits, labels)
    assert nll(scale * logits, labels, scale * fitted) == pytest.approx(nll(logits, labels, fitted))


def test_a_score_votes_by_its_correlation_at_least_a_hundredth():
    labels = np.array([1.0, 2.0, 3.0])
    assert vote_weight(np.array([[2.0], [4.0], [6.0]]), labels) == pytest.approx(1.0)
    assert vote_weight(np.array([[3.0], [2.0], [1.0]]), labels) == 0.01
    assert vote_weight(np.ones((3, 1)), labels) == 0.01


def test_agreement_by_hand():
    fit = Agreement(error=np.array([1.0, 0.0, 0.5, 2.0]), logistic=np.array([2.0, -1.0, 0.5, 0.25]), auroc=None)
    error = 1 + 0.5 * 2**2 + 2 * 0.5  # of score 2 and pooled vector (0.5,)
    assert fit(np.array([0.5]), np.array(2.0)) == pytest.approx(1 / (1 + np.exp(-(2 - error + 0.5 * 2 + 0.25 * 4))))
    assert Agreement.of(fit.plain())(None, np.array(2.0)) == pytest.approx(1 / (1 + np.exp(-(2 - 3 + 1 + 1))))


def test_agreement_is_found_in_the_pooled_vector():
    random = np.random.default_rng(0)
    score, doubt = random.uniform(0, 5, 400), random.uniform(0, 1, 400)
    large = score + np.where(doubt > 0.5, 1.0, 0.1)
    fit, held_out = fit_agreement(doubt[:, None], score, large)
    assert fit.auroc > 0.95
    assert held_out[doubt < 0.3].min() > held_out[doubt > 0.7].max()
    assert fit(doubt[:, None], score)[doubt < 0.3].min() > 0.5


def test_where_all_agree_the_estimate_is_the_smoothed_base_rate():
    score = np.linspace(0, 5, 18)
    fit, held_out = fit_agreement(None, score, score + 0.25)
    assert fit.auroc is None
    assert held_out == pytest.approx(19 / 20)
