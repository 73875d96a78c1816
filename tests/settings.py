"""Settings for tests: the files of conf/ with what a test changes, as the program reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tabi_bench.config import TaskConfig, TrainConfig, read_file


def fine_tuning(**changes: Any) -> TrainConfig:
    """Fine-tuning that neither drops words nor has a teacher."""
    plain = {"epochs": 3.0, "word_dropout": 0.0, "distill": 0.0, "patience": 3, "evaluations": 10, "average": 0.0}
    plain |= {"learning_rate": 1e-4, "layer_decay": 1.0}
    return replace(read_file("zoo", "minilm").train, **{**plain, **changes})


def toy_task(
    name: str = "toy", family: str = "sentence", texts: tuple[str, ...] = ("text",), **changes: Any
) -> TaskConfig:
    """A task of one's own."""
    return read_file("task", "custom", name=name, family=family, texts=list(texts), **changes)
