"""Results on disk: killed at any step nothing is lost; what is foreign or damaged is measured again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from tabi_bench.planning.plan_file import save_plan
from tabi_bench.records import store
from tabi_bench.records.store import check_writable, finished, write_run
from tabi_bench.report.reading import read as results_below
from tests.processes import start
from tests.records.samples import KEY, SESSION, plan, record, trace

MOVES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "open")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "adhoc" / f"sst2-tabi-{KEY}"


def write(folder: Path, mean_ms: float = 1.0, **changes) -> None:
    latency = {"mean": mean_ms, "n": 4}
    write_run(folder, record(run_id=folder.name, latency_ms=latency, **changes), plan(), trace(mean_ms))


def read(folder: Path, method: str = "tabi") -> list | None:
    return finished({method: folder}, KEY)


def mean_of(folder: Path) -> float | None:
    """What the finished run says, in its record and its trace alike; None where there is none."""
    records = read(folder)
    if records is None:
        return None
    measured = pd.read_parquet(folder / "trace.parquet").latency_ms.mean()
    assert records[0].latency_ms["mean"] == measured, "a record of one run beside the trace of another"
    return measured


# --- written whole or not at all --------------------------------------------------------------------------------------


def test_a_run_is_found_again(folder):
    write(folder)
    assert mean_of(folder) == 1.0 and {path.name for path in folder.iterdir()} == {
        "record.json",
        "plan.json",
        "trace.parquet",
    }


def die_at(step: int, folder: str, mean_ms: float) -> None:
    """Writes a run, killed at the step-th change to the disk."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in MOVES and (event != "open" or (arguments[1] or "r") != "r"):
            seen += 1
            if seen > step:
                os._exit(9)

    sys.addaudithook(count)
    write(Path(folder), mean_ms)
    os._exit(0)


@pytest.mark.parametrize("before", [None, 1.0], ids=["the first run", "another run is there"])
def test_killed_at_any_step_nothing_is_lost(folder, before):
    """The old run or the new one is there whole, and the next writer is not in its way."""
    codes, outcomes = [], []
    for step in range(200):
        shutil.rmtree(folder.parent, ignore_errors=True)
        if before is not None:
            write(folder, before)
        child = os.fork()
        if child == 0:
            die_at(step, str(folder), 2.0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        outcomes.append(mean_of(folder))
        write(folder, 3.0)
        assert mean_of(folder) == 3.0
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name], "nothing lies about"
        if codes[-1] == 0:
            break
    assert codes == [9] * (len(codes) - 1) + [0] and len(codes) > 8, "the last one came through"
    assert outcomes[0] == before and outcomes[-1] == 2.0
    switch = outcomes.index(2.0)
    assert outcomes == [before] * switch + [2.0] * (len(outcomes) - switch), "first the old run, then the new one"


def test_what_a_killed_writer_left_is_no_result_of_its_own(folder):
    write(folder)
    shutil.copytree(folder, folder.with_name(f".{folder.name}.new"))
    assert [run.record.run_id for run in results_below(folder.parent).runs] == [folder.name]


@pytest.mark.parametrize("broken", ["save_plan", "to_parquet", "save", "rename"])
def test_an_error_while_writing_leaves_the_run_before(folder, monkeypatch, broken):
    write(folder, 1.0)
    owner = {"save_plan": store, "to_parquet": pd.DataFrame, "save": store.Record, "rename": Path}[broken]
    right, calls = getattr(owner, broken), []

    def full(*arguments, **options):
        calls.append(1)
        if broken == "rename" and len(calls) != 2:  # the second moves the new run to its place
            return right(*arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, 2.0)
    monkeypatch.undo()
    assert mean_of(folder) == 1.0
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def write_many(folder: str, mean_ms: float) -> None:
    for _ in range(30):
        write(Path(folder), mean_ms)


def test_two_writers_of_one_folder_never_mix(folder):
    writers = [start(write_many, str(folder), mean_ms) for mean_ms in (1.0, 2.0)]
    while any(writer.is_alive() for writer in writers):
        if (folder / "record.json").is_file():
            read(folder)  # recovers nothing from under a writer
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert mean_of(folder) in (1.0, 2.0)


# --- found again ------------------------------------------------------------------------------------------------------


def test_a_session_is_finished_when_all_its_records_are_there(folder):
    other = folder.with_name("sst2-infaas")
    both = {"tabi": folder, "infaas": other}
    write(folder)
    assert finished(both, KEY) is None
    infaas = dict(method="infaas", run_id=other.name)
    write_run(other, record(**infaas, session_id=f"{KEY}-2"), plan("infaas"), trace())
    assert finished(both, KEY) is None, "records of two sessions are not one session"
    write_run(other, record(**infaas), plan("infaas"), trace())
    assert [r.method for r in finished(both, KEY)] == ["tabi", "infaas"]
    write_run(other, record(**infaas, status="infeasible"), None, None)
    assert len(finished(both, KEY)) == 2, "that there is no plan is a result"
    write_run(other, record(**infaas, status="failed"), None, None)
    assert finished(both, KEY) is None


FOREIGN = {
    "another session": {"session_id": "ffff0000-20260101T000000"},
    "another method": {"method": "tabi3"},
    "another run": {"run_id": "mnli-tabi-0123abcd"},
    "an unknown status": {"status": "fine"},
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_record_is_no_finished_run(folder, changes):
    write(folder)
    raw = json.loads((folder / "record.json").read_text())
    assert read(folder) and raw["session_id"] == SESSION
    (folder / "record.json").write_text(json.dumps(raw | changes))
    assert read(folder) is None


@pytest.mark.parametrize("name", ["record.json", "plan.json", "trace.parquet"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "bytes", "a folder"])
def test_what_is_damaged_is_measured_again(folder, name, how):
    write(folder)
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "bytes": os.urandom(200)}[how])
    assert read(folder) is None
    write(folder, 2.0)
    assert mean_of(folder) == 2.0


def test_the_plan_or_trace_of_another_run_is_measured_again(folder):
    for wrong in (plan("tabi3"), plan("tabi", "rte")):
        write(folder)
        save_plan(wrong, folder / "plan.json")
        assert read(folder) is None
    write(folder)
    trace(rows=3).to_parquet(folder / "trace.parquet")
    assert read(folder) is None


# --- before any work --------------------------------------------------------------------------------------------------


def test_an_unwritable_folder_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*results_dir"):
        check_writable(tmp_path / "file" / "results")


def test_a_full_disk_is_said_at_once(tmp_path):
    with pytest.raises(OSError, match="MB left on the disk"):
        check_writable(tmp_path, needed_bytes=10**18)
