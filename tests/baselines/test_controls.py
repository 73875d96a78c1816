"""Random routing and the oracle: who is re-routed, by hand; live equals replayed; nothing beats the oracle."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.controls import Oracle, RandomRouting, ReferenceAgain, onward_shares
from baselines.infaas import Infaas
from tabi_bench.cascade.point import Point
from tabi_bench.config import ControlConfig, read_file
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.planning import folds
from tabi_bench.planning.tabi import Tabi
from tabi_bench.planning.targets import Target, least_rerouting
from tabi_bench.system import FoldPlan
from tests.cascade.ladder import as_plan, build

TABI = read_file("method", "tabi", alphas=[0.0, 0.5], ensembles=["weighted"], fewer_levels=False)


def test_onward_shares_by_hand():
    assert onward_shares([0.6, 0.4]) == pytest.approx([0.4])
    assert onward_shares([0.5, 0.3, 0.2]) == pytest.approx([0.5, 0.4])  # 0.2 of the 0.5 that level 2 saw
    assert onward_shares([1.0]) == []
    assert onward_shares([1.0, 0.0, 0.0]) == [0.0, 0.0]


def test_the_oracle_re_routes_the_cheapest_gains_first():
    labels = np.array([0, 0, 0, 0, 1, 1])
    small, large = np.array([1, 1, 1, 0, 1, 0]), np.array([0, 0, 0, 1, 1, 0])  # gains: 0, 1, 2; loss: 3
    cost = np.array([5.0, 2.0, 3.0, 1.0, 1.0, 1.0])
    # small alone has 2 of 6; each gain adds a sixth
    for goal, rows in ((2 / 6, []), (3 / 6, [1]), (4 / 6, [1, 2]), (5 / 6, [1, 2, 0])):
        chosen, reached = least_rerouting("accuracy", labels, small, large, cost, goal)
        assert reached and chosen.tolist() == rows
    chosen, reached = least_rerouting("accuracy", labels, small, large, cost, 1.0)
    assert not reached and set(chosen.tolist()) == {0, 1, 2}


def test_the_oracle_of_scores_goes_by_error_saved_per_millisecond():
    labels = np.array([0.0, 1.0, 2.0, 3.0])
    small, large = np.array([0.0, 3.0, 2.0, 1.0]), np.array([0.5, 1.0, 2.0, 2.0])  # errors saved: -, 4, 0, 3
    order, reached = least_rerouting("pearson", labels, small, large, np.array([1.0, 4.0, 1.0, 1.0]), 2.0)
    assert not reached and order.tolist() == [3, 1]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_dispatcher_over_the_pair_is_cheaper_at_the_score(data):
    n = data.draw(st.integers(1, 7))
    rows = st.lists(st.integers(0, 1), min_size=n, max_size=n)
    labels, small, large = (np.array(data.draw(rows)) for _ in range(3))
    cost = np.array(data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)), float)
    goal = data.draw(st.integers(0, n)) / n
    chosen, reached = least_rerouting("accuracy", labels, small, large, cost, goal)
    others = [list(rows) for size in range(n + 1) for rows in combinations(range(n), size)]
    fine = [cost[o].sum() for o in others if _score(labels, small, large, o) >= goal - 1e-9]
    assert reached == bool(fine)
    if reached:
        assert _score(labels, small, large, chosen) >= goal - 1e-9
        assert cost[chosen].sum() == min(fine)


def _score(labels, small, large, rows) -> float:
    predictions = small.copy()
    predictions[rows] = large[rows]
    return score("accuracy", labels, predictions)


@pytest.fixture(scope="module", params=["accuracy", "pearson"])
def planned(request):
    """A ladder, and the plans of Tabi, random and oracle: two folds over the halves of its rows."""
    ladder = build(n=80, outputs=1 if request.param == "pearson" else 3, metric=request.param)
    halves = np.arange(0, 80, 2), np.arange(1, 80, 2)
    views = [ladder.profile.view(half) for half in halves]
    targets = [Target.of(view, "relative", None, 0.02, 0.0) for view in views]
    plans = {}
    for kind, options in ((Tabi, TABI), (RandomRouting, _control("random")), (Oracle, _control("oracle"))):
        made = [kind.plan(view, target, options) for view, target in zip(views, targets, strict=True)]
        for fold, served in zip(made, reversed(halves), strict=True):
            fold.serves = served.tolist()
        plans[kind.name] = as_plan(*made, method=kind.name)
    return ladder, plans


def _control(name: str) -> ControlConfig:
    return read_file("method", name, cascade=TABI)


def _live(ladder, kind, plan):
    """(labels, levels) of all queries, each answered by the system of its fold."""
    systems = folds.deploy({kind.name: kind}, {kind.name: plan}, ladder, {kind.name: None})[kind.name]
    answers = [system.answer(query) for system, query in zip(systems, ladder.queries, strict=True)]
    return np.array([a.label for a in answers]), np.array([a.level for a in answers])


def test_random_routing_keeps_tabis_plan_and_share(planned):
    ladder, plans = planned
    for tabi, control in zip(plans["tabi"].folds, plans["random"].folds, strict=True):
        changed = {"dispatcher", "taus"}
        assert {k: v for k, v in control.point.items() if k not in changed} == {
            k: v for k, v in tabi.point.items() if k not in changed
        }
        assert control.point["taus"] == pytest.approx(onward_shares(tabi.predicted["shares"]))
    outcomes = folds.replay(RandomRouting, plans["random"], ladder.profile)
    labels, levels = _live(ladder, RandomRouting, plans["random"])
    assert labels == pytest.approx(outcomes.labels) and levels.tolist() == outcomes.levels.tolist()


def test_the_oracle_reaches_tabis_score_with_less_or_with_all_that_helps(planned):
    ladder, plans = planned
    profile = ladder.profile
    plan = Oracle.tell(plans["oracle"], profile, plans)
    tabi, outcomes = folds.replay(Tabi, plans["tabi"], profile), folds.replay(Oracle, plan, profile)
    goal = plan.options["score_to_reach"]
    assert goal == score(profile.metric, profile.labels, tabi.labels)
    labels, levels = _live(ladder, Oracle, plan)
    assert labels == pytest.approx(outcomes.labels) and levels.tolist() == outcomes.levels.tolist()
    rerouted = [set(fold.point["reroute"]) for fold in plan.folds]
    assert set(np.flatnonzero(levels)) == set.union(*rerouted)
    assert all(rows <= set(fold.serves) for rows, fold in zip(rerouted, plan.folds, strict=True))
    reached = score(profile.metric, profile.labels, outcomes.labels)
    small, large = (predictions_from(profile.models[name].logits) for name in ("small", "large"))
    if reached < goal - 1e-9 and all(fold.point["models"] == ["small", "large"] for fold in plan.folds):
        better = np.abs(large - profile.labels) < np.abs(small - profile.labels)
        assert set(np.flatnonzero(better)) == set.union(*rerouted)


def test_the_oracle_is_told_nothing_while_it_plans(planned):
    _, plans = planned
    for tabi, oracle in zip(plans["tabi"].folds, plans["oracle"].folds, strict=True):
        assert oracle.point == tabi.point and oracle.point["reroute"] == []


def test_what_the_oracle_predicts_is_what_it_replays(planned):
    ladder, plans = planned
    plan = Oracle.tell(plans["oracle"], ladder.profile, plans)
    for fold in plan.folds:
        outcomes = Oracle.replay(fold.point, ladder.profile, np.array(fold.serves))
        assert fold.predicted["latency_ms"] == pytest.approx(outcomes.latency_ms.mean())
        assert fold.predicted["shares"] == pytest.approx([(outcomes.levels == k).mean() for k in (0, 1)])


def test_the_oracle_without_a_tabi_beside_it_aims_at_its_own_plan(planned):
    ladder, plans = planned
    alone = Oracle.tell(plans["oracle"], ladder.profile, {})
    assert alone == Oracle.tell(plans["oracle"], ladder.profile, plans)


def test_a_tabi_of_one_level_leaves_the_oracle_nothing_to_route(planned):
    ladder, plans = planned
    folds_of_one = [replace(fold, point=Point.of_one("large").plain()) for fold in plans["tabi"].folds]
    plan = Oracle.tell(replace(plans["oracle"], folds=folds_of_one), ladder.profile, {})
    assert [fold.point for fold in plan.folds] == [Point.of_one("large").plain()] * 2
    assert [fold.predicted["shares"] for fold in plan.folds] == [[1.0]] * 2


def test_the_controls_of_a_session_search_once(planned, monkeypatch):
    ladder, _ = planned
    profile, memo, searched = ladder.profile, {}, []
    once = lambda self, key, make: memo[key] if key in memo else memo.setdefault(key, make())  # noqa: E731
    monkeypatch.setattr(type(profile), "once", once)
    monkeypatch.setattr(Tabi, "plan", lambda *arguments: searched.append(1) or plan)
    plan = FoldPlan([0], None, 0.5, Point.of_one("small").plain(), {"shares": [1.0]})
    target = Target.of(profile, "relative", None, 0.02, 0.0)
    for kind in (Oracle, RandomRouting, Oracle):
        kind.plan(profile, target, _control(kind.name))
    assert len(searched) == 1
    Oracle.plan(profile, Target.of(profile, "relative", None, 0.1, 0.0), _control("oracle"))
    assert len(searched) == 2, "another target is another search"
    part = profile.view(np.arange(40))
    for kind in (Oracle, RandomRouting):
        kind.plan(part, replace(target.view(np.arange(40)), value=target.value), _control(kind.name))
    assert len(searched) == 3, "other rows are another search"


def test_the_reference_again_is_the_references_code_on_models_of_its_own():
    again = ReferenceAgain.beside(Infaas)
    assert issubclass(again, Infaas) and (again.name, again.alone) == ("reference_again", True)
    assert again.run is Infaas.run and again.plan.__func__ is Infaas.plan.__func__ and not Infaas.alone
