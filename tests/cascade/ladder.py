"""A ladder of three models that count votes of words: deterministic functions of the text, so pruning matters.

Every word has a hidden vote per label; the label is what all votes add up to. A model sees the votes blurred, the
smaller the more. Models answer in no time; their latencies are tables.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.pruning import prune_query
from tabi_bench.cascade.system import Cascade
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.loaded import LoadedModel
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile, Pruned, PruneKey, Ragged
from tabi_bench.system import FoldPlan, Plan
from tabi_bench.tasks.base import Query
from tabi_bench.zoo.base import ModelSpec, Zoo

BLUR = {"small": 0.9, "medium": 0.45, "large": 0.2}
BASE_MS = {"small": 1.0, "medium": 3.0, "large": 8.0}
LENGTHS = np.array([4, 8, 16, 32, 64])


@cache
def _normal(key: str, size: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(key.encode())).normal(size=size)


@dataclass
class Encoded:
    texts: tuple[str, ...]
    truncated: bool = False

    @property
    def words(self) -> tuple[list[str], ...]:
        return tuple(text.split() for text in self.texts)

    kept_texts, without = Encoding.kept_texts, Encoding.without


@dataclass
class VoteModel:
    """raises, nan: texts on which it raises, or returns NaN; calls: (texts, want_importance); batches: their sizes.

    Copies of it share all of these.
    """

    spec: ModelSpec
    outputs: int
    raises: set = field(default_factory=set)
    nan: set = field(default_factory=set)
    calls: list = field(default_factory=list)
    batches: list = field(default_factory=list)
    temperature: float = 1.0

    def encode(self, texts: Sequence[str]) -> Encoded:
        return Encoded(tuple(texts))

    def set_temperature(self, temperature: float) -> None:
        self.temperature = temperature

    def forward(self, encoding: Encoded, want_importance: bool = False) -> Output:
        self.calls.append((encoding.texts, want_importance))
        if encoding.texts in self.raises:
            raise RuntimeError("out of order")
        words = [word for text in encoding.words for word in text]
        votes = np.stack([true_votes(word, self.outputs) for word in words])
        blur = np.stack([_normal(self.spec.name + word, self.outputs) for word in words]) * BLUR[self.spec.name]
        logits = (votes + blur).sum(0).astype(np.float32)
        if encoding.texts in self.nan:
            logits[:] = np.nan
        if self.outputs == 1:
            logits = np.float32(2.5) + logits / 2
        importance = np.abs(votes + blur).sum(1).astype(np.float32) if want_importance else None
        return Output(logits, importance, pooled=np.append(logits, np.abs(blur).sum()).astype(np.float32))

    begin_batch = LoadedModel.begin_batch

    def forward_batch(self, encodings: Sequence[Encoded], want_importance: bool = False) -> list[Output]:
        self.batches.append(len(encodings))
        return [self.forward(encoding, want_importance) for encoding in encodings]


def true_votes(word: str, outputs: int) -> np.ndarray:
    """(K,): most words hardly matter."""
    strength = 1.0 if zlib.crc32(word.encode()) % 4 == 0 else 0.1
    return strength * _normal(word, outputs)


class Runner:
    """What a profile runs on pruned text."""

    def __init__(self, queries: list[Query], models: dict[str, VoteModel], importance: dict[str, Ragged], seed: int):
        self.queries, self.models, self.importance, self.seed = queries, models, importance, seed
        self.ran: list[tuple[PruneKey, int]] = []

    def _prune(self, key: PruneKey, rows: np.ndarray) -> list[tuple[Encoded, float, bool]]:
        pruned = []
        for row in rows:
            whole = Encoded(self.queries[row].texts)
            keep, near = prune_query(whole.words, self.importance[key.small][row], key, self.seed, int(row))
            pruned.append((whole.without(keep, Encoded), float(keep.mean()), near))
        return pruned

    def tokens(self, key: PruneKey, rows: np.ndarray) -> np.ndarray:
        return np.array([_tokens(encoding.texts) for encoding, _, _ in self._prune(key, rows)], np.int64)

    def __call__(self, key: PruneKey, rows: np.ndarray) -> Pruned:
        self.ran += [(key, int(row)) for row in rows]
        pruned = self._prune(key, rows)
        outputs = [self.models[key.large].forward(encoding) for encoding, _, _ in pruned]
        return Pruned(
            np.stack([output.logits for output in outputs]),
            self.tokens(key, rows),
            np.array([kept for _, kept, _ in pruned]),
            np.array([near for _, _, near in pruned]),
            np.stack([output.pooled for output in outputs]),
        )


def _tokens(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts) + 2


@dataclass(frozen=True)
class VoteProfile(Profile):
    """A profile whose models are at hand."""

    runner: Runner | None = None

    def pruned(self, key: PruneKey, positions: np.ndarray) -> Pruned:
        return self.runner(key, self.rows[positions])

    def pruned_tokens(self, key: PruneKey, positions: np.ndarray) -> np.ndarray:
        return self.runner.tokens(key, self.rows[positions])


@dataclass
class Ladder:
    """Queries, models and their profile; a Lab that loads the models.

    loaded: (model, importance, pooled, instance) of every load.
    """

    queries: list[Query]
    profile: VoteProfile
    models: dict[str, VoteModel]
    zoo: Zoo
    loaded: list[tuple[str, str | None, bool, str]] = field(default_factory=list)
    instance: str = ""
    rounds: int = 3
    batches: tuple[int, ...] = (1,)
    mixed: bool = False
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def load(self, name: str, *, importance: str | None = None, pooled: bool = False) -> VoteModel:
        self.loaded.append((name, importance, pooled, self.instance))
        return copy(self.models[name])

    def apart(self) -> Ladder:
        return replace(self, instance="again")

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def task(self) -> SimpleNamespace:
        return SimpleNamespace(queries=self.queries)

    def cascade(self, point: Point) -> Cascade:
        """The cascade that serves at `point`."""
        return Cascade.deploy(point.plain(), self, None)


class Counted:
    """An encoder that counts its calls."""

    def __init__(self, encode: Callable) -> None:
        self.encode, self.calls = encode, []

    def __call__(self, texts: Sequence[str]) -> Encoded:
        self.calls.append(texts)
        return self.encode(texts)


def build(n: int = 240, outputs: int = 3, metric: str = "accuracy", seed: int = 0, names: Sequence[str] = tuple(BLUR)):
    """A Ladder with n queries of 4 to 24 words, every third of them a pair of texts."""
    random = np.random.default_rng(seed)
    queries = []
    for row in range(n):
        words = [f"w{k}" for k in random.integers(0, 400, random.integers(4, 25))]
        half = len(words) // 2
        texts = (" ".join(words[:half]), " ".join(words[half:])) if row % 3 == 0 else (" ".join(words),)
        queries.append(Query(row, texts))
    specs = [ModelSpec(name, Path("nowhere"), "bert", 1, 10**k, name) for k, name in enumerate(names)]
    models = {spec.name: VoteModel(spec, outputs) for spec in specs}
    outcome = {name: [model.forward(Encoded(q.texts), True) for q in queries] for name, model in models.items()}
    importance = {name: Ragged.of([output.importance for output in results]) for name, results in outcome.items()}
    truth = np.stack([sum(true_votes(w, outputs) for t in q.texts for w in t.split()) for q in queries])
    labels = 2.5 + truth[:, 0] / 2 if outputs == 1 else truth.argmax(1)
    profiles = {name: _profile(name, results, queries, importance[name]) for name, results in outcome.items()}
    profile = VoteProfile(
        task="votes",
        metric=metric,
        n_outputs=outputs,
        rows=np.arange(n),
        labels=labels,
        models=profiles,
        runner=Runner(queries, models, importance, seed),
        overhead_ms=0.05,
        seed=seed,
    )
    return Ladder(queries, profile, models, Zoo("votes", tuple(specs)))


def _profile(name: str, results: list[Output], queries: list[Query], importance: Ragged) -> ModelProfile:
    ms = BASE_MS[name] * (0.5 + LENGTHS / 32)
    return ModelProfile(
        name=name,
        params=1,
        layers=1,
        logits=np.stack([output.logits for output in results]),
        tokens=np.array([_tokens(q.texts) for q in queries]),
        latency=LatencyCurve(LENGTHS, ms, ms * 1.1),
        truncated=np.zeros(len(queries), bool),
        importance={"last": importance},
        pooled=np.stack([output.pooled for output in results]),
    )


def as_plan(*folds: FoldPlan, method: str = "tabi") -> Plan:
    return Plan(method, "votes", list(folds), 0, {})
