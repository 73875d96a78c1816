"""End to end on a micro zoo: from rows to records, resuming, live against replayed answers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tabi_bench.experiment import run_session


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
    monkeypatch.setattr("tabi_bench.profiling.build._run", lambda *_: ran.append(1))
    assert {record.status for record in run_session(micro(*fresh))} == {"ok"} and not ran
