"""Files that are damaged, swapped, edited or gone, and disks that are full: noticed, and the same command goes on."""

from __future__ import annotations

import errno
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabi_bench import cache as caches
from tabi_bench.engines.base import Output
from tabi_bench.engines.eager import EagerModel
from tabi_bench.experiment import run_session
from tabi_bench.records.record import Record
from tabi_bench.system import PlanError
from tests.faults.test_fault_sessions import child
from tests.processes import ended, wait_until


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "half": half,
    "empty": lambda content: b"",
    "flipped": flipped,
    "text": lambda content: b"<html>log in</html>",
}


@pytest.fixture
def own(micro, cache, tmp_path):
    """A micro session with a cache of its own, filled by a first run; its records."""
    first = run_session(micro("task=sst2", "method.alphas=[0.0,0.5]"))
    own = shutil.copytree(cache, tmp_path / "cache")
    return lambda *more: micro("task=sst2", "method.alphas=[0.0,0.5]", f"cache_dir={own}", *more), first, own


def same(first: list[Record], again: list[Record]) -> bool:
    """The same systems with the same success; which plan is the fastest is for the clock to say."""
    return [(r.method, r.status) for r in first] == [(r.method, r.status) for r in again]


def outputs(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of the entries that are whole: a session reads its own, not those of others in the same cache."""
    files = [path for path in folder.glob("outputs/*/outputs.npz") if caches.damage(path.parent) is None]
    return {path.parent.name: dict(np.load(path)) for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file_of_the_cache_may_be_damaged(kind, own, caplog):
    session, first, folder = own
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.suffix for path in files} >= {".json", ".npz", ".safetensors"}
    before = outputs(folder)
    for path in files:
        path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert same(first, run_session(session("overwrite=true")))
    again = outputs(folder)
    assert len(set(before) & set(again)) >= len(first)
    for key in set(before) & set(again):
        assert all(np.array_equal(before[key][name], values) for name, values in again[key].items())
    assert caplog.text.count("is damaged") >= 3


def test_outputs_swapped_between_models_are_not_believed(own, caplog):
    session, first, folder = own
    before = outputs(folder)
    one, other = sorted((folder / "outputs").glob("*/outputs.npz"))[:2]
    for pair in ((one.parent, folder / "x"), (other.parent, one.parent), (folder / "x", other.parent)):
        pair[0].rename(pair[1])
    assert same(first, run_session(session("overwrite=true")))
    both = (one.parent.name, other.parent.name)
    seen = [key for key in both if f"{key} is damaged: its manifest belongs" in caplog.text]
    assert seen  # a session need not read both
    for key in seen:
        assert all(np.allclose(before[key][name], values, atol=1e-5) for name, values in outputs(folder)[key].items())


SLOWER = ("record list", "older", "trace", "no trace")


@pytest.mark.parametrize(
    "kind", ["record half", "plan", "foreign", *(pytest.param(k, marks=pytest.mark.slow) for k in SLOWER)]
)
def test_records_that_are_not_whole_are_measured_again(kind, micro, tmp_path):
    config = micro("task=sst2")
    first = run_session(config)
    folder = Path(config.results_dir) / "adhoc" / first[1].run_id
    file = folder / "record.json"
    change = {
        "record half": lambda: file.write_bytes(half(file.read_bytes())),
        "record list": lambda: file.write_text("[]"),
        "older": lambda: file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": "one"})),
        "trace": lambda: (folder / "trace.parquet").write_bytes(b"PAR1"),
        "no trace": (folder / "trace.parquet").unlink,
        "plan": lambda: (folder / "plan.json").write_text("{"),
        "foreign": lambda: shutil.copy(folder.parent / first[0].run_id / "record.json", file),
    }[kind]
    change()
    again = run_session(config)
    assert same(first, again) and again[1].wall_s != first[1].wall_s
    assert Record.load(folder).method == "tabi" and len(pd.read_parquet(folder / "trace.parquet")) >= 120


@pytest.mark.slow
def test_a_disk_that_is_full_while_overwriting_loses_nothing(micro, monkeypatch):
    config = micro("task=sst2")
    first = run_session(config)
    folders = [Path(config.results_dir) / "adhoc" / record.run_id for record in first]
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("pandas.DataFrame.to_parquet", "tabi_bench.records.record.Record.save"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(OSError, match="No space left"):
                run_session(replace(config, overwrite=True))
        assert {path: path.read_bytes() for folder in folders for path in folder.iterdir()} == before
        assert not [path for path in folders[0].parent.glob(".*") if path.is_dir()]
    assert same(first, run_session(replace(config, overwrite=True)))


def test_a_full_disk_under_the_cache_is_one_sentence_and_leaves_nothing(micro, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = micro("task=sst2", f"cache_dir={tmp_path}/small")
    with monkeypatch.context() as patch:
        patch.setattr(caches, "seal", full)
        with pytest.raises(OSError, match=r"the disk of .*/small/micro is full; make room there, or set cache_dir"):
            run_session(config)
    assert not [path for path in (tmp_path / "small" / "micro").iterdir() if path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["training", "profile", "serving"])
def test_kill_9_at_every_stage_and_the_same_command_goes_on(stage, micro, tmp_path):
    folder, says = tmp_path / "cache", tmp_path / "said"
    overrides = ["task=cola", "scenario.min_queries=20000" if stage == "serving" else "scenario.min_queries=130"]
    process = child(folder, tmp_path / "results", *overrides, says=says)
    reached = {
        "training": lambda: list(folder.glob("micro/.*")),
        "profile": lambda: list(folder.glob("outputs/*.lock")),
        "serving": lambda: says.is_file() and "serving" in says.read_text(),
    }
    wait_until(reached[stage], process)
    process.kill()
    ended(process)
    assert not list((tmp_path / "results").rglob("record.json"))
    done = run_session(micro("task=cola", f"cache_dir={folder}"))
    assert [record.status for record in done] == ["ok", "ok"]
    assert not [path for path in folder.rglob(".*") if path.is_dir()]


EDITS = {
    "nan": lambda plan: plan["folds"][0]["point"].update(taus=[float("nan")]),
    "temperature": lambda plan: plan["folds"][0]["point"].update(temperatures=[0.0, 0.0]),
    "text": lambda plan: plan["folds"][0]["point"].update(taus="high"),
    "unknown model": lambda plan: plan["folds"][0]["point"].update(models=["none", "other"]),
    "rows that are none": lambda plan: plan["folds"][0].update(serves=[10**6]),
    "tuned on what is served": lambda plan: plan["folds"][0].update(tuned_on=plan["folds"][0]["serves"]),
    "empty fingerprint": lambda plan: plan.update(fingerprint={}),
    "no folds": lambda plan: plan.update(folds=[]),
    "other keys": lambda plan: plan.update(added=1),
}


def test_plans_edited_by_hand_are_refused_in_one_sentence(micro, tmp_path):
    config = micro("task=sst2")
    _, tabi = run_session(config)
    written = (Path(config.results_dir) / "adhoc" / tabi.run_id / "plan.json").read_text()
    for kind, edit in EDITS.items():
        plan = json.loads(written)
        edit(plan)
        file = tmp_path / f"{kind}.json"
        file.write_text(json.dumps(plan))
        with pytest.raises(PlanError) as error:
            run_session(micro("task=sst2", f"plan={json.dumps(str(file))}", f"results_dir={tmp_path}/none"))
        assert str(file) in str(error.value) and "\n" not in str(error.value), kind


@pytest.mark.parametrize("model", ["micro-1x16", "micro-2x32"])
def test_a_model_that_fails_on_some_rows_is_served_or_named_never_believed(model, micro, tmp_path, monkeypatch):
    forward = EagerModel.forward

    def failing(self, encoding, want_importance=False):
        output = forward(self, encoding, want_importance)
        if self.spec.name == model and encoding.n_tokens % 7 == 0:
            output = Output(np.full_like(output.logits, np.nan), output.importance, output.pooled)
        return output

    monkeypatch.setattr(EagerModel, "forward", failing)
    config = micro("task=sst2", "search.margin_se=0", "target.slack=0", f"cache_dir={tmp_path}/cache")
    try:
        records = run_session(config)
    except PlanError as error:  # before anything is served
        named = rf"on \d+ rows that it serves none of {model} gives a finite|{model} gave outputs that are not finite"
        assert re.search(named, str(error)) and "\n" not in str(error)
        return
    assert any(f"{model} gives no finite output on" in line for record in records for line in record.warnings)
    for record in (record for record in records if record.status == "ok"):
        folder = Path(config.results_dir) / "adhoc" / record.run_id
        trace, plan = pd.read_parquet(folder / "trace.parquet"), json.loads((folder / "plan.json").read_text())
        assert len(trace) >= 120 and record.details["replay"]["unexplained"] == 0
        assert [model] not in [fold["point"]["models"] for fold in plan["folds"]]


def test_hostile_names_of_labels_files_and_folders(micro, tmp_path):
    folder = tmp_path / "a <b> & $x^2$ 'naïve' {dir}, 東京"
    folder.mkdir()
    rows = [
        {"text": ("dull boring", "bright joy")[k % 2] + f" {k}", "label": ("<b>&", "$x^2$ _%")[k % 2]}
        for k in range(160)
    ]
    for split in ("train", "validation"):
        pd.DataFrame(rows).to_csv(folder / f"{split}.csv", index=False)
    given = ["task=custom", "source=local", "task.name='naïve.東京'", "target.slack=0.1", "task.files.train=later"]
    config = micro(*given, "task.files.validation=later")
    files = replace(config.task.files, train=str(folder / "train.csv"), validation=str(folder / "validation.csv"))
    config = replace(config, task=replace(config.task, files=files), results_dir=str(folder / "results"))
    records = run_session(config)
    assert [record.status for record in records] == ["ok", "ok"]
    written = list(folder.rglob("record.json"))
    assert len(written) == 2 and all(Record.load(path).task == "naïve.東京" for path in written)
