"""What is asked: a Task is two splits of labelled rows; a Query is one row without its label."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import SourceConfig, TaskConfig


@dataclass(frozen=True, slots=True)
class Query:
    """One request: an id (row of the validation split) and one or two texts. It never carries a label."""

    id: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A loaded task: its description, and two `datasets.Dataset` splits in the task's own columns.

    After loading, the label column holds integers 0..K-1 in the order of `config.labels` (floats for regression),
    whatever the source stored. `notes` says what loading found: row counts against the official ones, duplicates
    between train and validation, whether it is a subset. Generated rows also have a boolean column `hard`. `origin`
    is where other tasks of the same source are loaded from. `warnings` are sentences about what is doubtful, for the
    screen.
    """

    config: TaskConfig
    source: str
    train: Dataset
    validation: Dataset
    notes: dict = field(default_factory=dict)
    origin: SourceConfig | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def is_regression(self) -> bool:
        return not self.config.labels

    @property
    def n_outputs(self) -> int:
        """Number of model outputs K: one per label, or 1 for regression."""
        return max(1, len(self.config.labels))

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """The texts of each row of `split` ("train" or "validation"), one or two per row."""
        data = getattr(self, split)
        return list(zip(*(data[column][:] for column in self.config.texts), strict=True))

    def labels(self, split: str) -> np.ndarray:
        """Labels of `split`, (N,) int64, or float64 for regression."""
        column = np.asarray(getattr(self, split)[self.config.label][:])
        return column.astype(np.float64 if self.is_regression else np.int64)

    @cached_property
    def queries(self) -> list[Query]:
        """The validation split as queries, in row order; `id` is the row number."""
        return [Query(row, texts) for row, texts in enumerate(self.texts("validation"))]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (16 hex digits) of the label names, and both splits' texts and labels."""
        return self._hash("train", "validation")

    @cached_property
    def train_hash(self) -> str:
        """The same of what models learn from: other validation rows leave it as it is."""
        return self._hash("train")

    def _hash(self, *splits: str) -> str:
        digest = hashlib.sha256("\x1f".join((self.name, *self.config.labels)).encode() + b"\x1e")
        for split in splits:
            for texts, label in zip(self.texts(split), self.labels(split).tolist(), strict=True):
                digest.update("\x1f".join((*texts, repr(label))).encode() + b"\x1e")
        return digest.hexdigest()[:16]
