"""The operating point: what it derives, and what of another's hand it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tabi_bench.cascade.point import Point
from tabi_bench.system import PlanError

FIT = {"error": [1.0, 0.0, 0.5, 2.0], "logistic": [2.0, -1.0, 0.5, 0.25], "auroc": None}
ZOO = ["small", "medium", "large"]
PAIR = Point(["small", "large"], [1.5, 0.8], [0.6, 0.9], [0.7], [0.5], ensemble="weighted")
TRIPLE = Point(ZOO, [1.0] * 3, [0.6, 0.8, 0.9], [0.7, 0.8], [0.0, 0.5])


@pytest.mark.parametrize("point", [PAIR, TRIPLE, Point.of_one("large"), replace(PAIR, agreement=[FIT])])
def test_a_point_is_plain_data(point):
    plain = json.loads(json.dumps(point.plain()))
    assert Point(**plain) == point == Point.checked(plain, ZOO)


def test_one_model_alone_has_nothing_to_decide():
    point = Point.of_one("large")
    assert (point.models, point.taus, point.alphas) == (["large"], [], []) and not point.wants_importance(0)


def test_the_text_is_pruned_by_the_latest_level_that_saw_it_whole():
    assert [TRIPLE.source(level) for level in (1, 2)] == [0, 1]
    assert [TRIPLE.wants_importance(level) for level in range(3)] == [False, True, False]
    both = replace(TRIPLE, alphas=[0.5, 0.5])
    assert [both.source(level) for level in (1, 2)] == [0, 0]
    assert [both.wants_importance(level) for level in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "largest"),
    [({}, True), ({"confidence": "margin"}, False), ({"dispatcher": "sigmoid"}, False), ({"agreement": [{}]}, False)],
)
def test_a_device_verdict_decides_only_where_the_largest_probability_does(changes, largest):
    assert replace(PAIR, **changes).by_largest == largest


def test_levels_that_are_not_finite_have_no_vote():
    small, large = np.array([[0.6, 0.4], [np.nan, 0.5], [np.nan, 0.5]]), np.array([[0.2, 0.8], [0.3, 0.7], [np.nan, 1]])
    voted = PAIR.combine_rows([small, large])
    assert voted[0] == pytest.approx([0.36, 0.64]) and voted[1] == pytest.approx([0.3, 0.7])
    assert np.isnan(voted[2]).all()


REFUSED = {
    "no number": ({"taus": [float("nan")]}, "taus=.*a list of 1 finite numbers for 2 levels"),
    "infinite": ({"taus": [float("inf")]}, "taus=.*1 finite numbers"),
    "negative threshold": ({"taus": [-0.1]}, r"taus=\[-0.1\]: none below 0"),
    "temperature 0": ({"temperatures": [0.0, 1.0]}, "temperatures=.*above 0"),
    "negative temperature": ({"temperatures": [-1.0, 1.0]}, "temperatures=.*none below 0"),
    "negative weight": ({"weights": [0.5, -0.5]}, "weights=.*none below 0"),
    "negative alpha": ({"alphas": [-0.5]}, "alphas=.*none below 0"),
    "a string for a list": ({"taus": "0.7"}, "taus"),
    "strings for numbers": ({"taus": ["high"]}, "taus=.*1 finite numbers"),
    "numbers written as text": ({"temperatures": ["1.0", "0.8"]}, "temperatures"),
    "truths for numbers": ({"taus": [True]}, "taus"),
    "too few thresholds": ({"taus": []}, "taus=.*a list of 1 finite numbers for 2 levels"),
    "too many thresholds": ({"taus": [0.5, 0.6]}, "taus=.*a list of 1 finite numbers for 2 levels"),
    "too few temperatures": ({"temperatures": [1.0]}, "temperatures=.*2 finite numbers"),
    "nested": ({"weights": [[0.5], [0.5]]}, "weights"),
    "nothing": ({"alphas": None}, "alphas"),
    "an unknown model": ({"models": ["small", "huge"]}, "this zoo, which has small, medium, large"),
    "a model that is no name": ({"models": ["small", 3]}, "this zoo, which has small, medium, large"),
    "one model as text": ({"models": "large"}, "models"),
    "one model twice": ({"models": ["small", "small"]}, "models"),
    "no model": ({"models": [], "temperatures": [], "weights": [], "taus": [], "alphas": []}, "models"),
    "an unknown dispatcher": ({"dispatcher": "dice"}, "dispatcher"),
    "an unknown ensemble": ({"ensemble": "mean"}, "ensemble"),
    "an unknown confidence": ({"confidence": "gut"}, "confidence"),
    "an unknown pruning": ({"pruning": "vowels"}, "pruning"),
    "an unknown importance": ({"importance": "first"}, "importance"),
    "a share above 1": ({"share": 1.5}, "share"),
    "a flat sigmoid": ({"sigmoid_k": 0.0, "dispatcher": "sigmoid"}, "sigmoid_k"),
    "a seed that is none": ({"seed": "x"}, "seed"),
    "rows that are none": ({"reroute": ["x"]}, "reroute"),
    "fits for too many levels": ({"agreement": [FIT, FIT]}, "agreement: a fit"),
    "fits without numbers": ({"agreement": [{"error": "x"}]}, "agreement: a fit"),
    "fits that are no numbers": (
        {"agreement": [FIT | {"error": [float("nan")] * 4}]},
        "agreement: a fit",
    ),
    "an unknown field": ({"tau": 0.5}, "not an operating point.*tau"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_point_that_cannot_be_served_is_refused_in_one_sentence(changes, reason):
    with pytest.raises(PlanError, match=reason) as refused:
        Point.checked(PAIR.plain() | changes, ZOO)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("plain", [None, [], "point", 3, {}, {"models": ["small"]}])
def test_what_is_no_point_at_all_is_refused(plain):
    with pytest.raises(PlanError):
        Point.checked(plain, ZOO)
