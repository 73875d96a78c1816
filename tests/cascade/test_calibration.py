"""Temperatures and votes, fitted on tune."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabi_bench.cascade.calibration import fit_temperature, nll, outputs_of, vote_weight


def test_temperature_divides_logits_before_the_softmax():
    logits = np.log([[8.0, 2.0]])
    assert outputs_of(logits, 1.0)[0] == pytest.approx([0.8, 0.2])
    assert outputs_of(2 * logits, 2.0)[0] == pytest.approx([0.8, 0.2])
    assert outputs_of(np.array([[3.7]]), 2.0)[0] == pytest.approx([3.7])  # a score has no temperature


def test_fitted_temperature_makes_an_overconfident_model_modest():
    logits = np.tile([[4.0, 0.0]], (100, 1))
    labels = np.array([0] * 80 + [1] * 20)  # right four times in five: sigmoid(4 / T) = 0.8 at T = 4 / ln 4
    assert fit_temperature(logits, labels) == pytest.approx(4 / np.log(4), rel=1e-3)
    assert fit_temperature(np.full((3, 2), np.nan), np.zeros(3, int)) == 1.0


def test_vote_weight_is_the_share_of_right_answers():
    assert vote_weight(np.array([[2.0, 0], [0, 1], [3, 0], [1, 0]]), np.array([0, 1, 1, 0])) == 0.75


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
