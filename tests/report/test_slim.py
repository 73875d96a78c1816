"""The copy of a results folder that is committed: the report makes the same of it, in less space."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from report_samples import record, write, write_under_load

from tabi_bench.report.cells import Table
from tabi_bench.report.reading import read
from tabi_bench.report.slim import coarse, main, slim
from tabi_bench.report.tables import Tables


def built(root) -> dict[str, Table]:
    results = read(root)
    (setting,) = results.settings()
    return Tables(results, setting).build()


@pytest.fixture
def whole(results):
    """The main table, again at the plain rule, and sessions of other presets."""
    write_under_load(results)
    details = {"footprint": {"models": 2, "load_s": 1.25, "weights_mb": 480.0}}
    for method in ("infaas", "tabi"):
        write(results, record(method, "d", margin_se=0.0, run_id=f"sst2-{method}-d", details=details))
    write(results, *(record(m, "e", label="ablation") for m in ("infaas", "tabi")))
    return results


def test_every_table_reads_the_same(whole, tmp_path_factory):
    out = tmp_path_factory.mktemp("slim") / "copy"
    slim(whole, out)
    before, after = built(whole), built(out)
    assert set(before) == set(after) and {"main", "ablation", "tail", "break_even", "calibration"} <= set(after)
    assert {"load", "offline", "footprint"} <= set(after)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table.text(), after[name].text())
        assert table.notes == after[name].notes and table.provenance == after[name].provenance


def test_what_is_kept(whole, tmp_path_factory):
    out = tmp_path_factory.mktemp("slim") / "copy"
    size = slim(whole, out)
    assert size == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert len(list(out.rglob("record.json"))) == len(list(whole.rglob("record.json")))
    assert sorted(p.stem for p in out.rglob("*.npz")) == ["a", "b"], "one profile per task"
    traced = pd.read_parquet(out / "main_table" / "sst2-tabi-a" / "trace.parquet")
    assert list(traced) == ["position", "row", "block", "latency_ms"] and traced.latency_ms.dtype == np.float32
    assert not (out / "main_table" / "sst2-cocktail-a" / "plan.json").exists()
    assert not list((out / "ablation").rglob("trace.parquet"))


def test_a_second_seed_keeps_its_numbers_without_its_traces(results, tmp_path_factory):
    write(results, *(record(m, "s", seed=1, run_id=f"sst2-{m}-s") for m in ("infaas", "tabi")))
    out = tmp_path_factory.mktemp("slim") / "copy"
    slim(results, out)
    traced = {path.parent.name for path in out.rglob("trace.parquet")}
    assert "sst2-tabi-a" in traced and not traced & {"sst2-infaas-s", "sst2-tabi-s"}
    assert (results / "main_table/sst2-tabi-s/trace.parquet").exists()
    before, after = built(results), built(out)
    assert set(before) == set(after) and "seeds" in after
    for name, table in before.items():
        pd.testing.assert_frame_equal(table.text(), after[name].text())


def test_details_that_no_table_reads_are_left_out(results, tmp_path_factory):
    details = {"small_level": {"ece": 0.1}, "plain_rule": {"score": 0.987654321}}
    write(results, record("tabi", "f", label="ablation", details=details))
    out = tmp_path_factory.mktemp("slim") / "copy"
    slim(results, out)
    kept = json.loads((out / "ablation/sst2-tabi-f/record.json").read_text())["details"]
    assert kept == {"plain_rule": {"score": 0.9876543}}


def test_no_path_of_the_machine_that_measured_is_kept(results, tmp_path_factory):
    odd = record("tabi", "p", label="ablation", error="no room in '/home/me/out', see https://example.org/a/b")
    odd.config |= {"results_dir": "/home/me/out", "cache_dir": "~/.cache/tabi-bench", "hub": "nyu-mll/glue"}
    odd.provenance["command"] = "run.py source.dir=/data/me/real zoo.paths=[/data/me/a,/data/b] x=1 / 2"
    write(results, odd)
    out = tmp_path_factory.mktemp("slim") / "copy"
    slim(results, out)
    kept = json.loads((out / "ablation/sst2-tabi-p/record.json").read_text())
    assert kept["error"] == "no room in 'out', see https://example.org/a/b"
    places = [kept["config"][key] for key in ("results_dir", "cache_dir", "hub")]
    assert places == ["out", "~/.cache/tabi-bench", "nyu-mll/glue"]
    assert kept["provenance"]["command"] == "run.py source.dir=real zoo.paths=[a,b] x=1 / 2"


def test_nothing_is_overwritten_or_left_out_in_silence(whole, tmp_path, tmp_path_factory):
    full = tmp_path_factory.mktemp("full")
    (full / "mine").write_text("x")
    with pytest.raises(SystemExit, match="not empty"):
        main([str(whole), str(full)])
    (whole / "main_table" / "sst2-tabi-a" / "record.json").write_text("{")
    with pytest.raises(ValueError, match="sst2-tabi-a"):
        slim(whole, tmp_path / "other")


def test_logits_of_many_labels_lose_hardly_anything():
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal((500, 150))).astype(np.float16)
    exact, kept = logits.astype(np.float64), coarse(logits).astype(np.float64)
    shares = [np.exp(a - a.max(1, keepdims=True)) for a in (exact, kept)]
    exact, kept = (share.max(1) / share.sum(1) for share in shares)
    assert np.abs(exact - kept).max() < 0.01 and len(np.unique(coarse(logits))) < len(np.unique(logits)) / 4
    few = logits[:, :32]
    assert coarse(few) is few
