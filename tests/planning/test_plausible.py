"""Whether a session's numbers can mean anything, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.planning.plausible import MEANINGLESS, constant_answer, implausible
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile

ONE = np.array([1.0])
LABELS = np.array([0] * 60 + [1] * 40)


def profile_of(labels, metric="accuracy", **answers) -> Profile:
    """Models by their answers (N,): labels, or scores where the labels are floats."""
    scores = labels.dtype.kind == "f"
    models = {
        name: ModelProfile(
            name=name,
            params=1,
            layers=1,
            logits=np.asarray(predictions, np.float32)[:, None]
            if scores
            else 4 * np.eye(2, dtype=np.float32)[predictions],
            tokens=np.full(len(labels), 8),
            latency=LatencyCurve(np.array([8]), ONE, ONE),
            truncated=np.zeros(len(labels), bool),
        )
        for name, predictions in answers.items()
    }
    return Profile("toy", metric, 1 if scores else 2, np.arange(len(labels)), labels, models)


def wrong(labels: np.ndarray, *rows: int) -> np.ndarray:
    flipped = labels.copy()
    flipped[list(rows)] = 1 - flipped[list(rows)]
    return flipped


def test_the_constant_answer_is_the_most_frequent_label_or_the_mean_score():
    assert constant_answer(profile_of(LABELS, a=LABELS)).tolist() == [0] * 100
    scores = np.array([1.0, 2.0, 6.0])
    assert constant_answer(profile_of(scores, "pearson", a=scores)).tolist() == [3.0] * 3


def test_a_model_that_says_one_label_alone_means_nothing():
    (sentence,) = implausible(profile_of(LABELS, small=np.zeros(100, int), large=np.ones(100, int)))
    assert sentence.startswith("No model beats the most frequent label on every row (accuracy 0.6000)")
    assert "the best, small, has 0.6000" in sentence and "A reduction of latency means nothing here" in sentence


@pytest.mark.parametrize(("gained", "lost", "warned"), [(8, 0, False), (3, 0, True), (20, 10, True), (30, 10, False)])
def test_two_standard_errors_of_the_paired_difference_decide(gained, lost, warned):
    """8 of 100 rows won: .08 with standard error .0273; 3: .03, .0171; 20 won, 10 lost: .10, .0541."""
    rows = list(range(60 + gained, 100)) + list(range(lost))
    assert bool(implausible(profile_of(LABELS, small=wrong(LABELS, *rows)))) == warned


def test_one_good_model_is_enough():
    assert implausible(profile_of(LABELS, small=np.ones(100, int), large=LABELS), 0.61) == []


@pytest.mark.parametrize("target", [0.6, 0.0, -0.4])
def test_a_target_that_a_constant_answer_meets_means_nothing(target):
    (sentence,) = implausible(profile_of(LABELS, large=LABELS), target)
    assert "is met without looking at the text (0.6000)" in sentence and MEANINGLESS in sentence


def test_outputs_that_are_not_finite_are_counted():
    profile = profile_of(LABELS, small=LABELS, large=LABELS)
    profile.models["large"].logits[:7] = np.nan
    assert implausible(profile) == ["large gives no finite output on 7 of 100 rows, which count as wrong."]


@pytest.mark.parametrize(("flip", "warned"), [(5, False), (50, True)])
def test_matthews(flip, warned):
    """Its constant answer scores 0, whatever the labels' shares."""
    rows = np.random.default_rng(0).permutation(100)[:flip]
    warnings = implausible(profile_of(LABELS, "matthews", small=wrong(LABELS, *rows)))
    assert bool(warnings) == warned and all("(matthews 0.0000)" in sentence for sentence in warnings)


@pytest.mark.parametrize(("noise", "warned"), [(0.5, False), (100.0, True)])
def test_scores(noise, warned):
    rng = np.random.default_rng(1)
    labels = rng.uniform(0, 5, 100)
    warnings = implausible(profile_of(labels, "pearson", small=labels + rng.normal(0, noise, 100)))
    assert bool(warnings) == warned and all("No model beats the mean score" in sentence for sentence in warnings)


def test_a_model_that_failed_everywhere_means_nothing():
    profile = profile_of(LABELS, small=LABELS)
    profile.models["small"].logits[:] = np.nan
    assert len(implausible(profile)) == 1
