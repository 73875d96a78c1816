"""The plan search: what it finds meets the target, costs little more than the best point there is, and runs little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.config import read_file
from tabi_bench.planning.search import Candidate, Search, search, verify
from tabi_bench.planning.targets import Target
from tabi_bench.system import Infeasible, Unreachable
from tests.cascade.ladder import build

TABI = read_file("method", "tabi", levels=2, alphas=[0.0, 0.4, 0.8], ensembles=["weighted"])


def target_of(profile, slack=0.03, margin_se=0.5):
    return Target.of(profile, "relative", None, slack, margin_se, 0)


@pytest.fixture(scope="module")
def profile():
    return build(360).profile


@pytest.mark.parametrize("slack", [0.0, 0.02, 0.06, 0.15])
def test_the_point_found_meets_the_target_and_yields_what_is_predicted(profile, slack):
    target = target_of(profile, slack)
    plan = search(profile, target, TABI)
    outcomes = replay_point(Point(**plan.point), profile, np.arange(len(profile.rows)))
    assert target.meets(outcomes.labels)
    assert plan.predicted["score"] == pytest.approx(target.score(outcomes.labels))
    assert plan.predicted["latency_ms"] == pytest.approx(outcomes.latency_ms.mean())


def brute_force(profile, target) -> float:
    """The least mean latency over singles, and pairs on full text with every threshold, worked out one by one."""
    best, rows = np.inf, np.arange(len(profile.rows))
    says, ms = {}, {}
    for name, model in profile.models.items():
        says[name] = outputs_of(model.logits, fit_temperature(model.logits, profile.labels))
        ms[name] = model.latency(model.tokens)
        if target.meets(says[name].argmax(1)):
            best = min(best, ms[name].mean())
    names = list(profile.models)
    for i, small in enumerate(names):
        for large in names[i + 1 :]:
            weights = [vote_weight(profile.models[m].logits, profile.labels) for m in (small, large)]
            both = rules.combine([says[small], says[large]], weights)
            sure = says[small].max(axis=1)
            for tau in [0.0, *(np.unique(sure) + 1e-9)]:
                routed = sure < tau
                label = np.where(routed, both.argmax(1), says[small].argmax(1))
                if target.meets(label):
                    cost = ms[small] + routed * (ms[large] + profile.overhead_ms)
                    best = min(best, cost[rows].mean())
    return best


@pytest.mark.parametrize("slack", [0.01, 0.04, 0.1])
def test_thresholds_are_searched_exhaustively(slack):
    profile = build(90, seed=3).profile
    target = target_of(profile, slack, margin_se=0.0)
    searched = search(profile, target, replace(TABI, alphas=[0.0])).predicted["latency_ms"]
    assert searched == pytest.approx(brute_force(profile, target), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stopping_early_costs_at_most_one_percent(seed):
    profile = build(240, seed=seed).profile
    target = target_of(profile, 0.04)
    plan = search(profile, target, TABI)
    checked = verify(profile, target, TABI, plan)
    assert -1e-6 <= checked["regret_pct"] <= 1.0
    assert checked["passes_share"] < 0.7  # models of nearly equal skill, as here, are the hard case


def test_passes_are_those_that_were_run():
    ladder = build(120, seed=5)
    plan = search(ladder.profile, target_of(ladder.profile), TABI)
    assert plan.predicted["passes"]["run"] == len(ladder.profile.runner.ran)
    assert plan.predicted["passes"]["exhaustive"] == 3 * 2 * 120  # pairs x alphas above zero x rows


def test_three_levels_are_never_predicted_slower_than_two(profile):
    target = target_of(profile, 0.05)
    two = search(profile, target, TABI).predicted["latency_ms"]
    plan = search(profile, target, replace(TABI, levels=3))
    assert plan.predicted["latency_ms"] <= two + 1e-9
    assert plan.predicted["pairwise"]["latency_ms"] == pytest.approx(two, rel=0.01)


def test_a_point_of_exactly_so_many_levels_may_not_exist(profile):
    options = replace(TABI, levels=3, fewer_levels=False)
    plan = search(profile, target_of(profile, 0.05), options)
    assert len(plan.point["models"]) == 3
    two_models = build(60, names=("small", "large")).profile
    with pytest.raises(Infeasible):
        search(two_models, target_of(two_models, 0.05), options)


@pytest.mark.parametrize(("fewer_levels", "fastest_ms"), [(True, 2.0), (False, 1.0)])
def test_what_never_asks_its_last_level_is_left_to_fewer_levels(profile, fewer_levels, fastest_ms):
    searched = Search(profile, target_of(profile), replace(TABI, fewer_levels=fewer_levels))
    never = Point(["small", "large"], [1.0, 1.0], [0.6, 0.9], [rules.NEVER], [0.0])
    searched.offer(Candidate(1.0, never, profile.labels, [1.0, 0.0]))
    searched.offer(Candidate(2.0, replace(never, taus=[0.5]), profile.labels, [0.9, 0.1]))
    assert searched.best.latency_ms == fastest_ms


def test_a_target_out_of_reach_is_said_with_the_best_model(profile):
    with pytest.raises(Unreachable, match=r"no model reaches the target 0\.9990; the best on tune is large with 0\.7"):
        Target.of(profile, "absolute", 0.999, 0.0, 0.0, 0)


def test_other_dispatchers_and_scores_meet_the_target_too(profile):
    target = target_of(profile, 0.05)
    for change in ({"dispatcher": "sigmoid"}, {"confidence": "margin"}, {"confidence": "entropy"}):
        options = replace(TABI, **change)
        plan = search(profile, target, options)
        assert target.meets(replay_point(Point(**plan.point), profile, np.arange(len(profile.rows))).labels)


def test_regression_routes_by_estimated_agreement():
    profile = build(300, outputs=1, metric="pearson").profile
    target = target_of(profile, 0.02, margin_se=0.0)
    plan = search(profile, target, TABI)
    assert plan.predicted["latency_ms"] <= profile.models["large"].mean_ms
    assert len(plan.point["agreement"]) == len(plan.point["models"]) - 1
