"""Which output of a model is which label: measured on a slice of train, never believed.

Public checkpoints number their labels in several ways (MNLI alone: four conventions), and a wrong order looks like a
bad model. The number of rows that an order gets right is a sum of one count per label, so the best of all orders is an
assignment problem, whatever the number of labels.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from tabi_bench.cache import content_key, read_sealed, write_sealed
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.checks import naming, read_config
from tabi_bench.zoo.loading import ModelError, load_model, load_tokenizer
from tabi_bench.zoo.training import encode, predict

log = logging.getLogger(__name__)

ROWS = 600  # of train, as even over the labels as they allow
ROWS_PER_LABEL = 12  # at least, where a task has many labels
CLEAR = 3.0  # standard errors by which the best order must beat the next one, and chance
LEAST_CORRELATION = 0.3  # of a score with the labels
SAME_SCALE = (0.8, 1.25, 0.5)  # slope from, slope to, offset: a head inside these bounds is on the task's scale
ADVICE = (
    "Either it was fine-tuned for another task (leave it out), or texts or labels are at fault (task.texts, task.label)"
)
LONG = 2000  # words of a text that is cut at the longest length that the model reads
RULE = 1  # raised when the rule changes: findings stored under another number are measured again


@dataclass(frozen=True)
class Finding:
    """What the slice said: `label_order` or `scale` as in ModelSpec, the score under it, and the evidence.

    score: share right under the order, each label counting the same, or the correlation. runner_up: the same under the
    next best order. margin: their difference in standard errors.
    """

    score: float
    rows: int
    label_order: tuple[int, ...] | None = None
    runner_up: float | None = None
    margin: float | None = None
    by_name: bool = False  # the names in the model's configuration settled what the slice left open
    scale: tuple[float, float] | None = None


def slice_rows(labels: np.ndarray, seed: int, regression: bool) -> np.ndarray:
    """Row numbers of train to measure on: a seeded draw, as even over the labels as they allow."""
    random = np.random.default_rng([seed, ROWS])
    if regression:
        return np.sort(random.choice(len(labels), min(ROWS, len(labels)), replace=False))
    kinds = np.unique(labels)
    per_label = max(ROWS_PER_LABEL, ROWS // len(kinds))
    rows = [random.permutation(np.flatnonzero(labels == kind))[:per_label] for kind in kinds]
    return np.sort(np.concatenate(rows))


def best_orders(counts: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two orders that get most rows right, out of all n! of them.

    order[k] is the output of label k. The second best differs from the best somewhere, so it is the best of the n
    assignments that each forbid one of its choices.
    """
    best = _assign(counts)
    others = []
    for label, output in enumerate(best):
        without = counts.astype(np.float64)
        without[label, output] = -counts.sum() - 1.0
        others.append(_assign(without))
    return best, max(others, key=lambda order: _right(counts, order))


def _assign(counts: np.ndarray) -> tuple[int, ...]:
    return tuple(linear_sum_assignment(counts, maximize=True)[1].tolist())


def _right(counts: np.ndarray, order: tuple[int, ...]) -> int:
    return int(counts[np.arange(len(counts)), order].sum())


def _margin(counts: np.ndarray, first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """By how many standard errors `first` beats `second`, over the rows on which they differ (McNemar)."""
    differ = [k for k in range(len(first)) if first[k] != second[k]]
    won = sum(counts[k, first[k]] for k in differ)
    lost = sum(counts[k, second[k]] for k in differ)
    return float((won - lost) / math.sqrt(max(won + lost, 1)))


def named_order(outputs: dict[str, str], labels: list[str]) -> tuple[int, ...] | None:
    """The order that the names in a model's `id2label` give, or None where they are not the task's names."""
    plain = {_plain(name): int(index) for index, name in outputs.items()}
    order = [plain[_plain(label)] for label in labels if _plain(label) in plain]
    return tuple(order) if len(set(order)) == len(labels) else None


def _plain(name: str) -> str:
    return "".join(character for character in str(name).lower() if character.isalnum())


def find_order(counts: np.ndarray, named: tuple[int, ...] | None, what: str) -> Finding:
    """The order of a classifier's outputs from its counts (K, K). Raises ModelError where none fits, or two do.

    Among many labels some may be too rare to tell apart; there the model's own names decide, if they are as good as
    the best order within the noise.
    """
    best, second = best_orders(counts)
    seen = np.maximum(counts.sum(1), 1)
    rows, chance = int(counts.sum()), 1 / len(counts)

    def score(order: tuple[int, ...]) -> float:
        present = counts.sum(1) > 0
        return float((counts[np.arange(len(counts)), order] / seen)[present].mean())

    margin = _margin(counts, best, second)
    finding = Finding(score(best), rows, best, score(second), margin)
    if finding.score < chance + CLEAR * math.sqrt(chance * (1 - chance) / rows):
        raise ModelError(
            f"{what}: no order of its {len(counts)} outputs fits the task; the best gets {finding.score:.1%} of {rows} "
            f"rows of train right. {ADVICE}"
        )
    if margin >= CLEAR:
        return finding
    if named is not None and _margin(counts, best, named) < CLEAR:
        return replace(finding, label_order=named, score=score(named), by_name=True)
    raise ModelError(
        f"{what}: two orders of its outputs fit train about as well ({finding.score:.1%} and {finding.runner_up:.1%} "
        f"of {rows} rows, {margin:.1f} standard errors apart, {CLEAR:g} are wanted), and its names "
        f"do not settle it; leave it out, or write the task's label names into id2label of its config.json"
    )


def find_scale(scores: np.ndarray, labels: np.ndarray, what: str) -> Finding:
    """The straight line from a regression head's outputs (N,) to the labels (N,), where they lie on another scale."""
    spread = float(scores.std())
    correlation = float(np.corrcoef(scores, labels)[0, 1]) if spread > 0 else 0.0
    if not correlation >= LEAST_CORRELATION:
        raise ModelError(
            f"{what}: its score does not follow the labels (correlation {correlation:.2f} on {len(labels)} rows of "
            f"train). {ADVICE}"
        )
    slope, offset = (float(value) for value in np.polyfit(scores, labels, 1))
    low, high, shift = SAME_SCALE
    same = low <= slope <= high and abs(offset) <= shift
    return Finding(correlation, len(labels), scale=None if same else (slope, offset))


def measure(spec: ModelSpec, task: Task, seed: int, device: str) -> Finding:
    """Runs the model on the slice of train. Raises ModelError where it does not fit the task."""
    config = read_config(spec.path)
    labels = task.labels("train")
    rows = slice_rows(labels, seed, task.is_regression)
    texts = task.texts("train")
    extremes = [("",) * len(texts[0]), ("a " * LONG,) * len(texts[0])]
    examples = encode(load_tokenizer(spec.path, spec.max_length), [*(texts[row] for row in rows), *extremes])
    with naming(spec.path, "it cannot answer rows of train, an empty text or a long one"):
        model = load_model(replace(spec, label_order=None, scale=None), torch.float32, device)
        logits = predict(model, examples, device)
    what = f"{spec.name} ({spec.path})"
    wrong = int((~np.isfinite(logits).all(axis=1)).sum())
    if wrong:
        raise ModelError(f"{what}: its outputs on {wrong} of {len(logits)} texts are not finite; its weights are "
                         f"damaged: leave it out")  # fmt: skip
    logits = logits[: len(rows)]
    if task.is_regression:
        return find_scale(logits[:, 0].astype(np.float64), labels[rows], what)
    counts = confusion_matrix(labels[rows], logits.argmax(1), labels=np.arange(task.n_outputs))
    return find_order(counts, named_order(config.get("id2label") or {}, task.config.labels), what)


def checked(spec: ModelSpec, task: Task, cache_dir: Path, seed: int, device: str) -> tuple[ModelSpec, Finding]:
    """`spec` with its label order or scale as measured on `task`; measured once, then read from the cache."""
    key = content_key(RULE, spec.content_hash, spec.max_length, task.content_hash, task.config.labels, seed)
    file = Path(cache_dir).expanduser() / "labels" / f"{key}.json"
    finding = _stored(file)
    if finding is None:
        finding = measure(spec, task, seed, device)
        write_sealed(file, json.dumps(asdict(finding), indent=1).encode())
        log.info("%s on %s: %s, score %.3f on %d rows of train", spec.name, task.name,
                 f"scale {finding.scale}" if task.is_regression else f"label order {finding.label_order}",
                 finding.score, finding.rows)  # fmt: skip
    return replace(spec, label_order=finding.label_order, scale=finding.scale), finding


def _stored(file: Path) -> Finding | None:
    content = read_sealed(file)
    if content is None:
        return None
    raw = json.loads(content)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    return Finding(**values)
