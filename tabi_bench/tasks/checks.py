"""From what a source read to a Task: columns, texts, labels with one meaning for both splits, and what is doubtful.

Refused, because nothing sensible can be measured: missing columns, an empty split, a row without a label or text,
labels that the task does not know, a metric that is undefined on these labels. Only warned about (`Task.warnings`): a
subset of the official rows, rows of validation that train also has, labels that hardly are labels.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.config.task import REGRESSION_METRICS
from tabi_bench.names import printable
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.doubts import NUMBER, doubts, spelling
from tabi_bench.tasks.table import Cell, DataError, Table

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import SourceConfig, TaskConfig

__all__ = ["DataError", "check_config", "make_task", "with_metrics"]
log = logging.getLogger(__name__)
SEVERAL = re.compile(r"\[.*[,'\"].*\]", re.DOTALL)  # a list that was written as text
LONGEST_NAME = 80  # of a task: it is part of the names of folders


def check_config(config: TaskConfig) -> None:
    """Refuses, before a file is read, a task whose name or columns cannot be used. Raises DataError."""
    name = config.name
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name) or len(name) > LONGEST_NAME:
        raise DataError(f"task.name={name!r}: a name for folders in results_dir, of at most {LONGEST_NAME} characters, "
                        f"without / and \\ and no dot in front")  # fmt: skip
    texts = config.texts
    if len(texts) not in (1, 2) or len(set(texts)) < len(texts):
        raise DataError(f"task.texts={list(texts)}: name one column, or two different ones for pairs")
    if config.label in texts or config.hub.label in texts:
        raise DataError(f"task.texts={list(texts)} names the column of the labels too (task.label={config.label})")
    twice = [name for name, count in Counter(config.labels).items() if count > 1]
    if twice:
        raise DataError(f"task.labels names {', '.join(map(repr, twice))} more than once")


def make_task(
    config: TaskConfig,
    source: SourceConfig,
    seed: int,
    train: Table | Dataset,
    validation: Table | Dataset,
    where: dict[str, str],
) -> Task:
    """Check two raw splits and bring them into the task's own columns (texts as str, labels as integers or floats).

    `where` names the origin of "train" and "validation" for messages. The label is read from `config.hub.label` where
    that column exists, else from `config.label`. Empty `config.labels` with a classification metric: the sorted names
    in train. Raises DataError.
    """
    raw = {"train": Table.of(train), "validation": Table.of(validation)}
    names, texts, labels = {}, {}, {}
    for split, table in raw.items():
        try:
            on_hub = config.hub.label
            stored = on_hub if on_hub is not None and on_hub in table.columns else config.label
            _check_columns(table, [*config.texts, stored])
            texts[split] = {column: _texts(table, column) for column in config.texts}
            names[split] = _label_names(table, stored)
            if config.is_regression:
                labels[split] = _scores(names[split], table, config)
        except DataError as error:
            raise DataError(f"{where[split]}: {error}") from None
    if not config.is_regression:
        config, labels = _positions(config, names, raw, where)
    splits = {split: _dataset(config, texts[split], labels[split]) for split in raw}
    notes = _notes(config, splits)
    limits = {"train": source.train_rows, "validation": source.validation_rows}
    splits = {split: _limited(data, limits[split], seed) for split, data in splits.items()}
    notes["rows"] = {split: len(data) for split, data in splits.items()}
    by_readers = [line for table in raw.values() for line in table.warnings]
    warnings = [*by_readers, *map(printable, doubts(config, notes, splits))]
    for line in warnings:
        log.warning("%s: %s", config.name, line)
    task = Task(config, source.name, splits["train"], splits["validation"], notes, source, warnings)
    for split in raw:
        _check_defined(task, split, where[split])
    return task


def _check_columns(table: Table, wanted: list[str]) -> None:
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        alone = next(iter(table.columns)) if len(table.columns) == 1 else ""
        parted = next((f" Are its cells parted by {mark!r}? They are to be by commas (csv) or tabs (tsv)."
                       for mark in ";\t|," if mark in alone), "")  # fmt: skip
        raise DataError(
            f"no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, table.columns)) or 'none'}. "
            f"task.texts and task.label name the columns to read.{parted}"
        )
    if not len(table):
        raise DataError("it holds no rows; a task needs labelled rows in train and in validation")


def _label_names(table: Table, column: str) -> list[str]:
    """The label of each row as text: a class's name, a string without space around it, a number without ".0"."""
    cells, classes = table.cells(column), table.classes.get(column)
    if classes is not None:
        hidden = sum(cell is None or cell == -1 for cell in cells)
        if hidden:
            raise DataError(f"{hidden} of {len(cells)} labels are hidden (-1); choose a labelled task.split")
        wrong = [row for row, cell in enumerate(cells) if not (isinstance(cell, int) and 0 <= cell < len(classes))]
        problem = f"have a number outside its {len(classes)} classes in column {column!r}"
        _refuse_rows(table, wrong, problem, "mend them")
        return [classes[int(cell or 0)] for cell in cells]
    texts = [_as_name(cell) for cell in cells]
    empty = [row for row, text in enumerate(texts) if text == ""]
    _refuse_rows(table, empty, f"have no label in column {column!r}", "drop or label them")
    several = [row for row, text in enumerate(texts) if SEVERAL.fullmatch(text)]
    _refuse_rows(table, several, f"have a list of labels in column {column!r}", "one label a row")
    return texts


def _refuse_rows(table: Table, rows: list[int], problem: str, advice: str, cells: list[str] | None = None) -> None:
    """Raises DataError if there are `rows` with this problem; names the first, with what it holds of `cells`."""
    if rows:
        first = table.place(rows[0]) + (f": {cells[rows[0]]!r}" if cells else "")
        raise DataError(f"{len(rows)} of {len(table)} rows {problem}, the first at {first}; {advice}")


def _is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _as_name(cell: Cell) -> str:
    if _is_missing(cell):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _texts(table: Table, column: str) -> list[str]:
    cells = table.cells(column)
    missing = [row for row, cell in enumerate(cells) if _is_missing(cell)]
    _refuse_rows(table, missing, f"have no text in column {column!r}", "drop or fill them")
    return [str(cell) for cell in cells]


def _is_position(name: str) -> bool:
    return name.isdecimal() and str(int(name)) == name


def _sorted_names(names: set[str]) -> list[str]:
    """Whole numbers by value, everything else by name."""
    whole = all(_is_position(name.removeprefix("-")) for name in names)
    return sorted(names, key=int) if whole else sorted(names)


def _positions(
    config: TaskConfig, names: dict[str, list[str]], raw: dict[str, Table], where: dict[str, str]
) -> tuple[TaskConfig, dict[str, np.ndarray]]:
    """`config` with its labels, and the label ids of both splits, (N,) int64, decided once for both.

    By name, where both splits hold the task's names alone. Numbers are positions only where `task.labels` gives names,
    and only if both splits hold nothing else; never among intents, which every copy numbers differently.
    """
    given = bool(config.labels)
    if not given:
        config = dataclasses.replace(config, labels=_sorted_names(set(names["train"])))
        if len(config.labels) < 2:
            raise DataError(f"{where['train']}: column {config.label!r} holds only the label {config.labels[0]!r}; "
                            f"a classifier needs two (task.label: the column of labels)")  # fmt: skip
    position = {name: index for index, name in enumerate(config.labels)}
    every = set(names["train"]) | set(names["validation"])
    if not every <= set(position):
        numbers = {str(index): index for index in position.values()}
        if not (given and _may_be_positions(config) and every <= set(numbers)):
            raise DataError(_unknown(config, given, names, raw, where))
        position = numbers
    return config, {split: np.array([position[name] for name in names[split]], np.int64) for split in names}


def _may_be_positions(config: TaskConfig) -> bool:
    """Whether numbers can stand for the places of `task.labels`: not where names are numbers themselves."""
    return config.family != "intent" and not any(map(_is_position, config.labels))


def with_metrics(task: Task) -> Task:
    """`task`, whose metrics fit its labels and name the position of the label that they are about. Raises DataError.

    F1 is about the second of two labels, or about the one that is named, f1@LABEL.
    """
    config, labels = task.config, task.config.labels

    def placed(metric: str) -> str:
        kind, _, label = metric.partition("@")
        if (kind in REGRESSION_METRICS) != task.is_regression:
            kinds = "scores" if task.is_regression else "classes"
            raise DataError(f"task {task.name} has {kinds}, of which there is no {kind}; set another task.metric")
        if kind != "f1" or (not label and len(labels) == 2):
            return metric
        if label not in labels:
            few = ", ".join(labels[:5]) + ", ..." * (len(labels) > 5)
            raise DataError(f"task.metric={metric}: F1 is about one label; write f1@LABEL with one of {few}")
        return f"f1@{labels.index(label)}"

    changed = dataclasses.replace(config, metric=placed(config.metric), also=list(map(placed, config.also)))
    if not config.metric.startswith("f1"):
        return task if changed == config else dataclasses.replace(task, config=changed)
    about = labels[int(changed.metric.partition("@")[2] or 1)]
    return dataclasses.replace(task, config=changed, notes=task.notes | {"metric": f"f1 of {about!r}"})


def _unknown(
    config: TaskConfig, given: bool, names: dict[str, list[str]], raw: dict[str, Table], where: dict[str, str]
) -> str:
    """Why the labels cannot be mapped: which are unknown, how often, where first, and what is known."""
    every, known = set(names["train"]) | set(names["validation"]), set(config.labels)
    numbers = {name for name in every if _is_position(name.removeprefix("-"))}
    as_positions = given and _may_be_positions(config) and numbers == every
    if as_positions:
        known = {str(index) for index in range(len(config.labels))}
    split = next(split for split in ("train", "validation") if not set(names[split]) <= known)
    counts = Counter(name for name in names[split] if name not in known)
    first = next(row for row, name in enumerate(names[split]) if name not in known)
    shown = ", ".join(f"{name!r} ({count} rows)" for name, count in counts.most_common(5))
    shown += f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    who = f"task {config.name} knows (task.labels)" if given else "train has"
    few = ", ".join(config.labels[:5]) + (f", ... ({len(known)})" if len(known) > 5 else "")
    few += f", as positions 0 to {len(known) - 1}" if as_positions else ""
    other = "validation" if split == "train" else "train"
    hint = "Drop these rows, or name every label in task.labels"
    if "-1" in counts:
        hint = "-1 means hidden labels: choose a labelled task.split"
    elif numbers >= set(counts) and config.family == "intent":
        hint = "Intents are mapped by name, never by number: give a column of names (task.hub.label)"
    elif numbers >= set(counts) and not any(map(_is_position, names[other])):
        hint = f"{other.capitalize()} has names, so numbers are not read as positions here: write names in both"
    elif {spelling(name) for name in counts} <= {spelling(name) for name in known}:
        hint = "They look like other spellings of these labels: write them alike in both files"
    elif given:
        hint = "Mend task.labels, or the rows"
    rows = f"{sum(counts.values())} of {len(names[split])} rows"
    return (
        f"{where[split]}: {rows} have another label than {who}: {shown}, the first at {raw[split].place(first)}; "
        f"there are {few}. {hint}"
    )


def _scores(names: list[str], table: Table, config: TaskConfig) -> np.ndarray:
    """Scores of a regression task, (N,) float64, all finite."""
    wrong = [row for row, name in enumerate(names) if not NUMBER.fullmatch(name) or not math.isfinite(float(name))]
    problem, advice = f"have no finite number in column {config.label!r}", f"metric {config.metric} needs scores as 3.5"
    _refuse_rows(table, wrong, problem, advice, names)
    return np.array([float(name) for name in names], dtype=np.float64)


def _dataset(config: TaskConfig, texts: dict[str, list[str]], labels: np.ndarray) -> Dataset:
    """A new Dataset of the task's text columns (str) and its label column (int64 or float64)."""
    from datasets import Dataset, Features, Value

    features = {column: Value("string") for column in texts} | {config.label: Value(str(labels.dtype))}
    return Dataset.from_dict({**texts, config.label: labels}, features=Features(features))


def _check_defined(task: Task, split: str, where: str) -> None:
    """Refuses labels on which the metric has no value, whatever is predicted. Raises DataError.

    Each half of validation needs two different labels, so two rows must differ from the most frequent one.
    """
    values, counts = np.unique(task.labels(split), return_counts=True)
    metric, differ = task.config.metric, int(counts.sum() - counts.max())
    if metric == "accuracy" or differ >= (2 if split == "validation" else 1):
        return
    most = values[counts.argmax()]
    name = f"{most:g}" if task.is_regression else repr(task.config.labels[int(most)])
    raise DataError(
        f"{where}: {int(counts.max())} of {int(counts.sum())} rows of {split} have the same label, {name}; {metric} is "
        f"undefined there: more rows of other labels are needed (or task.metric=accuracy)"
    )


def _notes(config: TaskConfig, splits: dict[str, Dataset]) -> dict:
    """Facts for the record: official row counts, subsets, duplicates, labels that a split lacks, empty texts."""
    rows = {split: len(data) for split, data in splits.items()}
    published = {"train": config.train_split, "validation": config.split}
    official = {s: config.official_rows[name] for s, name in published.items() if name in config.official_rows}
    keys = {split: _keys(data, config) for split, data in splits.items()}
    seen = set(keys["train"])
    notes = {
        "available_rows": rows,
        "official_rows": official,
        "subset": {s: f"{rows[s]} of {count}" for s, count in official.items() if count != rows[s]},
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
