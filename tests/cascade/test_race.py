"""Plans that the profile calls about equally fast are served, and the faster one is kept."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from baselines.controls import Oracle, RandomRouting
from baselines.infaas import Infaas
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.race import ALIKE, FINALISTS, WITHIN, Race, fastest, race
from tabi_bench.cascade.search import search
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import CascadeConfig, ControlConfig, InfaasConfig
from tabi_bench.evaluation.targets import Target
from tests.cascade.ladder import Ladder, build

LOW = {"kind": "absolute", "slack": 0.0, "margin_se": 0.0, "seed": 0}


def point(*models: str) -> Point:
    return Point(list(models), [1.0] * len(models), [1.0] * len(models), [0.5] * (len(models) - 1), [0.0])


def racing(ladder: Ladder, **milliseconds: float) -> Ladder:
    """The ladder with a race in its profile, and models that take so long, whatever the profile says."""
    for name, taken in milliseconds.items():
        answer = ladder.models[name].forward

        def slow(encoding, want_importance=False, answer=answer, taken=taken):
            end = time.perf_counter() + taken / 1e3
            while time.perf_counter() < end:
                pass
            return answer(encoding, want_importance)

        ladder.models[name].forward = slow
    runner = Race("votes", ladder.zoo, ladder, ladder.queries, 0, 0.01)
    ladder.profile = replace(ladder.profile, race=runner)
    return ladder


def told(ladder: Ladder, **mean_ms: float) -> None:
    """The profile says that the models take so long at every length."""
    for name, taken in mean_ms.items():
        model = ladder.profile.models[name]
        flat = np.full(len(model.latency.lengths), taken)
        ladder.profile.models[name] = replace(model, latency=replace(model.latency, ms=flat, ms_importance=flat))


def goal(ladder: Ladder, value: float) -> Target:
    return Target.of(ladder.profile, LOW["kind"], value, LOW["slack"], LOW["margin_se"], LOW["seed"])


def test_the_first_is_kept_unless_another_is_faster_by_more_than_the_noise():
    first = np.tile([1.0, 3.0], 50)
    assert fastest(np.stack([first, first - 0.5])) == 1
    assert fastest(np.stack([first, first + 0.5])) == 0
    assert fastest(np.stack([first, first - 0.5, first - 0.7])) == 2
    swapped = first[::-1].copy()
    swapped[0] -= 0.1  # faster on the mean by 0.001, where the difference has a standard error of 0.2
    assert swapped.mean() < first.mean() and fastest(np.stack([first, swapped])) == 0


def test_only_what_is_predicted_to_be_about_as_fast_takes_part():
    asked = []

    def runner(points, rows):
        asked.append([point.models for point in points])
        return np.arange(len(points), 0, -1)[:, None] * np.ones((1, 5)) + np.linspace(0, 0.01, 5)

    profile = replace(build(20).profile, race=runner)
    entries = [(1.0, point("a")), (0.99 * WITHIN, point("b")), (1.01 * WITHIN, point("c"))]
    kept, facts = race(profile, entries)
    assert asked == [[["a"], ["b"]]] and kept == facts["kept"] == 1
    assert facts["predicted_ms"] == [1.0, 0.99 * WITHIN] and facts["served_ms"] == pytest.approx([2.005, 1.005])
    assert race(profile, entries[:1]) == (0, None)  # nothing to race against
    assert race(replace(profile, race=None), entries) == (0, None)
    crowd = [(1.0 + k / 1000, point(f"m{k}")) for k in range(FINALISTS + 2)]
    assert race(profile, crowd)[0] == FINALISTS - 1 and len(asked[-1]) == FINALISTS


@pytest.mark.parametrize(
    ("predicted", "served", "kept"),
    [
        (ALIKE - 0.01, 0.001, 1),  # as fast by both: the single model
        (ALIKE + 0.01, 0.001, 0),  # the profile tells them apart
        (ALIKE - 0.01, 0.2, 0),  # serving does
    ],
)
def test_of_plans_that_nothing_tells_apart_the_one_with_fewer_models_is_kept(predicted, served, kept):
    noise = np.tile([-0.1, 0.1], 50)
    runner = lambda points, rows: np.stack([np.ones(100), 1 + served + noise])  # noqa: E731
    profile = replace(build(20).profile, race=runner)
    assert race(profile, [(1.0, point("a", "b")), (predicted, point("b"))])[0] == kept
    assert race(profile, [(1.0, point("b")), (predicted, point("a", "b"))])[0] == 0


def test_infaas_keeps_the_model_that_serves_faster():
    ladder = racing(build(60, seed=1), medium=2.0, large=0.2)
    told(ladder, small=9.0, medium=3.0, large=3.3)
    plan = Infaas.plan(ladder.profile, goal(ladder, 0.5), InfaasConfig(name="infaas"))
    assert plan.point == {"model": "large"} and plan.predicted["race"]["kept"] == 1
    assert plan.predicted["latency_ms"] == pytest.approx(3.3)
    profile = replace(ladder.profile, race=None)
    assert Infaas.plan(profile, goal(ladder, 0.5), InfaasConfig(name="infaas")).point == {"model": "medium"}


def test_a_model_over_its_time_limit_does_not_take_part():
    ladder = racing(build(60, seed=1), medium=2.0, large=0.2)
    told(ladder, small=9.0, medium=3.0, large=3.3)
    plan = Infaas.plan(ladder.profile, goal(ladder, 0.5), InfaasConfig(name="infaas", slo_ms=3.1))
    assert plan.point == {"model": "medium"} and plan.predicted["race"] is None


def test_a_search_ends_in_a_race_and_controls_follow_it():
    """Predicted: medium before large. Served, medium is slow, so that small before large is kept."""
    ladder = racing(build(120, seed=2), small=0.1, medium=5.0, large=1.0)
    told(ladder, small=1.0, medium=3.0, large=9.0)
    options = CascadeConfig(name="tabi", alphas=[0.0])
    target = goal(ladder, 0.85)
    plan = search(ladder.profile, target, options)
    alone = search(replace(ladder.profile, race=None), target, options)
    raced = plan.predicted["race"]
    assert raced["models"][0] == alone.point["models"] and alone.predicted["race"] is None
    assert alone.point["models"] == ["medium", "large"] and plan.point["models"] == ["small", "large"]
    assert plan.predicted["searched_ms"] == alone.predicted["latency_ms"] < plan.predicted["latency_ms"]
    assert plan.predicted["score"] >= target.value
    for control in (RandomRouting, Oracle):
        found = control.plan(ladder.profile, target, ControlConfig(name="random", tabi=options))
        assert found.point["models"] == plan.point["models"]


def test_the_same_race_is_not_run_twice():
    ladder = racing(build(60, seed=3))
    points = [point("small", "large"), point("large")]
    first = ladder.profile.race(points, ladder.profile.rows)
    calls = sum(len(model.calls) for model in ladder.models.values())
    assert ladder.profile.race(points, ladder.profile.rows) is first
    assert sum(len(model.calls) for model in ladder.models.values()) == calls
    assert first.shape[0] == 2 and first.shape[1] >= 20 and (first > 0).all()
    assert ladder.profile.race(points, ladder.profile.rows[:40]) is not first


def test_what_serves_is_the_answer_of_serving():
    """Rows served in a race are those asked for: the models see these texts and no others."""
    ladder = racing(build(60, seed=4))
    rows = np.arange(0, 60, 2)
    texts = {ladder.queries[row].texts for row in rows}
    before = {name: len(model.calls) for name, model in ladder.models.items()}
    ladder.profile.race([point("small", "large"), point("medium", "large")], rows)
    seen = {read for name, model in ladder.models.items() for read, _ in model.calls[before[name] :]}
    assert seen == texts
    assert isinstance(ladder.profile.race._deploy(point("small")), Cascade)
