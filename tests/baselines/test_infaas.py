"""One model answers: which one is chosen, and that live and replayed answers agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from baseline_toys import PlainTarget, TableEngine, one_hot, plan_of, profile_of

from baselines.common import NonFiniteOutput
from baselines.infaas import Infaas, Single
from tabi_bench.config import read_file
from tabi_bench.system import Infeasible, PlanError, Unreachable

LABELS = [0, 1, 0, 1]
SAYS = {"small": [0, 1, 1, 0], "medium": [0, 1, 0, 0], "large": [0, 1, 0, 1]}  # 2, 3 and 4 of 4 right


@pytest.fixture
def profile():
    return profile_of(LABELS, {name: one_hot(says, 2) for name, says in SAYS.items()})


@pytest.mark.parametrize(("value", "chosen"), [(0.5, "small"), (0.51, "medium"), (0.75, "medium"), (1.0, "large")])
def test_the_fastest_model_that_meets_the_target(profile, value, chosen):
    plan = Infaas.plan(profile, PlainTarget(profile, value), read_file("method", "infaas"))
    assert plan.point == {"model": chosen}
    assert plan.predicted["latency_ms"] == {"small": 1.0, "medium": 2.0, "large": 4.0}[chosen]
    assert plan.predicted["score"] == np.mean(np.array(SAYS[chosen]) == LABELS)


def test_unreachable_names_the_best_score_and_its_model(profile):
    with pytest.raises(Unreachable, match=r"1\.0000 by large"):
        Infaas.plan(profile, PlainTarget(profile, 1.1), read_file("method", "infaas"))


def test_an_slo_below_the_choice_is_infeasible(profile):
    target = PlainTarget(profile, 0.75)
    assert Infaas.plan(profile, target, read_file("method", "infaas", slo_ms=2.0)).point == {"model": "medium"}
    with pytest.raises(Infeasible, match=r"medium, takes 2\.000 ms"):
        Infaas.plan(profile, target, read_file("method", "infaas", slo_ms=1.9))


@pytest.mark.parametrize(("model", "chosen"), [("medium", "medium"), ("0", "small"), ("-1", "large")])
def test_single_by_name_or_position(profile, model, chosen):
    plan = Single.plan(profile, PlainTarget(profile, 1.1), read_file("method", "single", model=model))
    assert plan.point == {"model": chosen}


@pytest.mark.parametrize("model", ["huge", "3", "-4"])
def test_single_refuses_what_the_zoo_lacks(profile, model):
    with pytest.raises(PlanError, match="small, medium, large"):
        Single.plan(profile, PlainTarget(profile, 0.5), read_file("method", "single", model=model))


def _two_folds(profile):
    target = PlainTarget(profile, 0.5)
    folds = [Single.plan(profile, target, read_file("method", "single", model=m)) for m in ("small", "large")]
    return plan_of(replace(folds[0], serves=[0, 2]), replace(folds[1], serves=[1, 3]))


def test_each_query_is_served_by_its_fold_live_and_replayed(profile, zoo, queries):
    plan = _two_folds(profile)
    system = Single.deploy(plan, zoo, TableEngine(profile), read_file("method", "single"))
    answers = [system.answer(query) for query in queries[:4]]
    outcomes = Single.replay(plan, profile, np.arange(4))
    assert [a.label for a in answers] == outcomes.labels.tolist() == [0, 1, 1, 1]
    assert outcomes.latency_ms.tolist() == [1, 4, 1, 4]
    assert all(a.level == 0 and set(a.stages_ns) == {"tokenise", "level1"} for a in answers)


def test_a_query_that_no_fold_serves_is_refused(profile, zoo, queries):
    system = Single.deploy(_two_folds(profile), zoo, TableEngine(profile), read_file("method", "single"))
    with pytest.raises(PlanError, match="query 7"):
        system.answer(queries[7])


def test_non_finite_logits_are_an_error(profile, zoo, queries):
    profile.models["large"].logits[1, 0] = np.nan
    system = Single.deploy(_two_folds(profile), zoo, TableEngine(profile), read_file("method", "single"))
    with pytest.raises(NonFiniteOutput, match=r"model large .* query 1"):
        system.answer(queries[1])


def test_a_regression_answers_with_the_score(zoo, queries):
    profile = profile_of([0.0, 2.5, 5.0], {"small": [[0.1], [2.0], [4.5]]}, metric="pearson")
    plan = plan_of(Infaas.plan(profile, PlainTarget(profile, 0.9), read_file("method", "infaas")))
    system = Infaas.deploy(plan, zoo, TableEngine(profile), read_file("method", "infaas"))
    outcomes = Infaas.replay(plan, profile, np.arange(3))
    assert [system.answer(query).label for query in queries[:3]] == outcomes.labels.tolist()
    assert outcomes.labels == pytest.approx([0.1, 2.0, 4.5])


def test_what_a_model_leaves_between_two_labels_is_borderline():
    profile = profile_of(LABELS, {"small": np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0005], [0.0, 1.0]])})
    plan = plan_of(Single.plan(profile, PlainTarget(profile, 0.5), read_file("method", "single", model="small")))
    assert Single.replay(plan, profile, profile.rows).borderline.tolist() == [False, False, True, False]
