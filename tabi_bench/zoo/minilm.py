"""`zoo=minilm`: one pre-trained MiniLM-L6 encoder, cut to its first layers and fine-tuned on the task.

The largest model is trained first; the smaller ones also learn from its logits. Each model is cached on its own, by the
content of data, encoder and recipe. `python -m tabi_bench.zoo.minilm` trains the ladders of several tasks side by side.
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
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from tqdm import tqdm

from tabi_bench import device as devices
from tabi_bench.cache import cached, content_key, write_atomically
from tabi_bench.config import ConfigError, MinilmZooConfig, TrainConfig, default_cache_dir, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.checks import DataError
from tabi_bench.zoo.base import ModelSpec, Zoo
from tabi_bench.zoo.encoder import carry_over, cut, encoder_folder
from tabi_bench.zoo.layerless import Layerless
from tabi_bench.zoo.loading import ModelError, content_hash, load_model, load_tokenizer, spec_of
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.training import Examples, encode, metric_score, predict, train

log = logging.getLogger(__name__)

RECIPE = 3  # raised when the code below changes what is learnt: older cached models are then left alone
NOTES, LOGITS = "training.json", "train_logits.npy"


def load(config: MinilmZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The ladder for `task`, fine-tuned at first use. Raises ModelError without an encoder."""
    ladder = Ladder(config, task, Path(cache_dir).expanduser(), seed, device)
    ladder.check()
    models = {ladder.spec(layers): ladder.notes(layers) for layers in sorted(ladder.layers, reverse=True)}
    order = sorted(models, key=lambda spec: spec.layers)
    seconds = sum(notes["seconds"] + notes.get("via_mnli", {}).get("seconds", 0.0) for notes in models.values())
    notes = {"distilled": config.distill, "models": {spec.name: models[spec] for spec in order}}
    return Zoo(config.name, tuple(order), seconds, notes)


# --- the ladder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ladder:
    """The models of one task: where each is cached, and how it is made."""

    config: MinilmZooConfig
    task: Task
    cache_dir: Path
    seed: int
    device: str
    quiet: bool = False  # no bar: those of several processes would overwrite each other

    @cached_property
    def encoder(self) -> Path:
        return encoder_folder(self.config.path)

    @cached_property
    def encoder_hash(self) -> str:
        return content_hash(self.encoder)

    @property
    def layers(self) -> list[int]:
        return sorted(set(self.config.layers))

    @property
    def largest(self) -> int:
        return self.layers[-1]

    @cached_property
    def train_rows(self) -> Examples:
        """The train split, tokenised."""
        return self._encode("train")

    def _encode(self, split: str) -> Examples:
        tokenizer = load_tokenizer(self.encoder, self.config.max_length)
        return encode(tokenizer, self.task.texts(split), self.task.labels(split))

    def recipe(self, layers: int) -> TrainConfig:
        """How the model of so many layers is trained on this task."""
        try:
            base = replace(self.config.train, **self.config.tasks.get(self.task.name, {}))
        except TypeError as error:
            raise ConfigError(f"zoo.tasks.{self.task.name}: {error}; its keys are those of zoo.train") from None
        if layers == self.largest:
            return replace(base, distill=0.0)
        rate = base.learning_rate * self.config.student_rate if layers else self.config.layerless_rate
        return replace(base, learning_rate=rate, distill=base.distill if self.config.distill else 0.0)

    @cached_property
    def start(self) -> Ladder | None:
        """MNLI's ladder from the same source, where `zoo.via_mnli` names this task. Raises ConfigError, DataError."""
        if self.task.name not in self.config.via_mnli:
            return None
        return replace(self, task=self._other("mnli", f"zoo.via_mnli: {self.task.name}"))

    def _other(self, name: str, where: str) -> Task:
        """Another task of the same source, with as many texts; `where` begins the error."""
        if self.task.name == name:
            raise ConfigError(f"{where} cannot learn from itself")
        if self.task.origin is None:
            raise ConfigError(f"{where}: its source is not known, so neither is {name}'s data")
        task = load_task(read_file("task", name), self.task.origin, self.seed)
        if len(task.config.texts) != len(self.task.config.texts):
            raise ConfigError(f"{where} has another number of texts than {name}")
        return task

    def check(self) -> None:
        """Raises ConfigError, DataError or ModelError for what no model could be trained from, before any is."""
        for layers in self.layers:
            self.key(layers)

    def key(self, layers: int) -> str:
        """Hash of everything that the model is made from."""
        recipe = self.recipe(layers)
        teacher = self.key(self.largest) if recipe.distill else None
        data = (self.task.content_hash, self.task.config.metric, self.task.config.labels)
        parts = [RECIPE, data, self.encoder_hash, self.config.max_length, layers, asdict(recipe), self.seed, teacher]
        if self.start:
            parts.append(self.start.key(layers))
        return content_key(*parts)

    def rows_to_see(self, layers: int) -> float:
        """Rows that training the model goes through, if nothing stops it early."""
        return len(self.task.train) * self.recipe(layers).epochs

    def folder(self, layers: int) -> Path:
        """The model's folder in the cache, trained if it is not there yet."""
        path = self.cache_dir / "minilm" / self.key(layers)
        return cached(path, lambda temporary: self._build(layers, temporary, path.with_suffix(".checkpoint")))

    def spec(self, layers: int) -> ModelSpec:
        return spec_of(self.folder(layers), f"minilm-{layers}", self.config.max_length)

    def notes(self, layers: int) -> dict:
        """What was stored beside the model (scores, steps, seconds, recipe), and what its score stands against."""
        return json.loads((self.folder(layers) / NOTES).read_text()) | self.validation_facts

    @cached_property
    def validation_facts(self) -> dict:
        """Rows of the validation split, and the share of its most frequent label (None for scores)."""
        labels = self.task.labels("validation")
        most = None if self.task.is_regression else float(np.bincount(labels).max() / len(labels))
        return {"validation_rows": len(labels), "majority_share": most}

    def _build(self, layers: int, folder: Path, checkpoint: Path) -> None:
        recipe, metric = self.recipe(layers), self.task.config.metric
        teacher = np.load(self.folder(self.largest) / LOGITS) if recipe.distill else None
        model = self._start(layers)
        result = train(
            model,
            self.train_rows,
            recipe,
            seed=self.seed,
            device=self.device,
            teacher_logits=teacher,
            metric=metric,
            checkpoint=checkpoint,
            progress="" if self.quiet else f"{self.task.name} {layers} layers",
        )
        self._store(model, folder)
        stored = load_model(spec_of(folder, "stored"), torch.float32, self.device)
        if layers == self.largest:
            np.save(folder / LOGITS, predict(stored, self.train_rows, self.device))
        validation = self._encode("validation")
        notes = {
            "metric": metric,
            "validation_score": metric_score(metric, validation.labels, predict(stored, validation, self.device)),
            "slice_score": result.score,
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "recipe": asdict(recipe),
            "device": devices.describe(devices.resolve(self.device))["name"],
            "torch": torch.__version__,
        }
        if self.start:
            score, seconds = (self.start.notes(layers)[key] for key in ("validation_score", "seconds"))
            notes["via_mnli"] = {"validation_score": score, "seconds": seconds}
        (folder / NOTES).write_text(json.dumps(notes, indent=1))

    def _start(self, layers: int) -> MeanPoolBert | Layerless:
        """The cut encoder, or mnli's model.

        A regression head starts at the mean label, or it spends an epoch on getting there.
        """
        model = cut(self.encoder, layers, self.task.config.labels, self.seed, len(self.task.config.texts))
        if self.start:
            carry_over(model, load_model(self.start.spec(layers), torch.float32, "cpu"))
        if self.task.is_regression:
            torch.nn.init.constant_(model.classifier.bias, float(self.task.labels("train").mean()))
        return model

    def _store(self, model: MeanPoolBert | Layerless, folder: Path) -> None:
        """Weights in half precision: half the disk, and logits that differ in the third decimal."""
        model.to("cpu", torch.float16).save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes((self.encoder / "tokenizer.json").read_bytes())


def tasks_needed(config: MinilmZooConfig, task: str) -> list[str]:
    """The task, and others whose data its ladder is made from."""
    return list(dict.fromkeys([task, *(["mnli"] if task in config.via_mnli else [])]))


# --- several tasks side by side ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What every worker process needs to train one model; `overrides` are "key=value" within conf/zoo/minilm.yaml."""

    source: str
    source_dir: str | None
    train_rows: int | None
    overrides: tuple[str, ...]
    cache_dir: Path
    seed: int
    device: str

    def config(self) -> MinilmZooConfig:
        return read_file("zoo", "minilm", self.overrides)


@cache
def _ladder(work: Work, task: str) -> Ladder:
    rows = {} if work.train_rows is None else {"train_rows": work.train_rows}
    source = read_file("source", work.source, **rows, **({"dir": work.source_dir} if work.source_dir else {}))
    transformers.utils.logging.disable_progress_bar()
    loaded = load_task(read_file("task", task), source, work.seed)
    return Ladder(work.config(), loaded, work.cache_dir, work.seed, work.device, quiet=True)


def _rows_to_see(work: Work, task: str) -> dict[int, float]:
    """By layers, rows that training that model of the task goes through; raises what `Ladder.check` does."""
    ladder = _ladder(work, task)
    ladder.check()
    return {layers: ladder.rows_to_see(layers) for layers in ladder.layers}


def _train_one(work: Work, task: str, layers: int) -> dict:
    return _ladder(work, task).notes(layers)


def train_ladders(work: Work, tasks: list[str], jobs: int) -> Iterator[dict]:
    """Trains all models of all tasks in `jobs` processes, the longest first; yields {task, layers, ...} as they end.

    Where the smaller models learn from the largest, they wait for it. A training that fails yields its error.
    """
    config = work.config()
    teacher, students = max(config.layers), sorted(set(config.layers))[:-1]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        rows = dict(zip(tasks, pool.map(partial(_rows_to_see, work), tasks), strict=True))
        ready = [(task, layers) for task in tasks for layers in ([teacher] if config.distill else config.layers)]
        running: dict[Future, tuple[str, int]] = {}
        while ready or running:
            ready.sort(
                key=lambda job: rows[job[0]][job[1]] * (job[1] + 2)
            )  # two layers' worth of time whatever the depth
            while ready and len(running) < jobs:
                job = ready.pop()
                running[pool.submit(_train_one, work, *job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, layers = running.pop(future)
                result = _outcome(future)
                yield {"task": task, "layers": layers, **result}
                if config.distill and layers == teacher and "error" not in result:
                    ready += [(task, fewer) for fewer in students]


def _outcome(future: Future) -> dict:
    error = future.exception()
    if error is None:
        return future.result()
    log.error("training failed", exc_info=error)
    return {"error": f"{type(error).__name__}: {error}"}


def table(rows: list[dict]) -> str:
    """Validation scores in percent and training seconds, layers x tasks."""
    frame = pd.DataFrame([row for row in rows if "error" not in row])
    if frame.empty:
        return "nothing was trained"
    scores = (100 * frame.pivot(index="layers", columns="task", values="validation_score")).round(1)
    seconds = frame.pivot(index="layers", columns="task", values="seconds").round(0)
    return f"validation score, %\n{scores.to_string()}\n\nseconds of training\n{seconds.to_string()}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.zoo.minilm", description=main.__doc__)
    parser.add_argument("--tasks", required=True, help="comma-separated, e.g. sst2,mnli")
    parser.add_argument("--source-dir", help="folder with one folder per task; without it: generated tasks")
    parser.add_argument("--path", help="the encoder's folder; default: the installed package")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    parser.add_argument("--train-rows", type=int, help="at most so many rows of train")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-distill", action="store_true", help="the smaller models learn from the labels alone")
    parser.add_argument("--report", type=Path, help="JSON file, kept up to date while training goes on")
    parser.add_argument("overrides", nargs="*", help="key=value of conf/zoo/minilm.yaml, e.g. tasks.rte.epochs=5")
    return parser.parse_args(argv)


def _work(options: argparse.Namespace) -> Work:
    overrides = list(options.overrides)
    overrides += [f"path={options.path}"] if options.path else []
    overrides += ["distill=false"] if options.no_distill else []
    source = "local" if options.source_dir else "generated"
    cache_dir = options.cache_dir.expanduser()
    return Work(
        source, options.source_dir, options.train_rows, tuple(overrides), cache_dir, options.seed, options.device
    )


def main(argv: list[str] | None = None) -> int:
    """Fine-tunes the MiniLM ladders of several tasks side by side and prints their scores."""
    options = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    work, tasks = _work(options), options.tasks.split(",")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    rows, started = [], time.monotonic()
    try:
        total = len(tasks) * len(set(work.config().layers))
        for row in tqdm(train_ladders(work, tasks, options.jobs), total=total, unit="model"):
            rows.append(row)
            done = {"wall_s": round(time.monotonic() - started, 1), "work": asdict(work), "models": rows}
            if options.report:
                write_atomically(options.report, json.dumps(done, indent=1, default=str))
    except (ConfigError, DataError, ModelError) as error:  # what is wrong before any training
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(f"{table(rows)}\n\n{time.monotonic() - started:.0f} s in all, {options.jobs} at a time on {options.device}")
    failed = [f"{row['task']}, {row['layers']} layers: {row['error']}" for row in rows if "error" in row]
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
