"""The chance that a score agrees with the largest model's: fitted on tune, by hand and on made-up doubts."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.cascade.regression import Agreement, fit_agreement


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
