"""One model answers: which one is chosen, and that live and replayed answers agree."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_toys import PlainTarget, TableLab, one_hot, profile_of

from baselines.infaas import Infaas, Single
from tabi_bench.cascade.point import Point
from tabi_bench.config import read_file
from tabi_bench.planning.tabi import Tabi
from tabi_bench.planning.targets import Target
from tabi_bench.system import Infeasible, NoAnswer, PlanError, Unreachable
from tests.cascade.ladder import build

LABELS = [0, 1, 0, 1]
SAYS = {"small": [0, 1, 1, 0], "medium": [0, 1, 0, 0], "large": [0, 1, 0, 1]}  # 2, 3 and 4 of 4 right


@pytest.fixture
def profile():
    return profile_of(LABELS, {name: one_hot(says, 2) for name, says in SAYS.items()})


@pytest.mark.parametrize(("value", "chosen"), [(0.5, "small"), (0.51, "medium"), (0.75, "medium"), (1.0, "large")])
def test_the_fastest_model_that_meets_the_target(profile, value, chosen):
    plan = Infaas.plan(profile, PlainTarget(profile, value), read_file("method", "infaas"))
    assert plan.point == Point.of_one(chosen).plain()
    assert plan.predicted["latency_ms"] == {"small": 1.0, "medium": 2.0, "large": 4.0}[chosen]
    assert plan.predicted["score"] == np.mean(np.array(SAYS[chosen]) == LABELS)


def test_unreachable_names_the_best_score_and_its_model(profile):
    with pytest.raises(Unreachable, match=r"1\.0000 by large"):
        Infaas.plan(profile, PlainTarget(profile, 1.1), read_file("method", "infaas"))


def test_an_slo_below_the_choice_is_infeasible(profile):
    target = PlainTarget(profile, 0.75)
    assert (
        Infaas.plan(profile, target, read_file("method", "infaas", slo_ms=2.0)).point == Point.of_one("medium").plain()
    )
    with pytest.raises(Infeasible, match=r"medium, takes 2\.000 ms"):
        Infaas.plan(profile, target, read_file("method", "infaas", slo_ms=1.9))


@pytest.mark.parametrize(("model", "chosen"), [("medium", "medium"), ("0", "small"), ("-1", "large")])
def test_single_by_name_or_position(profile, model, chosen):
    plan = Single.plan(profile, PlainTarget(profile, 1.1), read_file("method", "single", model=model))
    assert plan.point == Point.of_one(chosen).plain()


@pytest.mark.parametrize("model", ["huge", "3", "-4"])
def test_single_refuses_what_the_zoo_lacks(profile, model):
    with pytest.raises(PlanError, match="small, medium, large"):
        Single.plan(profile, PlainTarget(profile, 0.5), read_file("method", "single", model=model))


def deployed(kind, model: str, profile):
    return kind.deploy(Point.of_one(model).plain(), TableLab(profile), None)


@pytest.mark.parametrize("model", SAYS)
def test_live_equals_replayed(profile, queries, model):
    system = deployed(Single, model, profile)
    answers = [system.answer(query) for query in queries[:4]]
    outcomes = Single.replay(Point.of_one(model).plain(), profile, np.arange(4))
    assert [a.label for a in answers] == outcomes.labels.tolist() == SAYS[model]
    assert outcomes.latency_ms.tolist() == [profile.models[model].mean_ms] * 4
    assert all(a.level == 0 and set(a.stages_ns) == {"tokenise", "level1", "decide"} for a in answers)


def test_non_finite_logits_are_an_error(profile, queries):
    profile.models["large"].logits[1, 0] = np.nan
    with pytest.raises(NoAnswer, match=r"query 1: none of large"):
        deployed(Single, "large", profile).answer(queries[1])


def test_a_model_that_failed_on_some_row_is_not_chosen(profile):
    profile.models["small"].logits[2] = np.nan  # its other three rows are right
    profile.models["small"].logits[3] = [0.0, 4.0]
    plan = Infaas.plan(profile, PlainTarget(profile, 0.75), read_file("method", "infaas"))
    assert plan.point["models"] == ["medium"]


def test_a_regression_answers_with_the_score(queries):
    profile = profile_of([0.0, 2.5, 5.0], {"small": [[0.1], [2.0], [4.5]]}, metric="pearson")
    plan = Infaas.plan(profile, PlainTarget(profile, 0.9), read_file("method", "infaas"))
    system, outcomes = deployed(Infaas, "small", profile), Infaas.replay(plan.point, profile, np.arange(3))
    assert [system.answer(query).label for query in queries[:3]] == outcomes.labels.tolist()
    assert outcomes.labels == pytest.approx([0.1, 2.0, 4.5])


def test_what_a_model_leaves_between_two_labels_is_borderline():
    profile = profile_of(LABELS, {"small": np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0005], [0.0, 1.0]])})
    point = Single.plan(profile, PlainTarget(profile, 0.5), read_file("method", "single", model="small")).point
    assert Single.replay(point, profile, profile.rows).borderline.tolist() == [False, False, True, False]


def test_one_model_alone_is_the_same_point_whoever_plans_it():
    """Then a session lets them share one deployed system, and no difference between them is noise of two systems."""
    profile = build(80, names=("small", "large")).profile
    target = Target.of(profile, "relative", None, 0.0, 0.0, 0)
    plans = [
        Infaas.plan(profile, target, read_file("method", "infaas")),
        Single.plan(profile, target, read_file("method", "single", model="large")),
        Tabi.plan(profile, target, read_file("method", "tabi", levels=1)),
    ]
    assert [plan.point for plan in plans] == [Point.of_one("large").plain()] * 3
