"""The cascade online: live answers are the replayed ones, one by one and in batches; a failed level never answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import read_file
from tabi_bench.engines.base import Output
from tabi_bench.planning.search import search
from tabi_bench.planning.targets import Target
from tabi_bench.system import Answer, Item, NoAnswer
from tests.cascade.ladder import Counted, Ladder, build

N, SEED = 160, 2


@pytest.fixture
def ladder():
    return build(N, seed=SEED)


def pair(tau: float, alpha: float = 0.0, **changes) -> Point:
    return replace(
        Point(["small", "large"], [1.0, 1.0], [0.6, 0.9], [tau], [alpha], ensemble="weighted", seed=SEED), **changes
    )


POINTS = {
    "one level": Point.of_one("medium"),
    "full text": pair(0.7),
    "pruned": pair(0.7, 0.6),
    "never": pair(0.0),
    "always": pair(2.0, 0.9),
    "sigmoid": pair(0.7, 0.6, dispatcher="sigmoid"),
    "table": pair(0.5, dispatcher="table", reroute=list(range(0, N, 3))),
    "random words": pair(0.7, 0.6, pruning="random"),
    "three levels": Point(
        ["small", "medium", "large"], [1.2, 0.9, 1.0], [0.6, 0.8, 0.9], [0.7, 0.8], [0.0, 0.7], ensemble="log_odds"
    ),
    "second level pruned": Point(
        ["small", "medium", "large"], [1.2, 0.9, 1.0], [0.6, 0.8, 0.9], [0.7, 0.75], [0.7, 0.7], ensemble="weighted"
    ),
}
LEVELS = {"one level": 1, "three levels": 3, "second level pruned": 3}


def in_batches(system: Cascade, ladder: Ladder, size: int) -> list[Answer]:
    """Answers of all queries in order: the load generator's loop, waiting items regrouped by stage."""
    waiting: dict[int, list[tuple[int, Item]]] = {0: [(k, Item(q)) for k, q in enumerate(ladder.queries)]}
    answers: dict[int, Answer] = {}
    while waiting:
        stage = min(waiting)
        batch, others = waiting[stage][:size], waiting.pop(stage)[size:]
        if others:
            waiting[stage] = others
        for (k, item), result in zip(batch, system.run(stage, [item for _, item in batch]), strict=True):
            if isinstance(result, Item):
                assert result is item and result.stage == stage + 1
                waiting.setdefault(result.stage, []).append((k, item))
            else:
                answers[k] = result
    return [answers[k] for k in range(len(ladder.queries))]


def without_times(answers: list[Answer]) -> list[tuple]:
    return [(a.label, a.level, a.words, a.words_kept, a.failures, a.truncated) for a in answers]


# --- live and replayed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POINTS)
def test_live_answers_are_the_replayed_ones(ladder, name):
    system = ladder.cascade(POINTS[name])
    replayed = Cascade.replay(POINTS[name].plain(), ladder.profile, ladder.profile.rows)
    live = [system.answer(query) for query in ladder.queries]
    far = ~replayed.borderline
    assert far.sum() > 0.9 * N and system.stages == LEVELS.get(name, 2)
    assert (np.array([a.label for a in live]) == replayed.labels)[far].all()
    assert (np.array([a.level for a in live]) == replayed.levels)[far].all()
    if name not in ("one level", "never", "always"):
        assert len(set(replayed.levels)) == system.stages, "the case shows nothing unless every level answers some"


@pytest.mark.parametrize("size", [2, 7, N])
@pytest.mark.parametrize("name", POINTS)
def test_batches_answer_as_one_by_one(ladder, name, size):
    system = ladder.cascade(POINTS[name])
    alone = [system.answer(query) for query in ladder.queries]
    assert without_times(in_batches(system, ladder, size)) == without_times(alone)
    first = ladder.models[POINTS[name].models[0]]
    assert max(first.batches) == size and sum(first.batches) == N, "the first level was asked in batches"


def test_live_answers_of_scores_are_the_replayed_ones():
    ladder = build(N, outputs=1, metric="pearson", seed=SEED)
    target = Target.of(ladder.profile, "relative", None, 0.05, 0.0, 0)
    options = read_file("method", "tabi", alphas=[0.5], ensembles=["weighted"], fewer_levels=False)
    point = Point(**search(ladder.profile, target, options).point)
    assert len(point.agreement) == 1
    replayed = Cascade.replay(point.plain(), ladder.profile, ladder.profile.rows)
    system = ladder.cascade(point)
    for answers in ([system.answer(query) for query in ladder.queries], in_batches(system, ladder, 16)):
        far = ~replayed.borderline
        assert np.array([a.label for a in answers])[far] == pytest.approx(replayed.labels[far])
        assert (np.array([a.level for a in answers]) == replayed.levels)[far].all()
    assert all(pooled for _, _, pooled, _ in ladder.loaded)


def test_a_searched_plan_serves_as_it_predicts(ladder):
    target = Target.of(ladder.profile, "relative", None, 0.05, 0.5, 0)
    planned = search(ladder.profile, target, read_file("method", "tabi", alphas=[0.0, 0.5]))
    system = ladder.cascade(Point(**planned.point))
    answers = np.array([system.answer(query).label for query in ladder.queries])
    assert (answers == ladder.profile.labels).mean() == pytest.approx(planned.predicted["score"], abs=2 / N)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_small_model_that_fails_is_rerouted_and_counted(ladder, fault):
    query = ladder.queries[0]
    getattr(ladder.models["small"], fault).add(query.texts)
    answer = ladder.cascade(pair(0.0)).answer(query)
    assert (answer.level, answer.failures) == (1, 1)
    assert answer.label == ladder.profile.models["large"].logits[0].argmax()


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_large_model_that_fails_leaves_the_small_ones_answer(ladder, fault):
    query = ladder.queries[0]
    getattr(ladder.models["large"], fault).add(query.texts)
    answer = ladder.cascade(pair(2.0)).answer(query)
    assert (answer.level, answer.failures) == (0, 1)
    assert answer.label == ladder.profile.models["small"].logits[0].argmax()


def test_no_answer_when_every_level_failed(ladder):
    query = ladder.queries[0]
    for model in ladder.models.values():
        model.nan.add(query.texts)
    for point, names in ((pair(0.5), "small, large"), (Point.of_one("small"), "small")):
        with pytest.raises(NoAnswer, match=f"query 0: none of {names} gave a finite output"):
            ladder.cascade(point).answer(query)


FAULTS = {
    "a small model raises": {("small", "raises"): [3, 4, 40]},
    "a small model is not finite": {("small", "nan"): [3, 4, 40]},
    "a large model raises": {("large", "raises"): [0, 5, 6]},
    "both, on different queries": {("small", "raises"): [3], ("large", "nan"): [5, 6], ("medium", "raises"): [7, 8]},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", ["full text", "always", "three levels", "second level pruned"])
def test_one_query_that_fails_in_a_batch_changes_no_other_answer(ladder, name, faults):
    """`forward_batch` raises as a whole where one text does: its queries are then asked one by one."""
    sound = without_times(in_batches(ladder.cascade(POINTS[name]), ladder, 8))
    failing = {row for rows in faults.values() for row in rows}
    for (model, fault), rows in faults.items():
        getattr(ladder.models[model], fault).update(ladder.queries[row].texts for row in rows)
    system = ladder.cascade(POINTS[name])
    alone, together = [system.answer(query) for query in ladder.queries], in_batches(system, ladder, 8)
    assert without_times(together) == without_times(alone)
    assert [a for row, a in enumerate(without_times(together)) if row not in failing] == [
        a for row, a in enumerate(sound) if row not in failing
    ]
    small = [row for (model, _), rows in faults.items() if model == "small" for row in rows]
    assert all(together[row].failures == 1 and together[row].level > 0 for row in small)
    assert sum(answer.failures for answer in together) >= len(small)


def test_a_cascade_that_changes_run_alone_is_begun_by_it(ladder):
    class Counting(Cascade):
        name = "counting"

        def run(self, stage, items):
            self.ran = len(items)
            return super().run(stage, items)

    system = Counting.of(POINTS["full text"], lambda name, **_: ladder.models[name])
    items = [Item(query) for query in ladder.queries[:5]]
    system.begin(0, items).result()
    assert system.ran == 5


def test_a_batch_that_the_engine_refuses_is_asked_one_by_one(ladder, caplog):
    def refuse(encodings, want_importance=False):
        raise MemoryError("no room for so many")

    expected = without_times(in_batches(ladder.cascade(pair(0.7, 0.6)), ladder, 8))
    ladder.models["large"].forward_batch = refuse
    answers = in_batches(ladder.cascade(pair(0.7, 0.6)), ladder, 8)
    assert without_times(answers) == expected and not any(answer.failures for answer in answers)
    assert caplog.text.count("large failed (no room for so many)") == 1, "it is said once"


def test_an_encoder_that_fails_on_a_text_of_a_batch_reroutes_it(ladder):
    encode = ladder.models["small"].encode

    def strict(texts):
        if texts == ladder.queries[2].texts:
            raise UnicodeError("no such character")
        return encode(texts)

    ladder.models["small"].encode = strict
    system = ladder.cascade(pair(0.0))
    results = system.run(0, [Item(query) for query in ladder.queries[:5]])
    assert [isinstance(result, Item) for result in results] == [False, False, True, False, False]
    answer = system.run(1, [results[2]])[0]
    assert (answer.level, answer.failures) == (1, 1)
    assert without_times([answer]) == without_times([system.answer(ladder.queries[2])])


def test_a_batch_without_a_text_that_can_be_read_is_not_run(ladder, caplog):
    def strict(texts):
        raise UnicodeError("no such character")

    ladder.models["small"].encode = strict
    results = ladder.cascade(pair(0.0)).begin(0, [Item(ladder.queries[0])]).result()
    assert [result.stage for result in results] == [1] and results[0].so_far.failures == 1
    assert not ladder.models["small"].batches, "an engine cannot pad nothing, and would be blamed for it"


def test_a_truncated_text_is_counted_even_where_its_output_is_not_finite(ladder):
    encode, query = ladder.models["small"].encode, ladder.queries[0]
    ladder.models["small"].encode = lambda texts: replace(encode(texts), truncated=True)
    ladder.models["small"].nan.add(query.texts)
    assert ladder.cascade(pair(0.5)).answer(query).truncated
    assert not ladder.cascade(Point.of_one("large")).answer(query).truncated


# --- what an item carries ---------------------------------------------------------------------------------------------


def test_the_stages_of_one_query(ladder):
    pruned = ladder.cascade(pair(2.0, 0.9)).answer(next(q for q in ladder.queries if len(q.texts[0].split()) > 8))
    assert set(pruned.stages_ns) == {"tokenise", "level1", "prune", "level2", "decide"}
    assert min(pruned.stages_ns.values()) >= 0 and pruned.words_kept < pruned.words
    early = ladder.cascade(pair(0.0, 0.9)).answer(ladder.queries[1])
    assert set(early.stages_ns) == {"tokenise", "level1", "decide"} and early.words == early.words_kept == 0


def test_a_pruned_text_that_cannot_be_encoded_leaves_no_negative_stage(ladder):
    encode, query = ladder.models["large"].encode, next(q for q in ladder.queries if len(q.texts[0].split()) > 8)

    def strict(texts):
        if texts != query.texts:
            raise UnicodeError("no such character")
        return encode(texts)

    ladder.models["large"].encode = strict
    answer = ladder.cascade(pair(2.0, 0.9)).answer(query)
    assert (answer.level, answer.failures) == (0, 1) and min(answer.stages_ns.values()) >= 0


def test_a_batch_shares_its_time_among_its_queries(ladder):
    system = ladder.cascade(pair(2.0, 0.9))
    items = system.run(0, [Item(query) for query in ladder.queries[:8]])
    assert len({tuple(item.so_far.stages_ns.items()) for item in items}) == 1
    assert [item.stage for item in items] == [1] * 8 and all(len(item.read) == 1 for item in items)
    before = dict(items[0].so_far.stages_ns)
    answers = system.run(1, items)
    for answer in answers:
        assert answer.stages_ns == answers[0].stages_ns and min(answer.stages_ns.values()) >= 0
        assert set(answer.stages_ns) == {"tokenise", "level1", "prune", "level2", "decide"}
        assert answer.stages_ns["level1"] == before["level1"]
        assert answer.stages_ns["decide"] >= before["decide"]
    assert all(answer is item.so_far for answer, item in zip(answers, items, strict=True))


# --- models and encoders ----------------------------------------------------------------------------------------------


def test_importance_is_read_only_where_a_later_level_prunes_by_it(ladder):
    ladder.cascade(pair(0.5, 0.0))
    assert all(importance is None for _, importance, _, _ in ladder.loaded)
    ladder.cascade(pair(0.5, 0.4))
    assert ladder.loaded[-2:] == [("small", "last", False, ""), ("large", None, False, "")]


@pytest.mark.parametrize("name, calls", [("always", 2), ("full text", 1), ("three levels", 1)])
def test_levels_with_one_tokenizer_read_the_same_tokens_unless_words_were_pruned(ladder, name, calls):
    point = replace(POINTS[name], taus=[2.0] * len(POINTS[name].taus))
    if name != "always":
        point = replace(point, alphas=[0.0] * len(point.alphas))
    encode = Counted(ladder.models["small"].encode)
    for model in ladder.models.values():
        model.encode = encode
    query = next(query for query in ladder.queries if len(query.texts[0].split()) > 6)
    answer = ladder.cascade(point).answer(query)
    assert answer.level == len(point.models) - 1
    assert len(encode.calls) == calls


class Device:
    """A model of fixed outputs, worked out on the device: probabilities and a verdict."""

    def __init__(self, probabilities: list[float], verdict: tuple[int, float]) -> None:
        self.probabilities, self.verdict = np.array(probabilities), verdict

    def encode(self, texts):
        return build(1).models["small"].encode(texts)

    def set_temperature(self, temperature):
        self.temperature = temperature

    def forward(self, encoding, want_importance=False):
        return Output(np.zeros(2), probabilities=self.probabilities, verdict=self.verdict)


def test_a_verdict_of_the_device_is_taken_for_the_first_level_alone(ladder):
    """Its confidence decides; the ensemble of a re-routed query is worked out from probabilities."""
    query, large = ladder.queries[0], Device([0.9, 0.1], (1, 0.9))
    small = Device([0.2, 0.8], (1, 0.8))
    early = Cascade(pair(0.7), [small, large]).answer(query)
    assert (early.label, early.level) == (1, 0)
    late = Cascade(pair(0.85), [small, large]).answer(query)
    assert (late.label, late.level) == (0, 1)  # (.6 x .2 + .9 x .9) / 1.5 = .62 for label 0
    margin = Cascade(pair(0.7, confidence="margin"), [small, large]).answer(query)
    assert margin.level == 1  # .8 - .2 = .6, whatever the verdict's .8
    assert Cascade(Point.of_one("small"), [large]).answer(query).label == 1


def test_each_level_runs_at_its_own_temperature():
    models = [Device([0.2, 0.8], (1, 0.8)) for _ in range(2)]
    Cascade(pair(0.5, temperatures=[1.5, 0.75]), models)
    assert [model.temperature for model in models] == [1.5, 0.75]
