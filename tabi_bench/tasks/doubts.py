"""What is doubtful about a task's rows though it can be measured: the sentences of `Task.warnings`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import TaskConfig

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
NO_LABEL = {
    "nan", "inf", "-inf", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "nat", "missing", "undefined", "-", "?",
}  # fmt: skip
MANY = 10  # labels that are whole numbers: so many may be classes, as one to ten stars are
SHARE_EMPTY = 0.05  # of validation texts


def doubts(config: TaskConfig, notes: dict, splits: dict[str, Dataset]) -> list[str]:
    """One sentence each for what a person should look at before believing a score."""
    lines = [f"{split} holds {share} official rows" for split, share in notes["subset"].items()]
    validation = len(splits["validation"])
    if notes["validation_rows_in_train"]:
        lines.append(f"{notes['validation_rows_in_train']} of {validation} validation rows also lie in train")
    empty = notes["empty_texts"]["validation"]
    if empty > SHARE_EMPTY * validation:
        lines.append(f"{empty} of {validation} validation rows have an empty text (task.texts: the columns)")
    if config.labels:
        return lines + _of_labels(config, notes, splits)
    values = np.unique(splits["train"][config.label][:])
    if len(values) == 2:
        lines.append(f"its scores are {values[0]:g} and {values[1]:g} alone; two classes? task.metric=accuracy")
    return lines


def _of_labels(config: TaskConfig, notes: dict, splits: dict[str, Dataset]) -> list[str]:
    names, rows = config.labels, len(splits["train"])
    counts = Counter(index for data in splits.values() for index in data[config.label][:])
    lines = []
    for split, absent in notes["absent_labels"].items():
        if absent and len(names) - len(absent) == 1:
            lines.append(
                f"all rows of {split} have the same label; a model that never looks at the text is right there"
            )
        elif absent:
            lines.append(f"{split} has no row of {len(absent)} of {len(names)} labels: {', '.join(absent[:5])}")
    for index, name in enumerate(names):
        if name.strip().casefold() in NO_LABEL:
            lines.append(f"{name!r} stands {counts[index]} times among the labels; drop these rows if they have none")
    for alike in _spellings(names):
        lines.append(
            f"{' and '.join(map(repr, alike))} look like spellings of one label; they are learnt as {len(alike)}"
        )
    several = _several(names)
    if several:
        lines.append(f"labels like {several[0]!r} look like several labels in one; each combination is a label here")
    if _like_scores(names):
        lines.append(f"its {len(names)} labels are numbers, nearly one class a value; scores? task.metric=pearson")
    elif len(names) > max(MANY, rows / 2):
        lines.append(f"{len(names)} labels in {rows} rows of train, nearly one class a row; does task.label name them?")
    return lines


def _spellings(names: list[str]) -> list[list[str]]:
    """Groups of names that are spelt alike."""
    groups = defaultdict(list)
    for name in names:
        groups[spelling(name)].append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def spelling(name: str) -> str | float:
    """A label without case, width, spaces, invisible characters, hyphens and full stops; of a number its value."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    if NUMBER.fullmatch(plain):
        return float(plain)
    visible = "".join(character for character in plain if unicodedata.category(character) != "Cf")
    return re.sub(r"[\s_.\-]+", "", visible) or plain


def _several(names: list[str]) -> list[str]:
    """Names that are made of two other names, with a mark between them."""
    known = set(names)
    parts = {name: [part.strip() for part in re.split(r"[|;,+]", name)] for name in names}
    return [name for name, pieces in parts.items() if len(pieces) > 1 and set(pieces) <= known]


def _like_scores(names: list[str]) -> bool:
    """Whether all are numbers, a missing one apart, and broken ones or many."""
    present = [name for name in names if name.casefold() != "nan"]
    if len(present) < 2 or not all(map(NUMBER.fullmatch, present)):
        return False
    return len(present) > MANY or any(float(name) % 1 for name in present)
