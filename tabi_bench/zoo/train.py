"""Trains the ladders of several tasks side by side: `python -m tabi_bench.zoo.train --tasks sst2,mnli --jobs 8`.

A model waits for those that it is made from: its teacher, and mnli's of the same name. A training that fails yields its
error, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import torch
import transformers
from tqdm import tqdm

from tabi_bench.cache import write_atomically
from tabi_bench.config import ConfigError, EncodersZooConfig, default_cache_dir, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.checks import DataError
from tabi_bench.zoo.ladder import CutEncoder, Ladder, tasks_needed
from tabi_bench.zoo.loading import ModelError

log = logging.getLogger(__name__)
Job = tuple[str, CutEncoder]  # task, model


@dataclass(frozen=True)
class Work:
    """What every worker process needs to train one model; `overrides` are "key=value" within conf/zoo/NAME.yaml."""

    zoo: str
    source: str
    source_dir: str | None
    train_rows: int | None
    validation_rows: int | None
    overrides: tuple[str, ...]
    cache_dir: Path
    seed: int
    device: str

    def config(self) -> EncodersZooConfig:
        return read_file("zoo", self.zoo, self.overrides)


@cache
def ladder_of(work: Work, task: str) -> Ladder:
    """The ladder of a task, with its data."""
    values = {"dir": work.source_dir} if work.source == "local" else {}
    source = read_file("source", work.source, **values, **_rows(work))
    transformers.utils.logging.disable_progress_bar()
    loaded = load_task(read_file("task", task), source, work.seed)
    return Ladder(work.config(), loaded, work.cache_dir, work.seed, work.device, quiet=True)


def _rows(work: Work) -> dict[str, int]:
    """The caps on rows that were asked for."""
    caps = {"train_rows": work.train_rows, "validation_rows": work.validation_rows}
    return {name: cap for name, cap in caps.items() if cap}


def first_jobs(work: Work, task: str) -> tuple[list[CutEncoder], list[CutEncoder], float]:
    """Candidates, students and rows of an epoch; raises what `Ladder.check` does."""
    ladder = ladder_of(work, task)
    ladder.check()
    return ladder.candidates, ladder.students, ladder.rows_to_see(ladder.candidates[0])


def train_one(work: Work, task: str, cut: CutEncoder) -> dict:
    """Trains one model if it is not there yet; its notes. A worker holds no more tensors than its last model's."""
    return ladder_of(work, task).notes(cut)


def taught_candidates(work: Work, task: str) -> list[CutEncoder]:
    """Once all candidates are there: those that are not the best one, as they are trained again, taught."""
    ladder = ladder_of(work, task)
    return [cut for cut in ladder.models if cut.taught and cut not in ladder.students]


class Schedule:
    """Which jobs can start: those whose teacher and whose start from mnli are there."""

    def __init__(
        self, work: Work, tasks: list[str], known: dict[str, tuple[list[CutEncoder], list[CutEncoder], float]]
    ):
        self.work, self.config, self.known = work, work.config(), known
        self.waiting: list[Job] = [(task, cut) for task in tasks for cut in known[task][0]]
        self.done: set[Job] = set()
        self.jobs: set[Job] = set(self.waiting)  # all that are known of

    def cost(self, job: Job) -> float:
        """Rows times layers, and two layers' worth of time whatever the depth; deep models first among equals."""
        task, cut = job
        return self.known[task][2] * (cut.layers + 2)

    def ready(self) -> list[Job]:
        """Jobs that wait for nothing, the dearest last: what others wait for is dearer than all else."""
        free = [job for job in self.waiting if self._before(job) <= self.done]
        return sorted(free, key=lambda job: (not job[1].taught, job[0] == "mnli", self.cost(job)))

    def _before(self, job: Job) -> set[Job]:
        task, cut = job
        needed = {(task, candidate) for candidate in self.known[task][0]} if cut.taught else set()
        if task in self.config.via_mnli and "mnli" in self.known:
            needed |= {("mnli", one) for one in (cut, *self.known["mnli"][0])} & self.jobs
        return needed

    def finished(self, job: Job, error: bool) -> None:
        """Notes a job; the last candidate of a task lets the task's other models follow."""
        task, cut = job
        self.done.add(job)
        candidates = self.known[task][0]
        if cut in candidates and all((task, one) in self.done for one in candidates) and not error:
            again = taught_candidates(self.work, task) if self.config.distill else []
            later = [(task, follower) for follower in (*self.known[task][1], *again)]
            self.waiting += later
            self.jobs |= set(later)


def train_ladders(work: Work, tasks: list[str], jobs: int) -> Iterator[dict]:
    """Trains all models of all tasks in `jobs` processes; yields {task, model, layers, taught, ...} as they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        firsts = [pool.submit(first_jobs, work, task) for task in tasks]
        schedule = Schedule(work, tasks, {t: f.result() for t, f in zip(tasks, firsts, strict=True)})
        running: dict[Future, Job] = {}
        while running or schedule.ready():
            while len(running) < jobs and (ready := schedule.ready()):
                schedule.waiting.remove(ready[-1])
                running[pool.submit(train_one, work, *ready[-1])] = ready[-1]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                result = _outcome(future)
                schedule.finished(job, "error" in result)
                task, cut = job
                yield {"task": task, "model": cut.name, "layers": cut.layers, "taught": cut.taught, **result}


def _outcome(future: Future) -> dict:
    error = future.exception()
    if error is None:
        return future.result()
    log.error("training failed", exc_info=error)
    return {"error": f"{type(error).__name__}: {error}"}


def table(rows: list[dict]) -> str:
    """Validation scores in percent and training seconds, models x tasks; + marks those with a teacher."""
    frame = pd.DataFrame([row for row in rows if "error" not in row])
    if frame.empty:
        return "nothing was trained"
    frame["model"] += frame["taught"].map({True: " +", False: ""})
    scores = (100 * frame.pivot(index="model", columns="task", values="validation_score")).round(1)
    seconds = frame.pivot(index="model", columns="task", values="seconds").round(0)
    return f"validation score, %\n{scores.to_string()}\n\nseconds of training\n{seconds.to_string()}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.zoo.train", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", required=True, help="comma-separated, e.g. sst2,mnli")
    parser.add_argument("--zoo", default="encoders", help="encoders, or minilm")
    parser.add_argument("--source-dir", help="folder with one folder per task; without it: generated tasks")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    parser.add_argument("--train-rows", type=int, help="at most so many rows of train")
    parser.add_argument("--validation-rows", type=int, help="likewise of validation")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="JSON file, kept up to date while training goes on")
    parser.add_argument("overrides", nargs="*", help="key=value of conf/zoo/encoders.yaml, e.g. tasks.rte.epochs=5")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Trains the ladders and prints their scores."""
    options = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    source, cache_dir = "local" if options.source_dir else "generated", options.cache_dir.expanduser()
    overrides = tuple(options.overrides)
    where = options.zoo, source, options.source_dir, options.train_rows, options.validation_rows
    work = Work(*where, overrides, cache_dir, options.seed, options.device)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    rows, started, tasks = [], time.monotonic(), options.tasks.split(",")
    try:
        needed = list(dict.fromkeys(name for task in tasks for name in reversed(tasks_needed(work.config(), task))))
        if not options.source_dir:
            needed = tasks  # generated rows are not mnli's
        for row in tqdm(train_ladders(work, needed, options.jobs), unit="model"):
            rows.append(row)
            done = {"wall_s": round(time.monotonic() - started, 1), "work": asdict(work), "models": rows}
            if options.report:
                write_atomically(options.report, json.dumps(done, indent=1, default=str))
    except (ConfigError, DataError, ModelError) as error:  # what is wrong before any training
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(f"{table(rows)}\n\n{time.monotonic() - started:.0f} s in all, {options.jobs} at a time on {options.device}")
    failed = [f"{row['task']}, {row['model']}: {row['error']}" for row in rows if "error" in row]
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
