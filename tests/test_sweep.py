"""Sweeps by hand-written job files: progress, the table at the end, its exit code."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from tabi_bench.sweep import Progress, duration, progress, read_jobs, summary

DONE = {"overrides": "task=sst2", "status": "ok", "error": None, "wall_s": 60.0, "reused": False}
BEFORE = {**DONE, "wall_s": 1.0, "reused": True}
FAILED = {**DONE, "overrides": "task=rte", "status": "failed", "error": "ValueError: no rows"}
RUNNING = {"overrides": "task=mnli", "status": "running", "started": 0.0}


def write(folder, *jobs) -> None:
    for number, job in enumerate(jobs):
        (folder / str(number)).mkdir()
        (folder / str(number) / "job.json").write_text(json.dumps(job))


def test_progress_counts_and_estimates_from_what_was_measured(tmp_path):
    write(tmp_path, DONE, BEFORE, FAILED, RUNNING)
    said = progress(read_jobs(tmp_path), 10)
    assert said == "3 of 10 done, 1 failed, 1 running, 6 left, about 7 min to go", (
        "7 jobs of 60 s; 1 s was no measuring"
    )


def test_jobs_are_in_order_of_their_numbers(tmp_path):
    write(tmp_path, *[DONE] * 11)
    assert list(read_jobs(tmp_path)) == list(range(11))


def test_the_table_tells_failed_dead_and_unstarted_jobs(tmp_path):
    write(tmp_path, BEFORE, FAILED, RUNNING)
    lines = summary(read_jobs(tmp_path), 4).splitlines()
    assert "measured before" in lines[0] and "failed" in lines[1] and "ValueError: no rows" in lines[1]
    assert "died" in lines[2] and "not started" in lines[3] and lines[4] == "1 of 4 jobs ok"


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
