"""The fold driver: each half of the rows is served, replayed and examined by what was tuned on the other half."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.controls import ReferenceAgain
from baselines.infaas import Infaas
from tabi_bench.cascade.point import Point
from tabi_bench.planning import folds
from tabi_bench.planning.plans import make_plans
from tabi_bench.planning.tabi import Tabi
from tabi_bench.system import FoldPlan, PlanError, Unreachable
from tests.cascade.ladder import as_plan, build

N = 120
EVEN, ODD = list(range(0, N, 2)), list(range(1, N, 2))
PAIR = Point(["small", "large"], [1.0, 1.0], [0.6, 0.9], [0.7], [0.0], ensemble="weighted").plain()
ONE = Point.of_one("large").plain()


@pytest.fixture
def ladder():
    return build(N, seed=2)


def two(first: dict, second: dict, method: str = "tabi"):
    return as_plan(FoldPlan(ODD, EVEN, 0.9, first), FoldPlan(EVEN, ODD, 0.8, second), method=method)


# --- who serves what --------------------------------------------------------------------------------------------------


def test_each_row_is_served_by_its_fold():
    assert two(PAIR, ONE).fold_of(np.array([3, 0, 2])).tolist() == [1, 0, 0]
    assert as_plan(FoldPlan(ODD, None, 0.9, ONE)).fold_of(np.array([3, 0])).tolist() == [0, 0]
    with pytest.raises(PlanError, match=r"no fold of this plan serves row 200"):
        two(PAIR, ONE).fold_of(np.array([1, 200]))


def test_a_replay_puts_the_folds_rows_back_in_order(ladder):
    outcomes = folds.replay(Tabi, two(PAIR, ONE), ladder.profile)
    assert outcomes.rows.tolist() == list(range(N))
    parts = [Tabi.replay(point, ladder.profile, np.array(rows)) for point, rows in ((PAIR, EVEN), (ONE, ODD))]
    for part in parts:
        for name in ("labels", "levels", "latency_ms", "borderline"):
            np.testing.assert_array_equal(getattr(outcomes, name)[part.rows], getattr(part, name))


def test_live_answers_of_two_folds_are_the_replayed_ones(ladder):
    plan = two(PAIR, ONE)
    systems = folds.deploy({"tabi": Tabi}, {"tabi": plan}, ladder, {"tabi": None})["tabi"]
    outcomes = folds.replay(Tabi, plan, ladder.profile)
    answers = [system.answer(query) for system, query in zip(systems, ladder.queries, strict=True)]
    assert [a.label for a in answers] == outcomes.labels.tolist()
    assert [a.level for a in answers] == outcomes.levels.tolist() and set(outcomes.levels[ODD]) == {0}


# --- who shares a deployed system -------------------------------------------------------------------------------------


def deployed(ladder, classes: dict, plans: dict) -> dict[str, list]:
    return folds.deploy(classes, plans, ladder, dict.fromkeys(classes))


def test_equal_points_of_the_same_code_share_one_system(ladder):
    classes = {"infaas": Infaas, "tabi": Tabi}
    served = deployed(ladder, classes, {"infaas": two(ONE, ONE, "infaas"), "tabi": two(PAIR, ONE)})
    assert len({id(system) for system in served["infaas"]}) == 1
    assert served["tabi"][1] is served["infaas"][0], "one model alone is one system, whoever planned it"
    assert served["tabi"][0] is not served["infaas"][0]
    assert [name for name, *_ in ladder.loaded] == ["large", "small", "large"]


def test_a_system_that_stands_alone_has_models_of_its_own(ladder):
    classes = {"infaas": Infaas, "reference_again": ReferenceAgain.beside(Infaas)}
    served = deployed(ladder, classes, {name: two(ONE, ONE, name) for name in classes})
    assert len({id(system) for systems in served.values() for system in systems}) == 2
    assert served["infaas"][0].run.__func__ is served["reference_again"][0].run.__func__
    assert ladder.loaded == [("large", None, False, ""), ("large", None, False, "again")]


def test_points_that_differ_in_anything_share_nothing(ladder):
    served = deployed(ladder, {"tabi": Tabi}, {"tabi": two(PAIR, PAIR | {"taus": [0.71]})})["tabi"]
    assert served[0] is not served[1] and served[0] is served[2]


# --- the halves -------------------------------------------------------------------------------------------------------


def test_each_half_is_served_by_what_is_tuned_on_the_other(ladder, composed):
    first, second = folds.folds_of(ladder.profile, composed("task=sst2", "target.slack=0.05"), 0.5)
    assert sorted([*first.tune, *first.serves]) == list(range(N))
    assert first.tune.tolist() == second.serves.tolist() and second.tune.tolist() == first.serves.tolist()
    for fold in (first, second):
        assert fold.view.rows.tolist() == fold.tune.tolist() and not len(fold.held)
        best = max(fold.target.score(m.logits.argmax(1)) for m in fold.view.models.values())
        assert fold.target.value == pytest.approx(best - 0.05) and fold.target.margin_se == 0.5


def test_rows_of_a_certificate_are_in_nobodys_tuning(ladder, composed):
    config = composed("task=sst2", "certify.epsilon=0.2")
    for fold in folds.folds_of(ladder.profile, config, 0.5):
        assert len(fold.held) and not set(fold.held) & (set(fold.tune) | set(fold.serves))
        assert fold.view.rows.tolist() == fold.tune.tolist()


def test_a_target_that_no_model_reaches_is_said(ladder, composed):
    config = composed("task=sst2", "target.kind=absolute", "target.value=1.0")
    with pytest.raises(Unreachable, match=r"no model reaches the target 1\.0000"):
        folds.folds_of(ladder.profile, config, 0.5)


def test_planners_see_their_tune_rows_and_nothing_else(ladder, composed, monkeypatch):
    seen = []

    def plan(profile, target, options):
        seen.append(profile.rows.tolist())
        assert all(len(model.logits) == len(profile.rows) == len(target.labels) for model in profile.models.values())
        return FoldPlan(profile.rows.tolist(), None, target.value, ONE, {"score": 1.0, "latency_ms": 1.0})

    monkeypatch.setattr(Infaas, "plan", plan)
    halves = folds.folds_of(ladder.profile, composed("task=sst2"), 0.5)
    plans = folds.plan_folds(Infaas, halves, None)
    assert seen == [fold.tune.tolist() for fold in halves] == [plan.tuned_on for plan in plans]
    assert [plan.serves for plan in plans] == [fold.serves.tolist() for fold in halves]


# --- all plans of a session -------------------------------------------------------------------------------------------


def planned(ladder, config, **given):
    classes = {"infaas": Infaas, "tabi": Tabi}
    return make_plans(config, classes, ladder.profile, {"data": "d"}, given)


def test_every_method_has_a_plan_and_the_plain_rule_beside(ladder, composed):
    plans = planned(ladder, composed("task=sst2", "method.alphas=[0.0]"))
    assert set(plans.made) == set(plans.seconds) == {"infaas", "tabi"} and not plans.infeasible
    assert plans.made["tabi"].options["alphas"] == [0.0] and plans.made["tabi"].fingerprint == {"data": "d"}
    assert plans.plain["infaas"]["reduction_pct"] == 0.0
    assert plans.plain["tabi"]["latency_ms"] <= plans.plain["infaas"]["latency_ms"] + 1e-9
    for plan in plans.made.values():
        assert "verified" not in plan.folds[0].predicted and "certificate" not in plan.folds[0].predicted


def test_only_searched_plans_are_verified_and_certified(ladder, composed):
    plans = planned(ladder, composed("task=sst2", "method.alphas=[0.0]", "search.verify=true", "certify.epsilon=0.2"))
    for name, examined in (("tabi", True), ("infaas", False)):
        for fold in plans.made[name].folds:
            assert ("verified" in fold.predicted) == ("certificate" in fold.predicted) == examined


def test_a_given_plan_is_taken_as_it_is(ladder, composed):
    given = two(PAIR, ONE)
    plans = planned(ladder, composed("task=sst2", "method.alphas=[0.0]"), tabi=given)
    assert plans.made["tabi"] is given and "tabi" not in plans.seconds and not plans.plain


def test_without_a_margin_there_is_no_plain_rule_beside(ladder, composed):
    assert not planned(ladder, composed("task=sst2", "method.alphas=[0.0]", "search.margin_se=0")).plain


def test_a_method_without_a_plan_is_a_result(ladder, composed):
    config = composed("task=sst2", "method.alphas=[0.0]", "systems.infaas.slo_ms=1e-9")
    plans = planned(ladder, config)
    assert set(plans.made) == {"tabi"} and "more than slo_ms=1e-09" in plans.infeasible["infaas"]
    assert plans.plain["infaas"] is None and plans.plain["tabi"]["reduction_pct"] == 0.0
