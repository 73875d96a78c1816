"""Reading back: records, profiles, which session stands for a cell, and that sessions are never mixed."""

from __future__ import annotations

import numpy as np
import pytest
from report_samples import record, write

from tabi_bench.report.fields import frame
from tabi_bench.report.reading import Problems, Run, Setting, newest, read, reduction, sessions


def test_round_trip(results):
    actual = read(results)
    table = frame(actual.runs).set_index(["task", "method"])
    assert len(table) == 9
    assert table.loc[("sst2", "tabi"), ["mean_ms", "reduction_pct", "returned_early"]].tolist() == [6.0, 40.0, 0.6]
    assert np.isnan(table.loc[("sst2", "infaas"), "returned_early"])
    assert table.loc[("rte", "cocktail"), "status"] == "infeasible"
    assert len(actual.settings()) == 1


def test_profile_round_trip(results):
    actual = read(results)
    run = next(r for r in actual.runs if r.record.task == "sst2")
    profile = run.profile
    assert profile.names == ["small", "middle", "large"]
    assert [m.mean_ms for m in profile.models.values()] == [2.0, 4.0, 10.0]
    assert profile.models["small"].logits.dtype == np.float32
    failed = next(r for r in actual.runs if r.record.task == "cola")
    assert failed.profile is None and failed.trace is None and failed.plan is None


def test_an_unreadable_record_is_named(results):
    broken = results / "main_table" / "broken"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    assert "main_table/broken/record.json" in read(results).problems[0]


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="run an experiment first"):
        read(tmp_path)


def test_numbers_of_different_sessions_are_never_divided(results):
    runs = {(r.record.task, r.record.method): r for r in read(results).runs}
    with pytest.raises(ValueError, match="different sessions"):
        reduction(runs["sst2", "tabi"], runs["rte", "infaas"])
    same = reduction(runs["sst2", "tabi"], runs["sst2", "cocktail"])
    assert same.value == pytest.approx(25.0)
    assert same.low <= 25.0 <= same.high


def test_the_newest_whole_session_stands_for_a_cell(tmp_path):
    later = {"dtype": "float32", "commit": "new", "time": "2026-02-01T00:00:00+00:00"}
    latest = {"dtype": "float32", "commit": "bad", "time": "2026-03-01T00:00:00+00:00"}
    write(tmp_path, record("infaas", "old"), record("tabi", "old"), profile=False)
    write(tmp_path, record("infaas", "new", provenance=later), record("tabi", "new", provenance=later), profile=False)
    failed = [record(m, "failed", provenance=latest, status="failed") for m in ("infaas", "tabi")]
    write(tmp_path, *failed, profile=False)
    actual = sessions(read(tmp_path).runs)
    assert len(actual) == 3
    (chosen,) = newest(actual)
    assert {run.record.session_id for run in chosen.values()} == {"new"}


def test_a_slug_fit_for_file_names(results):
    assert read(results).settings()[0].slug == "generated-tiny-eager-float32-some"
    gpu = Setting("local", "minilm", "graph", "float16", "NVIDIA H100 80GB HBM3")
    assert gpu.slug == "local-minilm-graph-float16-h100-80gb"
    assert isinstance(Run(record("tabi"), results, Problems(results)).setting, Setting)
