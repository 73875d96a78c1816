"""End to end on a micro zoo: from rows to records, resuming, live against replayed answers, the reference twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabi_bench.engines.eager import EagerEngine
from tabi_bench.evaluation.statistics import latency_reduction
from tabi_bench.experiment import run_session
from tabi_bench.planning import folds
from tabi_bench.summary import heading


@pytest.mark.parametrize("task", ["sst2", "rte", "stsb"])
def test_a_session_measures_both_systems_side_by_side(micro, task):
    config = micro(f"task={task}", "method=tabi")
    infaas, tabi = run_session(config)
    assert (infaas.method, tabi.method) == ("infaas", "tabi")
    assert infaas.session_id == tabi.session_id and infaas.status == tabi.status == "ok"
    assert infaas.target == tabi.target and tabi.outcome in ("met", "within noise", "missed")
    assert sum(tabi.shares) == pytest.approx(1)
    for record in (infaas, tabi):
        assert record.details["replay"]["unexplained"] == 0
        assert record.details["replay"]["compared"] == 120
        folder = Path(config.results_dir) / "adhoc" / record.run_id
        trace = pd.read_parquet(folder / "trace.parquet")
        assert len(trace) == 120 and trace.latency_ms.mean() == pytest.approx(record.latency_ms["mean"])
        assert json.loads((folder / "plan.json").read_text())["method"] == record.method
    assert tabi.reference["method"] == "infaas"


def test_a_finished_session_is_not_measured_again(micro):
    first = run_session(micro("task=sst2"))
    again = run_session(micro("task=sst2"))
    assert [r.session_id for r in again] == [r.session_id for r in first]
    anew = run_session(micro("task=sst2", "overwrite=true"))
    assert anew[0].run_id == first[0].run_id
    assert anew[0].latency_ms["mean"] != first[0].latency_ms["mean"]  # times of their own


def test_what_was_prepared_is_measured_without_running_models_for_it(micro, monkeypatch, tmp_path):
    fresh = ["task=cola", f"cache_dir={tmp_path}/cache"]
    assert run_session(micro(*fresh, "prepare=true")) == []
    assert not list(Path(tmp_path).rglob("record.json")) and list((tmp_path / "cache" / "outputs").iterdir())
    ran = []
    monkeypatch.setattr("tabi_bench.profiling.lab._run", lambda *_: ran.append(1))
    assert {record.status for record in run_session(micro(*fresh))} == {"ok"} and not ran


# --- the reference a second time --------------------------------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch):
    """(model, instance) of every load, in order."""
    seen, load = [], EagerEngine.load

    def noted(engine, spec, *, importance=None, pooled=False, instance=""):
        seen.append((spec.name, instance))
        return load(engine, spec, importance=importance, pooled=pooled, instance=instance)

    monkeypatch.setattr(EagerEngine, "load", noted)
    return seen


def test_the_reference_again_is_measured_on_models_of_its_own(micro, loads):
    config = micro("task=sst2", "compare=[infaas,tabi,reference_again]", "scenario.block=12")
    infaas, tabi, again = run_session(config)
    assert [r.method for r in (infaas, tabi, again)] == ["infaas", "tabi", "reference_again"]
    assert again.config["method"]["name"] == "infaas" and again.run_id.split("-")[1] == "reference_again"
    reference = again.reference
    assert reference["method"] == "infaas" and reference["same_plan"] is True
    assert reference["reduction_low"] < reference["reduction_pct"] < reference["reduction_high"]
    assert reference["accuracy_difference"]["value"] == 0 and again.accuracy == infaas.accuracy
    own = {name for name, instance in loads if instance == "again"}
    assert own and own == {name for fold in again.details["system"]["folds"] for name in fold["models"]}
    traces = [pd.read_parquet(Path(config.results_dir) / "adhoc" / r.run_id / "trace.parquet") for r in (infaas, again)]
    assert (traces[0].row == traces[1].row).all() and (traces[0].latency_ms != traces[1].latency_ms).any()
    expected = latency_reduction(*(t.latency_ms.to_numpy() for t in reversed(traces)), traces[0].block.to_numpy())
    assert reference["reduction_pct"] == pytest.approx(expected.value)
    sizes = {model["name"]: 4e-6 * model["params"] for model in infaas.details["zoo"]["models"]}  # float32
    for record in (infaas, tabi):
        used = {name for fold in record.details["system"]["folds"] for name in fold["models"]}
        assert record.details["footprint"]["models"] == len(used) and record.details["footprint"]["load_s"] > 0
        assert record.details["footprint"]["weights_mb"] == pytest.approx(sum(sizes[name] for name in used), rel=0.02)


def test_systems_with_the_same_point_share_one_and_nobody_else_does(micro, monkeypatch):
    """`single` with INFaaS's choice is INFaaS; served by one object, their difference is the clock's alone."""
    served, deploy = {}, folds.deploy

    def kept(*arguments):
        served.update(deploy(*arguments))
        return served

    monkeypatch.setattr(folds, "deploy", kept)
    compare = "compare=[infaas,single,tabi,reference_again]"
    config = micro("task=sst2", compare, "systems.single.model=-1", "systems.tabi.levels=1", "target.slack=0")
    infaas, single, tabi, _ = run_session(config)
    for name, record in (("single", single), ("tabi", tabi)):
        same = np.array([a is b for a, b in zip(served[name], served["infaas"], strict=True)])
        assert same.all() == record.reference["same_plan"]
    assert infaas.reference["same_plan"] and tabi.reference["same_plan"], "one level is one model, whoever plans it"
    assert not any(a is b for a, b in zip(served["reference_again"], served["infaas"], strict=True))


# --- what speaks against the numbers ----------------------------------------------------------------------------------


def test_a_zoo_that_is_no_better_than_a_constant_is_said_above_the_table(micro, monkeypatch):
    def guesses(queries, name, variants, importance):
        return {
            "logits": np.tile(np.array([[1.0, 0.0]], np.float32), (len(queries), 1)),
            "tokens": np.full(len(queries), 8),
            "truncated": np.zeros(len(queries), bool),
        }

    monkeypatch.setattr("tabi_bench.profiling.lab._run", guesses)
    config = micro("task=sst2", "method.alphas=[0.0]", "source.validation_rows=118")
    records = run_session(config)
    (warning,) = {line for record in records for line in record.warnings}
    assert warning.startswith("No model beats the most frequent label on every row (accuracy 0.")
    lines = heading(records).splitlines()
    assert f"Warning: {warning}" in lines and sum(warning in line for line in lines) == 1
    contradicted = [line for line in lines if "live answers contradict the profile" in line]
    assert len(contradicted) == 2 and contradicted[0].startswith("Warning: INFaaS: ")
    stored = json.loads(next(Path(config.results_dir).rglob("record.json")).read_text())
    assert stored["warnings"] == [warning]


def test_a_good_session_has_no_warnings_and_a_doubtful_file_has_its_own(micro):
    records = run_session(micro("task=sst2"))
    assert [record.warnings for record in records] == [[], []] and "Warning" not in heading(records)
    doubtful = [replace(record, warnings=["12 rows of validation are also in train."]) for record in records]
    assert heading(doubtful).count("Warning: 12 rows of validation are also in train.") == 1
