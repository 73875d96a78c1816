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
from dataclasses import asdict, dataclass, replace
from functools import cache
from graphlib import TopologicalSorter
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
Graph = dict[Job, set[Job]]


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
    values = {"dir": work.source_dir, "train_rows": work.train_rows, "validation_rows": work.validation_rows}
    source = read_file("source", work.source, **{name: value for name, value in values.items() if value})
    transformers.utils.logging.disable_progress_bar()
    loaded = load_task(read_file("task", task), source, work.seed)
    return Ladder(work.config(), loaded, work.cache_dir, work.seed, work.device, quiet=True)


def first_jobs(work: Work, task: str) -> tuple[list[CutEncoder], list[CutEncoder], float]:
    """Candidates, students and the rows that a whole training goes through; raises what `Ladder.check` does."""
    ladder = ladder_of(work, task)
    ladder.check()
    rows = len(ladder.task.train) * ladder.recipe(ladder.candidates[0]).epochs
    return ladder.candidates, ladder.students, rows


def train_one(work: Work, task: str, cut: CutEncoder) -> dict | None:
    """Trains one model if it is not there yet; its notes, or None for the best candidate, which nobody teaches.

    A worker holds no more tensors than its last model's.
    """
    ladder = ladder_of(work, task)
    return ladder.notes(cut) if ladder.own(cut) == cut else None


def job_graph(config: EncodersZooConfig, known: dict[str, tuple[list[CutEncoder], list[CutEncoder], float]]) -> Graph:
    """What each job waits for: the candidates of its task, unless it is one, and mnli's models if it starts from them.

    known: by task, what `first_jobs` says.
    """
    graph: Graph = {}
    for task, (candidates, students, _) in known.items():
        taught = [replace(cut, taught=True) for cut in candidates if config.distill and config.wants(cut.name)]
        graph |= {(task, cut): set() for cut in candidates}
        graph |= {(task, cut): {(task, first) for first in candidates} for cut in (*students, *taught)}
    for (task, cut), needed in graph.items():
        if task in config.via_mnli and "mnli" in known:
            needed |= {("mnli", other) for other in (cut, *known["mnli"][0])} & graph.keys()
    return graph


def train_ladders(work: Work, tasks: list[str], jobs: int) -> Iterator[dict]:
    """Trains all models of all tasks in `jobs` processes; yields {task, model, layers, taught, ...} as they end.

    Of the jobs that wait for nothing the dearest is next (rows times layers, and two layers' worth of time whatever the
    depth); what others wait for is dearer than all else, mnli's before other tasks'.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        firsts = [pool.submit(first_jobs, work, task) for task in tasks]
        known = {task: future.result() for task, future in zip(tasks, firsts, strict=True)}
        left = job_graph(work.config(), known)
        graph = TopologicalSorter(left)
        graph.prepare()
        waiting, running = list(graph.get_ready()), dict[Future, Job]()
        while waiting or running:
            waiting.sort(key=lambda job: (not job[1].taught, job[0] == "mnli", known[job[0]][2] * (job[1].layers + 2)))
            while waiting and len(running) < jobs:
                job = waiting.pop()
                running[pool.submit(train_one, work, *job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, result = running.pop(future), _outcome(future)
                del left[job]
                if result is None or "error" not in result:
                    graph.done(job)
                if result is not None:
                    yield _row(job, result)
            waiting += graph.get_ready()
    yield from (_row(job, {"error": "not trained, as what it is made from failed"}) for job in left)


def _row(job: Job, result: dict) -> dict:
    task, cut = job
    return {"task": task, "model": cut.name, "layers": cut.layers, "taught": cut.taught, **result}


def _outcome(future: Future) -> dict | None:
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
    source = "local" if options.source_dir else "generated"
    data = options.zoo, source, options.source_dir, options.train_rows, options.validation_rows
    work = Work(*data, tuple(options.overrides), options.cache_dir.expanduser(), options.seed, options.device)
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
