"""Pruning scales: one pair at fixed thresholds, every text live and replayed, and what the trace says of it."""

from dataclasses import asdict

import numpy as np
import pytest

from baselines.pruning import PruningScales, texts
from tabi_bench.cascade.point import Point
from tabi_bench.config import read_file
from tabi_bench.planning import folds
from tabi_bench.planning.targets import Target
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import Answer, Item
from tests.cascade.ladder import as_plan, build

OPTIONS = read_file("method", "pruning_scales", alphas=[0.3, 0.9])
TEXTS = texts(OPTIONS.alphas, OPTIONS.controls)


@pytest.fixture(scope="module", params=["accuracy", "pearson"])
def planned(request):
    """A ladder and the plan, told: two folds over the halves of its rows."""
    ladder = build(n=120, outputs=1 if request.param == "pearson" else 3, metric=request.param)
    halves = np.arange(0, 120, 2), np.arange(1, 120, 2)
    made = []
    for tune, serves in zip(halves, reversed(halves), strict=True):
        view = ladder.profile.view(tune)
        fold = PruningScales.plan(view, Target.of(view, "relative", None, 0.02, 0.0), OPTIONS)
        fold.serves = serves.tolist()
        made.append(fold)
    plan = as_plan(*made, method=PruningScales.name)
    plan.options = asdict(OPTIONS)
    return ladder, PruningScales.tell(plan, ladder.profile, {})


def deployed(ladder, plan):
    systems = folds.deploy({plan.method: PruningScales}, {plan.method: plan}, ladder, {plan.method: OPTIONS})
    return systems[plan.method]


def test_full_text_stands_first_and_once():
    assert len(TEXTS) == 7 and TEXTS[0] == {"alphas": [0.0], "pruning": "importance"}
    assert texts([0.0, 0.5], ["random"]) == [TEXTS[0], {"alphas": [0.5], "pruning": "random"}]


def test_the_plan_has_two_levels_on_full_text(planned):
    for fold in planned[1].folds:
        assert len(fold.point["models"]) == 2 and fold.point["alphas"] == [0.0]


def test_controls_drop_as_much_and_their_facts_are_those_of_a_cascade(planned):
    ladder, plan = planned
    facts = plan.options["facts"]
    by_alpha = {(fact["alpha"], fact["control"]): fact for fact in facts}
    assert by_alpha[0.0, "importance"]["words_pruned"] == by_alpha[0.0, "importance"]["difference"] == 0
    for alpha in OPTIONS.alphas:
        dropped = [by_alpha[alpha, control]["words_pruned"] for control in OPTIONS.controls]
        assert dropped == pytest.approx([dropped[0]] * 3) and dropped[0] > 0
    live = {k: np.full(120, np.nan) for k in range(len(TEXTS))}
    for system, query in zip(deployed(ladder, plan), ladder.queries, strict=True):
        for k, text in enumerate(TEXTS):
            point = Point(**(system.point.plain() | text))
            answer = ladder.cascade(point).answer(query)
            live[k][query.id] = answer.label if answer.level else np.nan
    rows = np.flatnonzero(~np.isnan(live[0]))
    assert len(rows) == facts[0]["rerouted"] >= 20
    if ladder.profile.metric == "accuracy":
        right = [(live[k][rows] == ladder.profile.labels[rows]).mean() for k in range(len(TEXTS))]
        assert [fact["score"] for fact in facts] == pytest.approx(right)


@pytest.mark.parametrize("batch", [1, 8])
def test_every_text_of_a_rerouted_query_is_read_and_timed(planned, batch):
    ladder, plan = planned
    systems, large = deployed(ladder, plan), ladder.models["large"].calls
    answers: list[Answer] = []
    large.clear()
    for start in range(0, 120, batch):
        queries = ladder.queries[start : start + batch]
        if batch == 1:
            answers.append(systems[start].answer(queries[0]))
            continue
        for system, items in by_system(systems, queries):
            results = system.run(0, items)
            sent = [one for one in results if isinstance(one, Item)]
            answers += [one for one in results if not isinstance(one, Item)]
            answers += system.run(1, sent) if sent else []
    sent_on = [answer for answer in answers if answer.level > 0]
    expected = {f"{part}{k}" for part in ("large", "other") for k in range(len(TEXTS))}
    assert len(answers) == 120 and len(sent_on) == plan.options["facts"][0]["rerouted"]
    assert all(expected <= set(answer.stages_ns) for answer in sent_on)
    read = {texts for texts, _ in large}
    assert len(read) > len(sent_on), "texts of several lengths"


def by_system(systems, queries):
    """(system, its items) of a batch whose queries are of two folds."""
    for system in dict.fromkeys(systems[query.id] for query in queries):
        yield system, [Item(query) for query in queries if systems[query.id] is system]


def test_times_stand_beside_full_text_with_their_intervals(planned):
    _, plan = planned
    answers = [Answer(0, k % 2, stages_ns={}) for k in range(120)]
    for answer in answers[1::2]:
        for k in range(len(TEXTS)):
            answer.stages_ns |= {f"large{k}": 4_000_000 if k else 8_000_000, f"other{k}": 2_000_000}
    trace = trace_of([Served(k // 10, k, 1, np.nan, answer) for k, answer in enumerate(answers)])
    full, *pruned = PruningScales.describe(plan, trace)["variants"]
    assert full["ms"] == pytest.approx(10) and full["faster_pct"] == 0
    for fact in pruned:
        assert fact["ms"] == pytest.approx(6) and fact["large_faster_pct"] == pytest.approx(50)
        assert fact["faster_pct_low"] <= fact["faster_pct"] <= fact["faster_pct_high"]
        assert fact["faster_pct"] == pytest.approx(40)
