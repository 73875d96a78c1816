"""A session's results on disk: found again when finished, written at once, nothing lost on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd

from tabi_bench.cache import locked
from tabi_bench.planning.plan_file import load_plan, save_plan
from tabi_bench.records.record import Record
from tabi_bench.system import Plan


def finished(folders: Mapping[str, Path], session_hash: str) -> list[Record] | None:
    """The records of a finished session, by method; None if one is missing, failed, damaged or of another session."""
    records = []
    for method, folder in folders.items():
        if _old(folder).exists():
            with _writing(folder):
                _recover(folder)
        try:
            record = Record.load(folder)
            whole = record.status == "infeasible" or _is_whole(folder, record)
        except Exception:  # whatever the readers of JSON and parquet raise: it is measured again
            return None
        if not whole or (record.method, record.run_id) != (method, folder.name):
            return None
        records.append(record)
    sessions = {record.session_id for record in records}
    return records if len(sessions) == 1 and sessions.pop().startswith(session_hash) else None


def _is_whole(folder: Path, record: Record) -> bool:
    """Whether a good record has its own trace and plan beside it."""
    with (folder / "trace.parquet").open("rb") as stream:  # pyarrow takes all names of files for UTF-8
        trace = pd.read_parquet(stream, columns=["latency_ms"])
    plan = load_plan(folder / "plan.json")
    own = (plan.method, plan.task) == (record.method, record.task) and len(trace) == record.latency_ms.get("n")
    return record.status == "ok" and own


def write_run(folder: Path, record: Record, plan: Plan | None, trace: pd.DataFrame | None) -> None:
    """One system's folder, whole or not at all: what was there before stays until the new one is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _writing(folder):
        _recover(folder)
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: we hold the lock
        try:
            temporary.mkdir()
            if plan is not None:
                save_plan(plan, temporary / "plan.json")
            if trace is not None:
                with (temporary / "trace.parquet").open("wb") as stream:
                    trace.to_parquet(stream)
            record.save(temporary)
            if folder.exists():
                folder.rename(_old(folder))
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            _recover(folder)


def _writing(folder: Path) -> AbstractContextManager[None]:
    """One writer at a time below a label's folder."""
    return locked(folder.parent / ".writing.lock", f"results folder {folder.parent}")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _recover(folder: Path) -> None:
    """Finishes what was left between two renames."""
    if _old(folder).exists():
        if folder.exists():
            shutil.rmtree(_old(folder), ignore_errors=True)
        else:
            _old(folder).rename(folder)


def check_writable(folder: Path, needed_bytes: int = 50_000_000) -> None:
    """Raises OSError, before work is spent, if `folder` cannot be written or its disk is nearly full."""
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {error.strerror or error}; set another results_dir / cache_dir"
        ) from None
    if free < needed_bytes:
        raise OSError(f"only {free / 1e6:.0f} MB left on the disk of {folder}; a run needs {needed_bytes / 1e6:.0f} MB")
