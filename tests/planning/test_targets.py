"""The target and its margin, by hand. (Every metric has one: tests/evaluation/test_scores.py.)"""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.planning.targets import Target
from tabi_bench.system import Unreachable
from tests.cascade.ladder import build

LABELS = np.zeros(100, int)


def right(count: int) -> np.ndarray:
    """Predictions of which the first `count` are right."""
    return np.where(np.arange(100) < count, 0, 1)


def target(kind="relative", value=0.88, slack=0.02, margin_se=0.0) -> Target:
    return Target(kind, value, slack, "accuracy", margin_se, LABELS, "best", right(90))


@pytest.mark.parametrize(("count", "met"), [(87, False), (88, True), (90, True), (95, True)])
def test_the_plain_rule_is_the_score_itself(count, met):
    assert target().meets(right(count)) == met == target("absolute").meets(right(count))


@pytest.mark.parametrize(("count", "met"), [(88, False), (89, True), (90, True)])
def test_a_relative_margin_is_of_the_paired_difference(count, met):
    """One row lost: -.01 with standard error sqrt(.01 x .99 / 99) = .01; half of that on top is -.015; two: -.027."""
    assert target(margin_se=0.5).meets(right(count)) == met


@pytest.mark.parametrize(("count", "met"), [(89, False), (90, True)])
def test_an_absolute_margin_is_of_the_score(count, met):
    """.90 minus half its standard error, .5 x sqrt(.9 x .1 / 99) = .0151, is .8849; .89 - .0157 is .8743."""
    assert target("absolute", margin_se=0.5, value=0.88).meets(right(count)) == met


def test_rows_are_replaced_in_order_until_the_target_is_met():
    order = np.arange(80, 100)
    assert target().first_met(right(80), right(100), order, np.arange(21)) == 8
    assert target().first_met(right(80), right(100), order, np.array([0, 5, 12, 20])) == 12
    assert target().first_met(right(80), right(85), order, np.arange(21)) is None
    assert target().first_met(right(80), right(100), order, np.array([], int)) is None


def test_the_reference_is_the_best_model_the_smaller_of_equals():
    profile = build(60, seed=1).profile
    profile.models["medium"].logits[:] = profile.models["large"].logits
    made = Target.of(profile, "relative", None, 0.05, 0.0)
    assert made.reference_model == "medium"
    assert made.value == pytest.approx(made.score(profile.models["medium"].logits.argmax(1)) - 0.05)


def test_a_score_beyond_every_model_is_unreachable_and_one_that_equals_the_best_is_not():
    profile = build(60, seed=1).profile
    best = Target.of(profile, "relative", None, 0.0, 0.0)
    assert Target.of(profile, "absolute", best.value, 0.0, 0.0).value == best.value
    with pytest.raises(Unreachable, match=f"the best on tune is {best.reference_model} with {best.value:.4f} accuracy"):
        Target.of(profile, "absolute", best.value + 1e-3, 0.0, 0.0)
    with pytest.raises(ValueError, match="needs a value"):
        Target.of(profile, "paper", None, 0.0, 0.0)


def test_some_rows_have_a_target_of_their_own():
    part = target().view(np.arange(80, 100))  # of which the reference has half
    assert part.value == pytest.approx(0.48) and part.meets(right(90)[80:]) and not part.meets(right(89)[80:])
    assert target("absolute").view(np.arange(80, 100)).value == 0.88
    assert not target("absolute").meets(right(90)[80:], np.arange(80, 100))
