"""`source=generated`: ten stand-ins for the real tasks, made here from a grammar. No network, no download.

A row holds two or three claims among fillers. Each is a marker and a cue phrase; one marker says that its cue counts:

    now the garden not gripping here also quite surely perhaps dull then        -> negative

*Easy*: all claims give the same label, so any cue decides. *Hard*: the first discounted claim gives another label (a
third claim gives any), and only the markers, which fillers may part from their cues, say which one counts.
The three families differ in where the claims stand and what they say: in one sentence, each in either one of a pair of
texts, or in a request whose cues are the names of many intents. The share of hard rows is `task.hard_share`, exactly;
LABEL_NOISE of the rows carry a wrong label. Fillers carry no signal.

These tasks show the system at work. They are never evidence about the real tasks of the same name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from tabi_bench.cache import content_key
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.grammar import COUNTS, CUES, DISCOUNTS, FILLERS, OUT_OF_SCOPE

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import GeneratedConfig, TaskConfig

LABEL_NOISE = 0.01
THIRD_CLAIM = 0.4  # share of the rows, easy and hard alike, with a third claim
GAP = 0.5  # probability of a filler between marker and cue, and of each further one up to MOST_GAP
MOST_GAP = 3
WORDS = (18, 30)  # words per row, fillers included
SCORES = (0.0, 5.0)  # of a regression task; one level per cue list, spread evenly
SCORE_JITTER = 0.2  # half-width of the uniform spread of scores around their level
CONTRAST = 3  # levels of a regression task by which disagreeing claims differ, at least

T = TypeVar("T")
_LATEST: dict[str, Task] = {}


@dataclass(frozen=True)
class Row:
    """cue: the phrase that decides. `label` is the wrong one in LABEL_NOISE of the rows."""

    texts: tuple[str, ...]
    label: float
    hard: bool
    cue: str


class GrammarError(ValueError):
    """The task has no generator; the message says what to do."""


def load(task: TaskConfig, source: GeneratedConfig, seed: int) -> Task:
    """Generates both splits of `task`; the same seed gives the same rows on every machine. Raises GrammarError.

    No validation row occurs in train. Beside the task's own columns, rows have `hard` (bool) and `cue`
    (the phrase that decides). The latest task is kept: the sessions of a sweep often share it.
    """
    key = content_key(asdict(task), asdict(source), seed)
    if key not in _LATEST:
        made = _load(task, source, seed)
        _LATEST.clear()
        _LATEST[key] = made
    return _LATEST[key]


def _load(task: TaskConfig, source: GeneratedConfig, seed: int) -> Task:
    if (wanted := 2 if task.family == "pair" else 1) != len(task.texts):
        raise GrammarError(f"task.texts={task.texts}: rows of {task.name} are made with {wanted} of them")
    sizes = {"train": source.train_rows, "validation": source.validation_rows}
    train = _rows(task, seed, "train", sizes["train"], taken=set())
    validation = _rows(task, seed, "validation", sizes["validation"], taken={row.texts for row in train})
    notes = {"rows": sizes, "label_noise": LABEL_NOISE, "hard_share": task.hard_share, "generated_seed": seed}
    return Task(task, source.name, _dataset(task, train), _dataset(task, validation), notes, source)


def cue_words(task: TaskConfig) -> tuple[tuple[str, ...], ...]:
    """The cue phrases of each label (of each level, for regression). Raises GrammarError for an unknown task."""
    if task.name not in CUES:
        raise GrammarError(
            f"task {task.name!r} has no generator; there are: {', '.join(CUES)}. Use source=local for your own data"
        )
    cues = CUES[task.name] or tuple(OUT_OF_SCOPE.get(name, (name.replace("_", " "),)) for name in task.labels)
    if task.labels and len(cues) != len(task.labels):
        raise GrammarError(f"task {task.name!r}: {len(task.labels)} labels, but the grammar has cues for {len(cues)}")
    return cues


def _dataset(task: TaskConfig, rows: list[Row]) -> Dataset:
    from datasets import Dataset, Features, Value

    columns: dict[str, list] = {name: [row.texts[i] for row in rows] for i, name in enumerate(task.texts)}
    columns[task.label] = [row.label for row in rows]
    if task.family == "intent" and task.label == "label":
        columns["label_text"] = [task.labels[int(row.label)] for row in rows]
    columns |= {"hard": [row.hard for row in rows], "cue": [row.cue for row in rows]}
    kinds = {task.label: "int64" if task.labels else "float64", "hard": "bool"}
    return Dataset.from_dict(columns, Features({name: Value(kinds.get(name, "string")) for name in columns}))


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
    cues = cue_words(task)
    hard_rows = round(count * (task.hard_share or 0.0))
    rows, seen = [], set(taken)
    kinds = _shuffled(rng, [i < hard_rows for i in range(count)])
    for hard, level in zip(kinds, _levels(rng, len(cues), count), strict=True):
        texts, cue = _texts(rng, task, cues, level, hard)
        while texts in seen:
            texts, cue = _texts(rng, task, cues, level, hard)
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
    rng: random.Random, task: TaskConfig, cues: tuple[tuple[str, ...], ...], level: int, hard: bool
) -> tuple[tuple[str, ...], str]:
    """The text or texts of one row, its claims in random order; and the cue that decides."""
    decides = _pick(rng, cues[level])
    claims = [(COUNTS, decides), (DISCOUNTS, _pick(rng, cues[_other(rng, task, level, len(cues)) if hard else level]))]
    if rng.random() < THIRD_CLAIM:
        claims.append((DISCOUNTS, _pick(rng, _pick(rng, cues) if hard else cues[level])))
    parts = [_claim(rng, _pick(rng, markers), cue) for markers, cue in _shuffled(rng, claims)]
    groups: list[list[list[str]]] = [[], []] if task.family == "pair" else [parts]
    for part in parts if task.family == "pair" else ():
        _pick(rng, groups).append(part)
    fillers = WORDS[0] + int(rng.random() * (WORDS[1] - WORDS[0] + 1)) - sum(map(len, parts))
    return tuple(_among_fillers(rng, group, fillers // len(groups)) for group in groups), decides


def _claim(rng: random.Random, marker: str, cue: str) -> list[str]:
    """The words of one claim, now and then with fillers between marker and cue."""
    gap: list[str] = []
    while len(gap) < MOST_GAP and rng.random() < GAP:
        gap.append(_filler(rng))
    return [*marker.split(), *gap, *cue.split()]


def _among_fillers(rng: random.Random, claims: list[list[str]], count: int) -> str:
    """One text: the claims in order, `count` fillers before, between and after them."""
    before: list[list[str]] = [[] for _ in range(len(claims) + 1)]
    for _ in range(count):
        _pick(rng, before).append(_filler(rng))
    words = [word for slot, claim in zip(before, [*claims, []], strict=True) for word in (*slot, *claim)]
    return " ".join(words)
