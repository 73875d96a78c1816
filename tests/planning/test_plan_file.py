"""Plans as artefacts: saved, loaded, refused for anything else than what they were made for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tabi_bench.fingerprint import check_plan

from tabi_bench.experiment import run_session
from tabi_bench.summary import where
from tabi_bench.system import FoldPlan, Plan, PlanError

MADE_FOR = {"data": "d1", "models": {"a": "m1", "b": "m2"}, "tokenizers": {"a": "t"}, "engine": {"name": "eager"}}


def plan() -> Plan:
    folds = [FoldPlan([0, 1], [2, 3], 0.9, {"model": "a"}), FoldPlan([2, 3], [0, 1], 0.8, {"model": "b"})]
    return Plan("tabi", "sst2", folds, 0, copy.deepcopy(MADE_FOR))


def test_round_trip(tmp_path):
    plan().save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"method": "tabi"}', '{"folds": [{"cut": 1}]}'])
def test_a_damaged_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=r"plan\.json is no plan, or a damaged one"):
        Plan.load(tmp_path / "plan.json")


def test_each_row_is_served_by_its_fold():
    assert plan().fold_of(np.array([3, 0, 2])).tolist() == [0, 1, 0]
    with pytest.raises(PlanError, match="row 9"):
        plan().fold_of(np.array([9]))


def test_a_plan_that_fits_is_taken_even_when_the_zoo_has_grown():
    now = copy.deepcopy(MADE_FOR)
    now["models"]["c"] = "m3"
    check_plan(plan(), "sst2", "tabi", now)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("data",), "d2", "other data"),
        (("models", "b"), "m9", "models.b was m2, is m9"),
        (("tokenizers", "a"), "t9", "other tokenizers"),
        (("engine", "name"), "graph", "engine.name was eager, is graph"),
    ],
)
def test_a_plan_for_something_else_is_refused_with_the_reason(path, value, reason):
    now = copy.deepcopy(MADE_FOR)
    inner = now
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(PlanError, match=reason):
        check_plan(plan(), "sst2", "tabi", now)


def test_another_method_or_task_is_refused():
    with pytest.raises(PlanError, match="method 'tabi', not 'infaas'"):
        check_plan(plan(), "sst2", "infaas", MADE_FOR)
    with pytest.raises(PlanError, match="task 'sst2', not 'rte'"):
        check_plan(plan(), "rte", "tabi", MADE_FOR)


def test_a_verified_search_records_its_regret_and_says_it(micro):
    config = micro("task=sst2", "search.verify=true", "method.alphas=[0.0,0.5]")
    _, tabi = run_session(config)
    for fold in tabi.details["plan"]:
        assert fold["verified"]["regret_pct"] >= -1e-6
        assert fold["verified"]["passes_share"] == fold["passes"]["run"] / fold["passes"]["exhaustive"] <= 1
    assert "regret against exhaustive search" in where([tabi], config)
