"""Sweeps: how far they are, what failed, and a table at the end. One file per job, so that workers elsewhere are seen.

Under Hydra's own launcher and under Ray alike, `Progress.on_job_start` and `on_job_end` run where the job runs.
`<sweep folder>/<job number>/job.json` holds overrides, status (running | ok | failed), error, result (in short),
started, wall_s, reused.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from tabi_bench.cache import write_atomically
from tabi_bench.records.store import check_writable

log = logging.getLogger(__name__)
Job = dict[str, Any]


def guarded(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """In a sweep, a job that fails returns its reason (a string) instead of ending the sweep."""

    @wraps(job)
    def run(raw: DictConfig) -> Any:
        try:
            return job(raw)
        except (Exception, SystemExit) as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                raise
            reason = str(error) if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
            log.error(reason, exc_info=None if isinstance(error, SystemExit) else error)
            return reason

    return run


def number_of_jobs(config: DictConfig) -> int:
    """How many jobs a sweep will run: the product of the preset's and the command line's choices."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    preset = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*preset, *config.hydra.overrides.task])
    return len(BasicSweeper.split_arguments(overrides, None)[0])


def read_jobs(folder: Path) -> dict[int, Job]:
    """The jobs of a sweep that have begun, by number."""
    files = {int(path.parent.name): path for path in folder.glob("*/job.json")}
    return {number: json.loads(files[number].read_text(encoding="utf-8")) for number in sorted(files)}


def progress(jobs: dict[int, Job], total: int) -> str:
    """Done, failed, running, left; and the time left, from the jobs that measured something."""
    running = sum(job["status"] == "running" for job in jobs.values())
    failed = sum(job["status"] == "failed" for job in jobs.values())
    left = total - len(jobs)
    parts = [f"{len(jobs) - running} of {total} done", f"{running} running", f"{left} left"]
    if failed:
        parts.insert(1, f"{failed} failed")
    walls = [job["wall_s"] for job in jobs.values() if job["status"] == "ok" and not job["reused"]]
    if walls and left + running:
        seconds = sum(walls) / len(walls) * (left + running) / max(running, 1)
        parts.append(f"about {duration(seconds)} to go")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """For people: 42 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def summary(jobs: dict[int, Job], total: int) -> str:
    """One line per job, with the settings in which jobs differ; a job without an end has died."""
    shared = set.intersection(*(set(job["overrides"].split()) for job in jobs.values())) if len(jobs) > 1 else set()
    swept = {n: " ".join(o for o in job["overrides"].split() if o not in shared) for n, job in jobs.items()}
    width = max(map(len, swept.values()), default=0)
    lines = []
    for number in range(total):
        job = jobs.get(number, {"status": "not started"})
        status = "died" if job["status"] == "running" else job["status"]
        parts = job.get("result"), "measured before" if job.get("reused") else ""
        note = job.get("error") or ", ".join(filter(None, parts))
        wall = duration(job["wall_s"]) if job.get("wall_s") is not None else ""
        lines.append(f"{number:>3}  {swept.get(number, ''):<{width}}  {status:<8} {wall:>7}  {note}".rstrip())
    good = sum(job["status"] == "ok" for job in jobs.values())
    return "\n".join([*lines, f"{good} of {total} jobs ok"])


class Progress(Callback):
    """Hydra's callback: writes each job's file, logs progress, ends a sweep with a table and exit code 1 on failure."""

    def __init__(self) -> None:
        self.total = 0

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        _refuse_unwritable(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        _refuse_unwritable(config)
        self.total = number_of_jobs(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        folder = Path(config.hydra.runtime.output_dir)
        job = {"overrides": " ".join(config.hydra.overrides.task), "status": "running", "started": time.time()}
        _save(folder, job)
        log.info("job %s: %s (%s)", folder.name, job["overrides"], progress(read_jobs(folder.parent), self.total))

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        folder = Path(config.hydra.runtime.output_dir)
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        returned = job_return._return_value
        failed = isinstance(returned, str)  # the reason, as `guarded` returns it
        job |= {"status": "failed" if failed else "ok", "error": returned if failed else None}
        job |= {"wall_s": time.time() - job["started"], "reused": not failed and _older(returned, job["started"])}
        job["result"] = "" if failed else _result(returned)
        _save(folder, job)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        jobs = read_jobs(Path(config.hydra.sweep.dir))
        sys.stdout.write(f"\n{summary(jobs, self.total)}\n")
        if [job["status"] for job in jobs.values()] != ["ok"] * self.total:
            sys.exit(1)


def lost(folder: Path, overrides: str, reason: str) -> None:
    """Writes, in its place, the file of a job whose worker died or never began."""
    file = folder / "job.json"
    job: Job = {"overrides": overrides, "started": time.time()}
    if file.exists():
        job = json.loads(file.read_text(encoding="utf-8"))
    _save(folder, job | {"status": "failed", "error": reason, "wall_s": time.time() - job["started"], "reused": False})


def _refuse_unwritable(config: DictConfig) -> None:
    """Ends in one line, before Hydra trips over the folder of its own files there."""
    try:
        check_writable(Path(config.results_dir))
    except OSError as error:
        sys.exit(f"results_dir: {error}")


def _save(folder: Path, job: Job) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "job.json", json.dumps(job))


def _older(records: Any, started: float) -> bool:
    """Whether the records were there before the job began. Their times are whole seconds."""
    times = [datetime.fromisoformat(record.provenance["time"]).timestamp() for record in records or []]
    return bool(times) and max(times) < int(started)


def _result(records: Any) -> str:
    """What the session cells, in short: each system's outcome, and how much less time it took than the reference."""
    from tabi_bench.summary import COLUMNS, rows

    cells = [dict(zip(COLUMNS, row, strict=True)) for row in rows(records or [])]
    parts = [[row[COLUMNS[0]], row[COLUMNS[-1]], row["target"] or row[COLUMNS[1]]] for row in cells]
    return "; ".join(" ".join(filter(None, part)) for part in parts if part[1] != "reference")
