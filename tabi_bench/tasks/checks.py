"""From what a source stored to a Task: columns, labels by name, and what the checks found (`Task.notes`).

Refused, because nothing sensible can be measured: missing columns, an empty split, a row without a label or text, a
label that the task does not know. Only noted: a subset of the official rows, rows of validation that train also has.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import SourceConfig, TaskConfig

log = logging.getLogger(__name__)
REGRESSION_METRICS = ("pearson", "spearman")


class DataError(ValueError):
    """The data cannot be used; the message says what, where, and what to do."""


def make_task(
    config: TaskConfig, source: SourceConfig, seed: int, train: Dataset, validation: Dataset, where: dict[str, str]
) -> Task:
    """Check two raw splits and bring them into the task's own columns (texts as str, labels as integers or floats).

    `where` names the origin of "train" and "validation" for messages. The label is read from `config.hub.label` where
    that column exists, else from `config.label`. Empty `config.labels` with a classification metric: the sorted names
    in train. Raises DataError.
    """
    raw = {"train": train, "validation": validation}
    stored = {split: _stored_label(data, config) for split, data in raw.items()}
    for split, data in raw.items():
        _check_columns(data, [*config.texts, stored[split]], where[split])
    names = {split: _label_names(data, stored[split], where[split]) for split, data in raw.items()}
    if not config.labels and config.metric not in REGRESSION_METRICS:
        config = dataclasses.replace(config, labels=_sorted_names(set(names["train"])))
        if len(config.labels) < 2:
            raise DataError(f"{where['train']}: label column {stored['train']!r} holds only {config.labels}; "
                            f"a classifier needs two (task.label: its column)")  # fmt: skip
    splits = {split: _clean(data, config, names[split], where[split]) for split, data in raw.items()}
    notes = _notes(config, splits)
    limits = {"train": source.train_rows, "validation": source.validation_rows}
    splits = {split: _limited(data, limits[split], seed) for split, data in splits.items()}
    notes["rows"] = {split: len(data) for split, data in splits.items()}
    for line in _warnings(config, notes):
        log.warning("%s: %s", config.name, line)
    return Task(config, source.name, splits["train"], splits["validation"], notes, source)


def _stored_label(data: Dataset, config: TaskConfig) -> str:
    return config.hub.label if config.hub.label in data.column_names else config.label


def _check_columns(data: Dataset, wanted: list[str], where: str) -> None:
    missing = [column for column in wanted if column not in data.column_names]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(map(repr, missing))}; it has {', '.join(data.column_names)}. "
            f"task.texts and task.label name the columns to read"
        )
    if not len(data):
        raise DataError(f"{where}: holds no rows; a task needs labelled rows in train and in validation")


def _label_names(data: Dataset, column: str, where: str) -> list[str]:
    """The label of each row as text: a ClassLabel's name, a string as it is, a number without a trailing ".0"."""
    feature = data.features[column]
    values = data[column][:]
    names = getattr(feature, "names", None)
    if names is not None:
        hidden = sum(value is None or value < 0 for value in values)
        if hidden:
            raise DataError(f"{where}: {hidden} of {len(values)} labels are hidden (-1); choose a labelled task.split")
        return [names[value] for value in values]
    texts = [_as_text(value) for value in values]
    empty = [row for row, text in enumerate(texts) if text == ""]
    if empty:
        raise DataError(f"{where}: {len(empty)} of {len(texts)} rows have no label in column {column!r}, first row "
                        f"{empty[0]}; drop or label them")  # fmt: skip
    return texts


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: object) -> str:
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _sorted_names(names: set[str]) -> list[str]:
    """Numbers by value, everything else by name."""
    return sorted(names, key=int) if all(map(_is_integer, names)) else sorted(names)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _clean(data: Dataset, config: TaskConfig, names: list[str], where: str) -> Dataset:
    """A new Dataset of the task's text columns (str) and its label column (int64 or float64)."""
    from datasets import Dataset, Features, Value

    columns: dict[str, list | np.ndarray] = {column: _texts(data[column][:], column, where) for column in config.texts}
    if config.labels:
        columns[config.label], dtype = _label_ids(names, config, where), "int64"
    else:
        columns[config.label], dtype = _scores(names, config, where), "float64"
    features = {column: Value("string") for column in config.texts} | {config.label: Value(dtype)}
    return Dataset.from_dict(columns, features=Features(features))


def _texts(values: list, column: str, where: str) -> list[str]:
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise DataError(f"{where}: {len(missing)} of {len(values)} rows have no text in column {column!r}, first row "
                        f"{missing[0]}; drop or fill them")  # fmt: skip
    return [str(value) for value in values]


def _label_ids(names: list[str], config: TaskConfig, where: str) -> np.ndarray:
    """Positions in `config.labels`, (N,) int64: by name, or, outside intents, numbers 0..K-1 taken as positions.

    Intent tasks number their many labels differently in every copy, so a number is never believed there.
    """
    position = {name: index for index, name in enumerate(config.labels)}
    counts = Counter(names)
    unknown = {name: count for name, count in counts.items() if name not in position}
    if not unknown:
        return np.array([position[name] for name in names], dtype=np.int64)
    if config.family != "intent" and all(map(_is_integer, counts)):
        outside = sorted((name for name in counts if not 0 <= int(name) < len(position)), key=int)
        if not outside:
            return np.array(names, dtype=np.int64)
        hint = "; -1 means hidden labels: choose a labelled task.split" if "-1" in outside else ""
        raise DataError(f"{where}: labels {', '.join(outside[:5])} lie outside 0..{len(position) - 1}{hint}")
    shown = ", ".join(f"{name!r} ({count} rows)" for name, count in sorted(unknown.items())[:5])
    numbers = (
        " Intents are mapped by name, never by number: give a column of names." if config.family == "intent" else ""
    )
    raise DataError(
        f"{where}: {len(unknown)} labels that task {config.name} does not know, among them {shown}; it knows "
        f"{', '.join(config.labels[:5])}{', ...' if len(position) > 5 else ''} ({len(position)}, task.labels).{numbers}"
    )


def _scores(names: list[str], config: TaskConfig, where: str) -> np.ndarray:
    """Scores of a regression task, (N,) float64, all finite."""
    try:
        scores = np.array(names, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{where}: a score of task {config.name} is no number ({error}); metric {config.metric} needs "
                        f"numbers in column {config.label!r}") from None  # fmt: skip
    if not np.isfinite(scores).all():
        raise DataError(
            f"{where}: {int((~np.isfinite(scores)).sum())} scores in column {config.label!r} are not finite"
        )
    return scores


def _notes(config: TaskConfig, splits: dict[str, Dataset]) -> dict:
    """Facts for the record: official row counts, subsets, duplicates, labels that a split lacks, empty texts."""
    official = {
        "train": config.official_rows.get(config.train_split),
        "validation": config.official_rows.get(config.split),
    }
    differs = {
        split: f"{len(data)} of {official[split]}"
        for split, data in splits.items()
        if official[split] not in (None, len(data))
    }
    keys = {split: _keys(data, config) for split, data in splits.items()}
    seen = set(keys["train"])
    notes = {
        "available_rows": {split: len(data) for split, data in splits.items()},
        "official_rows": {split: rows for split, rows in official.items() if rows is not None},
        "subset": differs,
        "validation_rows_in_train": sum(key in seen for key in keys["validation"]),
        "repeated_validation_rows": len(keys["validation"]) - len(set(keys["validation"])),
        "empty_texts": {split: sum("" in key for key in keys[split]) for split in splits},
    }
    if config.labels:
        present = {split: set(np.unique(data[config.label][:]).tolist()) for split, data in splits.items()}
        notes["absent_labels"] = {
            split: [name for index, name in enumerate(config.labels) if index not in present[split]] for split in splits
        }
    return notes


def _keys(data: Dataset, config: TaskConfig) -> list[tuple[str, ...]]:
    """Texts for comparing rows: lower case, runs of whitespace as one space."""
    columns = ([" ".join(text.lower().split()) for text in data[column][:]] for column in config.texts)
    return list(zip(*columns, strict=True))


def _limited(data: Dataset, rows: int | None, seed: int) -> Dataset:
    """At most `rows` rows, a seeded draw in the original order."""
    if rows is None or rows >= len(data):
        return data
    chosen = np.sort(np.random.default_rng([seed, rows]).choice(len(data), rows, replace=False))
    return data.select(chosen).flatten_indices()


def _warnings(config: TaskConfig, notes: dict) -> list[str]:
    lines = [f"{split} holds {share} official rows" for split, share in notes["subset"].items()]
    if notes["validation_rows_in_train"]:
        lines.append(f"{notes['validation_rows_in_train']} validation rows also lie in train")
    absent = notes.get("absent_labels", {}).get("train")
    if absent:
        lines.append(f"train has no row of {len(absent)} of {len(config.labels)} labels: {', '.join(absent[:5])}")
    return lines
