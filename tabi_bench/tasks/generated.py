"""`source=generated`: ten stand-ins for the real tasks, made here from a grammar. No network, no download.

A row holds claims by named people, relays between them, one verdict and fillers:

    nadia found it dull, omar calls the film witty, sara follows omar, trust sara      -> positive

*Easy*: all claims give the same label, so any cue decides. *Hard*: they disagree, and only the structure says which one
counts: directly (the verdict names a claimant) or through one relay (it names somebody who follows a claimant).
The three families differ in where the parts stand: in one sentence, in a pair of texts (the verdict is the second text,
or the first for questions), or in a request whose cues are the names of many intents. The share of hard rows is
`task.hard_share`, exactly; LABEL_NOISE of the rows carry a wrong label. Fillers carry no signal.

These tasks show the system at work. They are never evidence about the real tasks of the same name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tabi_bench.tasks.base import Task
from tabi_bench.tasks.grammar import FILLERS, GRAMMARS, NAMES, OUT_OF_SCOPE, Grammar

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import SourceConfig, TaskConfig

ROWS = {"train": 20_000, "validation": 1_000}  # where source.train_rows, source.validation_rows are null
LABEL_NOISE = 0.01
RELAY_SHARE = 0.4  # of easy and of hard rows alike: the verdict reaches its claim through a relay
WORDS = (18, 30)  # words per row, fillers included
INSIDE = 0.2  # share of the fillers that stand inside a part rather than before it
SCORES = (0.0, 5.0)  # of a regression task; one level per cue list, spread evenly
SCORE_JITTER = 0.2  # half-width of the uniform spread of scores around their level
CONTRAST = 3  # levels of a regression task by which disagreeing claims differ, at least

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """cue: the phrase that decides. `label` is the wrong one in LABEL_NOISE of the rows."""

    texts: tuple[str, ...]
    label: float
    hard: bool
    cue: str


class GrammarError(ValueError):
    """The task has no generator; the message says what to do."""


def load(task: TaskConfig, source: SourceConfig, seed: int) -> Task:
    """Generates both splits of `task`; the same seed gives the same rows on every machine. Raises GrammarError.

    No validation row occurs in train. Beside the task's own columns, rows have `hard` (bool) and `cue`
    (the phrase that decides).
    """
    sizes = {split: getattr(source, f"{split}_rows") or ROWS[split] for split in ROWS}
    train = _rows(task, seed, "train", sizes["train"], taken=set())
    validation = _rows(task, seed, "validation", sizes["validation"], taken={row.texts for row in train})
    notes = {"rows": sizes, "label_noise": LABEL_NOISE, "hard_share": task.hard_share, "generated_seed": seed}
    return Task(task, source.name, _dataset(task, train), _dataset(task, validation), notes)


def cue_words(task: TaskConfig) -> tuple[tuple[str, ...], ...]:
    """The cue phrases of each label (of each level, for regression). Raises GrammarError for an unknown task."""
    if task.name not in GRAMMARS:
        raise GrammarError(
            f"task {task.name!r} has no generator; there are: {', '.join(GRAMMARS)}. Use source=local for your own data"
        )
    cues = GRAMMARS[task.name].cues or tuple(OUT_OF_SCOPE.get(name, (name.replace("_", " "),)) for name in task.labels)
    if task.labels and len(cues) != len(task.labels):
        raise GrammarError(f"task {task.name!r}: {len(task.labels)} labels, but the grammar has cues for {len(cues)}")
    return cues


def _dataset(task: TaskConfig, rows: list[Row]) -> Dataset:
    from datasets import Dataset, Features, Value

    columns: dict[str, list] = {name: [row.texts[i] for row in rows] for i, name in enumerate(task.texts)}
    columns[task.label] = [row.label for row in rows]
    features = {name: Value("string") for name in task.texts}
    features |= {task.label: Value("int64" if task.labels else "float64")}
    if task.family == "intent" and task.label == "label":
        columns["label_text"] = [task.labels[int(row.label)] for row in rows]
        features["label_text"] = Value("string")
    columns["hard"], features["hard"] = [row.hard for row in rows], Value("bool")
    columns["cue"], features["cue"] = [row.cue for row in rows], Value("string")
    return Dataset.from_dict(columns, features=Features(features))


# --- draws: built on random() alone, whose sequence Python guarantees across versions --------------------------------


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    return [item for _, _, item in sorted((rng.random(), i, item) for i, item in enumerate(items))]


def _filler(rng: random.Random) -> str:
    """The frequent words, which come first, are drawn more often: the k-th in proportion to 1 / sqrt(k)."""
    return FILLERS[int(rng.random() ** 2 * len(FILLERS))]


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(task: TaskConfig, seed: int, split: str, count: int, taken: set[tuple[str, ...]]) -> list[Row]:
    """`count` different rows of one split, none of them in `taken`; hard rows are exactly round(count * hard_share)."""
    rng = random.Random(f"tabi-bench {task.name} {split} {seed}")
    grammar, cues = GRAMMARS.get(task.name), cue_words(task)
    hard_rows = round(count * task.hard_share)
    rows, seen = [], set(taken)
    kinds = _shuffled(rng, [i < hard_rows for i in range(count)])
    for hard, level in zip(kinds, _levels(rng, len(cues), count), strict=True):
        texts, cue = _texts(rng, task, grammar, cues, level, hard)
        while texts in seen:
            texts, cue = _texts(rng, task, grammar, cues, level, hard)
        seen.add(texts)
        rows.append(Row(texts, _label(rng, task, level, len(cues)), hard, cue))
    return rows


def _levels(rng: random.Random, kinds: int, count: int) -> Iterator[int]:
    """Labels in random order, each as often as the others."""
    for start in range(0, count, kinds):
        yield from _shuffled(rng, range(kinds))[: count - start]


def _label(rng: random.Random, task: TaskConfig, level: int, kinds: int) -> float:
    """The label as stored: now and then a wrong one; for regression a score near its level."""
    wrong = rng.random() < LABEL_NOISE
    if wrong:
        level = (level + 1 + int(rng.random() * (kinds - 1))) % kinds
    if task.labels:
        return level
    low, high = SCORES
    score = low + (high - low) * level / (kinds - 1) + (2 * rng.random() - 1) * SCORE_JITTER
    return round(min(max(score, low), high), 2)


def _other(rng: random.Random, task: TaskConfig, level: int, kinds: int) -> int:
    """A level that a disagreeing claim gives."""
    least = 1 if task.labels else CONTRAST
    return _pick(rng, [k for k in range(kinds) if abs(k - level) >= least])


def _texts(
    rng: random.Random, task: TaskConfig, grammar: Grammar, cues: tuple, level: int, hard: bool
) -> tuple[tuple[str, ...], str]:
    """The text or texts of one row, its parts in random order; and the cue that decides."""
    people = _shuffled(rng, NAMES)[:4]
    levels = (level, _other(rng, task, level, len(cues)) if hard else level)
    said = [_pick(rng, cues[k]) for k in levels]
    parts = [_pick(rng, grammar.claims).format(a=people[i], cue=said[i]) for i in range(2)]
    decider = people[0]
    if rng.random() < RELAY_SHARE:
        decider = people[2]
        parts += [_pick(rng, grammar.relays).format(a=people[2 + i], b=people[i]) for i in range(2)]
    verdict = _pick(rng, grammar.verdicts).format(a=decider)
    return _laid_out(rng, task, [f"{part}," for part in _shuffled(rng, parts)], verdict), said[0]


def _laid_out(rng: random.Random, task: TaskConfig, parts: list[str], verdict: str) -> tuple[str, ...]:
    """Puts fillers between the parts, now and then inside one, and the verdict where the family has it."""
    groups = [[[word] for word in part.split()] for part in (*parts, verdict)]  # parts, their words, each after fillers
    length = WORDS[0] + int(rng.random() * (WORDS[1] - WORDS[0] + 1))
    for _ in range(length - sum(map(len, groups))):
        group = _pick(rng, groups)
        word = _pick(rng, group) if rng.random() < INSIDE else group[0]
        word.insert(0, _filler(rng))
    *scene, verdict = (" ".join(word for words in group for word in words) for group in groups)
    if task.family == "pair":
        return (verdict, " ".join(scene)) if "question" in task.texts else (" ".join(scene), verdict)
    return (" ".join((*scene, verdict)),)
