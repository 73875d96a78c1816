"""A three-label task that a micro model learns in a second, and models of it on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from tabi_bench.config import read_file
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.checks import make_task
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.loading import load_folder, load_tokenizer, spec_of
from tabi_bench.zoo.training import encode, train
from tests.engines.micro_models import write_model
from tests.settings import fine_tuning
from tests.settings import toy_task as own_task

LABELS = ["entailment", "neutral", "contradiction"]
CUES = ("good", "movie", "bad")


def toy_task(rows: int = 600, labels: tuple[str, ...] = tuple(LABELS), name: str = "mnli") -> Task:
    """Pairs whose second text names the label by one word; `labels=()`: the score 0, 2.5 or 5."""
    random = np.random.default_rng(0)

    def split(n: int, seed: int) -> Dataset:
        kinds = np.random.default_rng(seed).integers(0, 3, n)
        filler = ["the film", "a play", "café film", "the movie ,"]
        first = [f"{filler[random.integers(4)]} is a film ." for _ in range(n)]
        second = [f"the {filler[random.integers(3)]} is very {CUES[kind]}" for kind in kinds]
        label = [LABELS[kind] for kind in kinds] if labels else (2.5 * kinds).tolist()
        return Dataset.from_dict({"premise": first, "hypothesis": second, "label": label})

    metric = "accuracy" if labels else "pearson"
    config = own_task(name, "pair", ("premise", "hypothesis"), labels=list(labels), metric=metric)
    where = {"train": "toy train", "validation": "toy validation"}
    return make_task(config, read_file("source", "local"), 0, split(rows, 1), split(60, 2), where)


def trained(folder: Path, task: Task, family: str = "bert") -> ModelSpec:
    """A micro model that has learnt `task`."""
    spec = write_model(folder, family, num_labels=task.n_outputs, initializer_range=0.05)
    tokenizer = load_tokenizer(folder, 24)
    model = load_folder(folder, torch.float32)
    recipe = fine_tuning(epochs=8, learning_rate=3e-3, batch_size=32, patience=0)
    train(model, encode(tokenizer, task.texts("train"), task.labels("train")), recipe, seed=0)
    model.save_pretrained(folder)
    return spec_of(folder, spec.name, 24)


def permuted(spec: ModelSpec, folder: Path, order: tuple[int, ...], names: list[str] | None = None) -> ModelSpec:
    """A copy whose output `order[k]` means label k, with nameless outputs unless `names` are given."""
    model = load_folder(spec.path, torch.float32)
    head = model.classifier
    with torch.no_grad():
        weight, bias = head.weight.clone(), head.bias.clone()
        for label, output in enumerate(order):
            head.weight[output], head.bias[output] = weight[label], bias[label]
    model.config.id2label = dict(enumerate(names or [f"LABEL_{i}" for i in range(len(order))]))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((spec.path / "tokenizer.json").read_bytes())
    return spec_of(folder, folder.name, spec.max_length)
