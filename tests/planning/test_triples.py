"""Three levels: both thresholds jointly, against a search that tries every pair of them one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.config import read_file
from tabi_bench.planning.search import Search, _searched, search, verify
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tests.cascade.ladder import build

TABI3 = read_file("method", "tabi3", levels=3, alphas=[0.0, 0.4, 0.8], ensembles=["weighted"])
FULL_TEXT = replace(TABI3, alphas=[0.0])


def target_of(profile, slack=0.03, margin_se=0.0):
    return Target.of(profile, "relative", None, slack, margin_se, 0)


def table(says: dict[str, np.ndarray], labels: np.ndarray, ms: dict[str, float]) -> Profile:
    """Models of one latency each; says: logits (N, K)."""
    one, n = np.array([8]), len(labels)
    models = {
        name: ModelProfile(
            name=name,
            params=1,
            layers=1,
            logits=z,
            tokens=np.full(n, 8),
            latency=LatencyCurve(one, np.array([ms[name]]), np.array([ms[name]])),
            truncated=np.zeros(n, bool),
        )
        for name, z in says.items()
    }
    return Profile("toy", "accuracy", 2, np.arange(n), labels, models)


def brute_force(profile: Profile, target: Target) -> float:
    """The least mean latency of exactly three levels on full text: every model triple and every pair of thresholds."""
    says, weight, ms = {}, {}, {}
    for name, model in profile.models.items():
        says[name] = outputs_of(model.logits, fit_temperature(model.logits, profile.labels))
        weight[name] = vote_weight(model.logits, profile.labels)
        ms[name] = model.latency(model.tokens)
    best = np.inf
    for names in combinations(profile.models, 3):
        votes = [
            rules.combine([says[m] for m in names[: k + 1]], [weight[m] for m in names[: k + 1]]) for k in range(3)
        ]
        sure = [vote.max(axis=1) for vote in votes]
        for one in [0.0, *(np.unique(sure[0]) + 1e-9)]:
            second = sure[0] < one
            for two in [0.0, *(np.unique(sure[1][second]) + 1e-9)]:
                third = second & (sure[1] < two)
                predictions = np.where(
                    third, votes[2].argmax(1), np.where(second, votes[1].argmax(1), votes[0].argmax(1))
                )
                if target.meets(predictions):
                    spent = ms[names[0]] + second * (ms[names[1]] + profile.overhead_ms)
                    best = min(best, (spent + third * (ms[names[2]] + profile.overhead_ms)).mean())
    return best


def test_a_case_worked_by_hand():
    # Rows 0-3 are easy; row 4 only from the second model on, row 5 only for the third. All labels are 1.
    sure, unsure = [-4.0, 4.0], [0.2, -0.2]
    says = {
        "a": np.array([sure] * 4 + [unsure, unsure]),
        "b": np.array([sure] * 4 + [sure, unsure]),
        "c": np.array([sure] * 6),
    }
    profile = table(says, np.ones(6, int), {"a": 1.0, "b": 2.0, "c": 6.0})
    options = replace(FULL_TEXT, calibrate=False, ensembles=["large"], fewer_levels=False)
    plan = search(profile, target_of(profile, 0.0), options)
    assert plan.point["models"] == ["a", "b", "c"]
    assert plan.predicted["shares"] == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert plan.predicted["latency_ms"] == pytest.approx((6 * 1 + 2 * 2 + 1 * 6) / 6)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.15]), st.integers(8, 26))
@settings(deadline=None, max_examples=25)
def test_regret_against_brute_force_is_within_one_percent(seed, slack, n):
    random = np.random.default_rng(seed)
    labels, hidden = random.integers(0, 2, n), random.normal(size=n)
    skill = {"a": 0.3, "b": 0.8, "c": 1.3, "d": 1.6}
    margins = {m: s + hidden + random.normal(size=n) for m, s in skill.items()}
    says = {m: np.stack([-z, z], 1) * (2 * labels - 1)[:, None] for m, z in margins.items()}
    profile = table(says, labels, {"a": 1.0, "b": 2.0, "c": 4.0, "d": 7.0})
    target = target_of(profile, slack)
    best = brute_force(profile, target)
    searched = _searched(Search(profile, target, replace(FULL_TEXT, fewer_levels=False))).best
    assert (searched is None) == np.isinf(best)
    if searched is not None:
        assert best * (1 - 1e-9) <= searched.latency_ms <= 1.01 * best


@pytest.mark.parametrize(("seed", "slack"), [(0, 0.0), (1, 0.03), (4, 0.0)])
def test_pruned_text_costs_at_most_one_percent_and_few_passes(seed, slack):
    profile = build(160, seed=seed).profile
    target = target_of(profile, slack, 0.5)
    plan = search(profile, target, TABI3)
    checked = verify(profile, target, TABI3, plan)
    assert -1e-6 <= checked["regret_pct"] <= 1.0
    assert checked["passes_share"] < 0.8  # models of nearly equal skill, as here, are the hard case
    outcomes = replay_point(Point(**plan.point), profile, np.arange(160))
    assert target.meets(outcomes.labels)
    assert plan.predicted["latency_ms"] == pytest.approx(outcomes.latency_ms.mean())


def test_an_exhaustive_search_runs_the_passes_that_are_counted():
    ladder = build(60, seed=2)
    searched = _searched(Search(ladder.profile, target_of(ladder.profile), TABI3, exhaustive=True))
    assert searched.run == searched.possible == len(set(ladder.profile.runner.ran)) == 3 * 2 * 60


def test_verifying_against_a_target_that_nothing_meets_says_so():
    profile = build(60, seed=2).profile
    plan = search(profile, target_of(profile), TABI3)
    unreachable = replace(target_of(profile), kind="absolute", value=1.1)
    with pytest.raises(ValueError, match="no point meets the target"):
        verify(profile, unreachable, TABI3, plan)


@pytest.mark.parametrize(("outputs", "metric"), [(2, "matthews"), (1, "pearson")])
def test_other_metrics_keep_the_margin_at_three_levels(outputs, metric):
    profile = build(120, outputs=outputs, metric=metric, seed=1).profile
    target = target_of(profile, 0.03, 0.5)
    options = replace(TABI3, fewer_levels=False, ensembles=["weighted", "large"])
    plan = search(profile, target, options)
    assert target.meets(replay_point(Point(**plan.point), profile, np.arange(120)).labels)
