"""Random routing and the oracle: who is re-routed, by hand; live equals replayed; nothing beats the oracle."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabi_bench.evaluation.targets import Target

from baselines.controls import Oracle, RandomRouting, least_rerouting, onward_shares
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import ControlConfig, read_file
from tabi_bench.evaluation.metrics import score
from tabi_bench.system import PlanError
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
    said = small.copy()
    said[rows] = large[rows]
    return score("accuracy", labels, said)


@pytest.fixture(scope="module", params=["accuracy", "pearson"])
def planned(request):
    """A ladder, and the plans of Tabi, random and oracle: two folds over the halves of its rows."""
    ladder = build(n=80, outputs=1 if request.param == "pearson" else 3, metric=request.param)
    halves = np.arange(0, 80, 2), np.arange(1, 80, 2)
    views = [ladder.profile.view(half) for half in halves]
    targets = [Target.of(view, "relative", None, 0.02, 0.0) for view in views]
    plans = {}
    for kind, options in ((Cascade, TABI), (RandomRouting, _control("random")), (Oracle, _control("oracle"))):
        folds = [kind.plan(view, target, options) for view, target in zip(views, targets, strict=True)]
        for fold, served in zip(folds, reversed(halves), strict=True):
            fold.serves = served.tolist()
        plans[kind.name] = as_plan(*folds, method=kind.name)
    return ladder, plans


def _control(name: str) -> ControlConfig:
    return read_file("method", name, cascade=TABI)


def _live(system, queries):
    answers = [system.answer(query) for query in queries]
    return np.array([a.label for a in answers]), np.array([a.level for a in answers])


def test_random_routing_keeps_tabis_plan_and_share(planned):
    ladder, plans = planned
    for tabi, control in zip(plans["tabi"].folds, plans["random"].folds, strict=True):
        changed = {"dispatcher", "taus"}
        assert {k: v for k, v in control.point.items() if k not in changed} == {
            k: v for k, v in tabi.point.items() if k not in changed
        }
        assert control.point["taus"] == pytest.approx(onward_shares(tabi.predicted["shares"]))
    system = RandomRouting.deploy(plans["random"], ladder.zoo, ladder, _control("random"))
    outcomes = RandomRouting.replay(plans["random"], ladder.profile, ladder.profile.rows)
    labels, levels = _live(system, ladder.queries)
    assert labels == pytest.approx(outcomes.labels) and levels.tolist() == outcomes.levels.tolist()


def test_the_oracle_reaches_tabis_score_with_less_or_says_so(planned):
    ladder, plans = planned
    profile, plan = ladder.profile, plans["oracle"]
    table = Oracle.decide(plan, profile, plans)
    tabi = Cascade.replay(plans["tabi"], profile, profile.rows)
    assert table["score"] == score(profile.metric, profile.labels, tabi.labels)
    system = Oracle.deploy(plan, ladder.zoo, ladder, _control("oracle"), table=table)
    outcomes = Oracle.replay(plan, profile, profile.rows, table)
    labels, levels = _live(system, ladder.queries)
    assert labels == pytest.approx(outcomes.labels) and levels.tolist() == outcomes.levels.tolist()
    assert set(np.flatnonzero(levels)) == set(table["reroute"])
    reached = score(profile.metric, profile.labels, outcomes.labels) >= table["score"] - 1e-9
    assert reached == table["reached"] == system.describe()["reached"]


def test_the_oracle_needs_its_table_and_two_levels(planned):
    ladder, plans = planned
    with pytest.raises(PlanError, match="table"):
        Oracle.deploy(plans["oracle"], ladder.zoo, ladder, _control("oracle"))
    with pytest.raises(PlanError, match="two models"):
        Oracle.plan(ladder.profile, None, read_file("method", "oracle", cascade=read_file("method", "tabi", levels=3)))
