"""The cascade online: live answers are the replayed ones; a level that fails is never answered from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.search import search
from tabi_bench.evaluation.targets import Target

from tabi_bench.cascade.system import Cascade, NoAnswer, Reading
from tabi_bench.config import read_file
from tabi_bench.engines.base import Output
from tabi_bench.system import FoldPlan, PlanError
from tests.cascade.ladder import as_plan, build

N, SEED = 160, 2


@pytest.fixture
def ladder():
    return build(N, seed=SEED)


def fold(point: Point) -> FoldPlan:
    return FoldPlan(list(range(N)), None, 0.9, point.plain(), {})


def pair(tau: float, alpha: float = 0.0, **changes) -> Point:
    return replace(
        Point(["small", "large"], [1.0, 1.0], [0.6, 0.9], [tau], [alpha], ensemble="weighted", seed=SEED), **changes
    )


POINTS = {
    "full text": pair(0.7),
    "pruned": pair(0.7, 0.6),
    "never": pair(0.0),
    "always": pair(2.0, 0.9),
    "sigmoid": pair(0.7, 0.6, dispatcher="sigmoid"),
    "random words": pair(0.7, 0.6, pruning="random"),
    "three levels": Point(
        ["small", "medium", "large"], [1.2, 0.9, 1.0], [0.6, 0.8, 0.9], [0.7, 0.8], [0.0, 0.7], ensemble="log_odds"
    ),
}


@pytest.mark.parametrize("name", POINTS)
def test_live_answers_are_the_replayed_ones(ladder, name):
    plan = as_plan(fold(POINTS[name]))
    system = Cascade.deploy(plan, ladder.zoo, ladder, None)
    said = Cascade.replay(plan, ladder.profile, ladder.profile.rows)
    live = [system.answer(query) for query in ladder.queries]
    far = ~said.borderline
    assert far.sum() > 0.9 * N
    assert (np.array([a.label for a in live]) == said.labels)[far].all()
    assert (np.array([a.level for a in live]) == said.levels)[far].all()


def test_both_ends_of_the_threshold_are_the_single_models(ladder):
    for tau, name in ((0.0, "small"), (2.0, "large")):
        point = pair(tau, ensemble="large")
        labels = Cascade.replay(as_plan(fold(point)), ladder.profile, ladder.profile.rows).labels
        assert (labels == ladder.profile.models[name].logits.argmax(1)).all()


def test_a_searched_plan_serves_as_it_predicts(ladder):
    target = Target.of(ladder.profile, "relative", None, 0.05, 0.5, 0)
    found = search(ladder.profile, target, read_file("method", "tabi", alphas=[0.0, 0.5]))
    system = Cascade.deploy(as_plan(found), ladder.zoo, ladder, None)
    said = np.array([system.answer(query).label for query in ladder.queries])
    assert (said == ladder.profile.labels).mean() == pytest.approx(found.predicted["score"], abs=2 / N)


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_small_model_that_fails_is_rerouted_and_counted(ladder, fault):
    query = ladder.queries[0]
    getattr(ladder.models["small"], fault).add(query.texts)
    answer = Cascade.deploy(as_plan(fold(pair(0.0))), ladder.zoo, ladder, None).answer(query)
    assert (answer.level, answer.failures) == (1, 1)
    assert answer.label == ladder.profile.models["large"].logits[0].argmax()


def test_a_large_model_that_fails_leaves_the_small_ones_answer(ladder):
    query = ladder.queries[0]
    ladder.models["large"].raises.add(query.texts)
    answer = Cascade.deploy(as_plan(fold(pair(2.0))), ladder.zoo, ladder, None).answer(query)
    assert (answer.level, answer.failures) == (0, 1)
    assert answer.label == ladder.profile.models["small"].logits[0].argmax()


def test_no_answer_when_every_level_failed(ladder):
    query = ladder.queries[0]
    for model in ladder.models.values():
        model.nan.add(query.texts)
    with pytest.raises(NoAnswer, match="query 0: none of small, large"):
        Cascade.deploy(as_plan(fold(pair(0.5))), ladder.zoo, ladder, None).answer(query)


def test_a_query_that_no_fold_serves_is_refused(ladder):
    served = replace(fold(pair(0.5)), serves=[1, 2])
    with pytest.raises(PlanError, match="no fold of this plan serves query 0"):
        Cascade.deploy(as_plan(served), ladder.zoo, ladder, None).answer(ladder.queries[0])


def test_importance_is_read_only_where_a_later_level_prunes_by_it(ladder):
    Cascade.deploy(as_plan(fold(pair(0.5, 0.0))), ladder.zoo, ladder, None)
    assert all(importance is None for _, importance, _ in ladder.loaded)
    Cascade.deploy(as_plan(fold(pair(0.5, 0.4))), ladder.zoo, ladder, None)
    assert ("small", "last", False) in ladder.loaded


class Counted:
    """An encoder that counts its calls."""

    def __init__(self, encode):
        self.encode, self.calls = encode, []

    def __call__(self, texts):
        self.calls.append(texts)
        return self.encode(texts)


@pytest.mark.parametrize("name, calls", [("always", 2), ("full text", 1), ("three levels", 1)])
def test_levels_with_one_tokenizer_read_the_same_pieces_unless_words_were_pruned(ladder, name, calls):
    point = replace(POINTS[name], taus=[2.0] * len(POINTS[name].taus))
    if name != "always":
        point = replace(point, alphas=[0.0] * len(point.alphas))
    encode = Counted(ladder.models["small"].encode)
    for model in ladder.models.values():
        model.encode = encode
    query = next(query for query in ladder.queries if len(query.texts[0].split()) > 6)
    answer = Cascade.deploy(as_plan(fold(point)), ladder.zoo, ladder, None).answer(query)
    assert answer.level == len(point.models) - 1
    assert len(encode.calls) == calls


def test_a_verdict_of_the_device_is_taken_for_the_first_level_alone(ladder):
    """Its confidence decides; the ensemble of a re-routed query is worked out from probabilities."""
    system = Cascade.deploy(as_plan(fold(pair(0.7))), ladder.zoo, ladder, None)
    serving, probabilities = system._other, np.array([0.2, 0.8])
    sure = Output(np.zeros(2), probabilities=probabilities, verdict=(1, 0.8))
    first = Reading(0, None, None, sure)
    assert serving.verdict([first], 0) == (1, 0.8)
    label, _ = serving.verdict([first, Reading(1, None, None, replace_verdict(sure, [0.9, 0.1]))], 0)
    assert label == 0
    margin = Cascade.deploy(as_plan(fold(pair(0.7, confidence="margin"))), ladder.zoo, ladder, None)._other
    assert margin.verdict([first], 0) == (1, pytest.approx(0.6))


def replace_verdict(output: Output, probabilities: list[float]) -> Output:
    return Output(output.logits, probabilities=np.array(probabilities), verdict=(0, max(probabilities)))
