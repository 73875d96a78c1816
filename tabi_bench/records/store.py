"""A session's results on disk: found again when finished, written at once, nothing lost on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tabi_bench.planning.plan_file import load_plan, save_plan
from tabi_bench.records.record import Record
from tabi_bench.system import Plan, PlanError


def finished(folders: Mapping[str, Path], session_hash: str) -> list[Record] | None:
    """The records of a finished session, by method; None if one is missing, failed, damaged or of another session."""
    records = []
    for method, folder in folders.items():
        _recover(folder)
        try:
            record = Record.load(folder)
            if record.status == "ok":
                pd.read_parquet(folder / "trace.parquet", columns=["latency_ms"])
                load_plan(folder / "plan.json")
        except (OSError, ValueError, TypeError, PlanError):
            return None
        if record.method != method or record.run_id != folder.name or record.status == "failed":
            return None
        records.append(record)
    sessions = {record.session_id for record in records}
    return records if len(sessions) == 1 and sessions.pop().startswith(session_hash) else None


def write_run(folder: Path, record: Record, plan: Plan | None, trace: pd.DataFrame | None) -> None:
    """One system's folder, whole or not at all: what was there before stays until the new one is complete."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    _recover(folder)
    try:
        temporary.mkdir(parents=True)
        if plan is not None:
            save_plan(plan, temporary / "plan.json")
        if trace is not None:
            trace.to_parquet(temporary / "trace.parquet")
        record.save(temporary)
        if folder.exists():
            folder.rename(_old(folder))
        temporary.rename(folder)
        shutil.rmtree(_old(folder), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _recover(folder: Path) -> None:
    """Finishes what a killed process left between two renames."""
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
