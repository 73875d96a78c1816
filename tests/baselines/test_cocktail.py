"""A three-model vote worked out by hand; the choice of the ensemble; live equals replayed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from baseline_toys import PlainTarget, TableLab, one_hot, plan_of, profile_of

from baselines.cocktail import Cocktail, class_weights, combine, vote
from tabi_bench.config import read_file
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import Answer, Infeasible, Item, NoAnswer, Plan, PlanError

COCKTAIL = read_file("method", "cocktail")
LABELS = [0, 0, 1, 1, 2, 2]
SAYS = {"small": [0, 0, 1, 0, 0, 0], "medium": [1, 0, 1, 1, 2, 0], "large": [0, 0, 0, 1, 2, 2]}


@pytest.fixture
def profile():
    return profile_of(LABELS, {name: one_hot(says, 3) for name, says in SAYS.items()})


def test_weights_by_hand():
    labels, says = np.array(LABELS), np.array(SAYS["small"])
    assert class_weights(labels, says, 3) == pytest.approx([3 / 4, 2 / 4, 1 / 4])
    assert class_weights(labels, says, 3, smoothed=False) == pytest.approx([1.0, 0.5, 0.0])


def test_three_model_vote_by_hand():
    weights = np.array([[0.5, 0.9, 0.2], [0.6, 0.1, 0.2], [0.3, 0.3, 0.5]])
    # query 0: class 0 gets .5 + .3, class 1 gets .1; query 1: class 1 at .9, 0 at .6, 2 at .5
    # query 2: class 2 gets .2 + .2 against 0 at .3
    says = np.array([[0, 1, 2], [1, 0, 2], [0, 2, 0]])
    assert vote(says, weights).tolist() == [0, 1, 2]


def test_a_tie_goes_to_the_most_accurate_member():
    weights = np.full((2, 2), 0.5)
    assert vote(np.array([[1, 0], [0, 1]]), weights).tolist() == [1, 0]


def test_regression_is_a_weighted_mean():
    assert combine(np.array([[1.0], [4.0]]), np.array([[0.9], [0.6]])) == pytest.approx([2.2])


def test_the_fastest_ensemble_that_meets_the_target(profile):
    assert set(Cocktail.plan(profile, PlainTarget(profile, 0.5), COCKTAIL).point["members"]) == {
        "small",
        "medium",
    }
    with pytest.raises(Infeasible, match="0 ensembles"):
        Cocktail.plan(profile, PlainTarget(profile, 0.5), read_file("method", "cocktail", slo_ms=1.5))
    with pytest.raises(Infeasible, match="4 ensembles"):
        Cocktail.plan(profile, PlainTarget(profile, 1.1), COCKTAIL)


def test_the_latency_that_chose_the_ensemble_is_the_one_that_replay_tells():
    says = {name: one_hot(SAYS[name], 3) for name in SAYS}
    profile = profile_of(LABELS, says)
    slow = profile.models["small"].latency  # its long queries take longer than any of medium's
    uneven = replace(slow, lengths=np.array([5, 50]), ms=np.array([1.0, 9.0]), step=True)
    tokens = np.array([5, 5, 5, 5, 5, 50])
    profile.models["small"] = replace(profile.models["small"], latency=uneven, tokens=tokens)
    fold = Cocktail.plan(profile, PlainTarget(profile, 0.5), read_file("method", "cocktail", slo_ms=99.0))
    replayed = Cocktail.replay(fold.point, profile, profile.rows)
    assert fold.predicted["latency_ms"] == pytest.approx(replayed.latency_ms.mean())
    means = [profile.models[name].mean_ms for name in fold.point["members"]]
    assert fold.predicted["latency_ms"] >= max(means)


class Streams(TableLab):
    """Its engine runs models at the same time."""

    def concurrent(self, models):
        return Together(models)


class Together:
    def __init__(self, models):
        self.models = models

    def forward(self, encodings):
        return [model.forward(encoding) for model, encoding in zip(self.models, encodings, strict=True)]


@pytest.fixture
def plan(profile) -> Plan:
    return plan_of(Cocktail.plan(profile, PlainTarget(profile, 0.8), COCKTAIL))


def deployed(plan, lab, latency: str = "auto") -> Cocktail:
    return Cocktail.deploy(plan.folds[0].point, lab, read_file("method", "cocktail", latency=latency))


def traced(answer: Answer) -> pd.DataFrame:
    """A trace of one query that took as long as its stages."""
    return trace_of([Served(0, 0, sum(answer.stages_ns.values()), np.nan, answer)])


@pytest.mark.parametrize(("lab", "latency"), [(TableLab, "auto"), (Streams, "auto"), (Streams, "serial")])
def test_live_equals_replayed(profile, plan, queries, lab, latency):
    system = deployed(plan, lab(profile), latency)
    outcomes = Cocktail.replay(plan.folds[0].point, profile, np.arange(6))
    assert [system.answer(query).label for query in queries[:6]] == outcomes.labels.tolist()
    together = system.run(0, [Item(query) for query in queries[:6]])
    assert [answer.label for answer in together] == outcomes.labels.tolist()
    assert outcomes.latency_ms.tolist() == [4.0] * 6


def test_a_member_between_two_labels_is_borderline(profile, plan):
    point = plan.folds[0].point
    profile.models[point["members"][0]].logits[2] = [1.0, 1.0, 0.0]
    assert np.flatnonzero(Cocktail.replay(point, profile, profile.rows).borderline).tolist() == [2]


def test_latency_in_series_and_as_if_in_parallel(profile, plan, queries):
    answer = deployed(plan, TableLab(profile)).answer(queries[0])
    levels = [ns for stage, ns in answer.stages_ns.items() if stage.startswith("level")]
    described, total = Cocktail.describe(plan, traced(answer)), sum(answer.stages_ns.values())
    assert described["measured"] == "serial" and described["latency_ms"]["concurrent"] is None
    assert described["latency_ms"]["serial"] == pytest.approx(total / 1e6)
    assert described["latency_ms"]["parallel"] == pytest.approx((total - sum(levels) + max(levels)) / 1e6)


def test_latency_of_members_that_run_at_the_same_time(profile, plan, queries):
    answer = deployed(plan, Streams(profile)).answer(queries[0])
    assert set(answer.stages_ns) == {"tokenise", "members", "decide"}
    described, predicted = Cocktail.describe(plan, traced(answer)), plan.folds[0].predicted
    assert described["measured"] == "concurrent"
    assert described["latency_ms"]["concurrent"] == pytest.approx(sum(answer.stages_ns.values()) / 1e6)
    assert described["latency_ms"]["parallel"] == predicted["latency_ms"] == 4.0
    assert described["latency_ms"]["serial"] == predicted["serial_ms"]


def test_an_engine_without_streams_says_so(profile, plan):
    with pytest.raises(PlanError, match="engine=table has no streams"):
        deployed(plan, TableLab(profile), "concurrent")


def test_a_member_that_fails_has_no_vote(profile, plan, queries):
    system = deployed(plan, TableLab(profile))
    first, *others = plan.folds[0].point["members"]
    profile.models[first].logits[0] = np.nan
    answer = system.answer(queries[0])
    assert answer.failures == 1 and answer.label in {SAYS[name][0] for name in others}
    for name in others:
        profile.models[name].logits[0] = np.inf
    with pytest.raises(NoAnswer, match="query 0"):
        system.answer(queries[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"members": ["small", "huge"], "weights": {"small": [0.5] * 3, "huge": [0.5] * 3}},
        {"members": []},
        {"members": "small"},
        {"members": ["small", "small"]},
        {"members": ["small", ["large"]]},
        {"members": None},
        {"weights": {"small": [0.5] * 3}},
        {"weights": {"small": [0.5] * 3, "large": [0.5] * 2}},
        {"weights": {"small": [0.5] * 3, "large": [0.5, 0.5, float("nan")]}},
        {"weights": {"small": [0.5] * 3, "large": [0.5, 0.5, -1.0]}},
        {"weights": {"small": ["a"] * 3, "large": [0.5] * 3}},
        {"weights": [0.5, 0.5]},
    ],
    ids=str,
)
def test_an_ensemble_that_cannot_vote_is_refused(changes):
    point = {"members": ["small", "large"], "weights": {"small": [0.5] * 3, "large": [0.5] * 3}}
    Cocktail.check_point(point, list(SAYS))
    with pytest.raises(PlanError):
        Cocktail.check_point(point | changes, list(SAYS))
