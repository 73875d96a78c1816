"""Sweeps by hand-written job files: progress, the table at the end, its exit code."""

from __future__ import annotations

import json
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tabi_bench.sweep import Progress, duration, progress, read_jobs, summary
from tests.processes import SMALL, command_line, ended, start, wait_until

DONE = {"overrides": "task=sst2", "status": "ok", "error": None, "wall_s": 60.0, "reused": False}
DONE["result"] = "tabi 34.0 % [29.0, 38.0] met"
BEFORE = {**DONE, "wall_s": 1.0, "reused": True}
FAILED = {**DONE, "overrides": "task=rte", "status": "failed", "error": "ValueError: no rows"}
RUNNING = {"overrides": "task=mnli", "status": "running", "started": 0.0}


def write(folder, *jobs) -> None:
    for number, job in enumerate(jobs):
        (folder / str(number)).mkdir()
        (folder / str(number) / "job.json").write_text(json.dumps(job))


def test_progress_counts_and_estimates_from_what_was_measured(tmp_path):
    write(tmp_path, DONE, BEFORE, FAILED, RUNNING)
    line = progress(read_jobs(tmp_path), 10)
    assert line == "3 of 10 done, 1 failed, 1 running, 6 left, about 7 min to go", (
        "7 jobs of 60 s; 1 s was no measuring"
    )


def test_jobs_are_in_order_of_their_numbers(tmp_path):
    write(tmp_path, *[DONE] * 11)
    assert list(read_jobs(tmp_path)) == list(range(11))


def test_the_table_tells_failed_dead_and_unstarted_jobs(tmp_path):
    write(tmp_path, BEFORE, FAILED, RUNNING)
    lines = summary(read_jobs(tmp_path), 4).splitlines()
    assert lines[0].endswith("tabi 34.0 % [29.0, 38.0] met, measured before")
    assert "failed" in lines[1] and "ValueError: no rows" in lines[1]
    assert "died" in lines[2] and "not started" in lines[3] and lines[4] == "1 of 4 jobs ok"


def test_the_table_shows_the_settings_in_which_jobs_differ(tmp_path):
    write(tmp_path, *({**DONE, "overrides": f"task={task} seed=1 zoo=tiny"} for task in ("sst2", "rte")))
    lines = summary(read_jobs(tmp_path), 2).splitlines()
    assert "task=rte" in lines[1] and "seed" not in lines[0] + lines[1]


@pytest.mark.parametrize(("jobs", "code"), [((DONE, BEFORE), None), ((DONE, FAILED), 1), ((DONE,), 1)])
def test_a_sweep_with_a_job_that_is_not_ok_exits_with_1(tmp_path, jobs, code):
    write(tmp_path, *jobs)
    callback, config = Progress(), OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    callback.total = 2
    if code is None:
        callback.on_multirun_end(config)
        return
    with pytest.raises(SystemExit) as end:
        callback.on_multirun_end(config)
    assert end.value.code == code


def test_durations_for_people():
    assert [duration(s) for s in (42, 720, 12240)] == ["42 s", "12 min", "3.4 h"]


def sweep(cache: Path, results: Path) -> BaseProcess:
    """Two sessions of the micro zoo, in a process of its own."""
    places = [f"results_dir={results}", f"cache_dir={cache}"]
    return start(command_line, "-m", "task=sst2,rte", *SMALL, *places)


def written(results: Path) -> dict[str, tuple[int, str]]:
    """Of each record, by run: when its file was written, and its session."""
    files = (results / "adhoc").glob("*/record.json")
    return {f.parent.name: (f.stat().st_mtime_ns, json.loads(f.read_text())["session_id"]) for f in files}


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_goes_on_without_measuring_again(cache, tmp_path):
    killed = sweep(cache, tmp_path / "killed")
    wait_until(lambda: len(written(tmp_path / "killed")) >= 2, killed)
    killed.kill()
    assert ended(killed) == -signal.SIGKILL
    before = written(tmp_path / "killed")
    assert 2 <= len(before) < 4
    assert ended(sweep(cache, tmp_path / "killed")) == 0
    after = written(tmp_path / "killed")
    assert {run: after[run] for run in before} == before
    jobs = [json.loads(file.read_text()) for file in (tmp_path / "killed").rglob("job.json")]
    assert all(" %" in job["result"] for job in jobs if job["status"] == "ok")
    assert ended(sweep(cache, tmp_path / "whole")) == 0
    assert len(after) == 4 and set(after) == set(written(tmp_path / "whole"))
