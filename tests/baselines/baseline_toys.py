"""A profile of three models with round latencies, a lab whose models answer from it, a target that is a plain score."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tabi_bench.engines.base import Output
from tabi_bench.engines.loaded import LoadedModel
from tabi_bench.evaluation.metrics import score
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tabi_bench.system import FoldPlan, Plan
from tabi_bench.tasks.base import Query

LATENCY_MS = {"small": 1.0, "medium": 2.0, "large": 4.0}


@dataclass
class PlainTarget:
    """Met when the score reaches `value`: the margin rule is not what these tests are about."""

    profile: Profile
    value: float
    margin_se: float = 0.0

    def score(self, predictions: np.ndarray) -> float:
        return score(self.profile.metric, self.profile.labels, predictions)

    def meets(self, predictions: np.ndarray, positions: np.ndarray | None = None) -> bool:
        return self.score(predictions) >= self.value


def profile_of(labels: list, logits: dict[str, np.ndarray], metric: str = "accuracy") -> Profile:
    """A Profile of models small, medium, large (a prefix of them) with one latency each."""
    n = len(labels)
    models = {
        name: ModelProfile(
            name=name,
            params=10**k,
            layers=k + 1,
            logits=np.asarray(z, np.float32),
            tokens=np.full(n, 8),
            latency=LatencyCurve(np.array([8]), np.array([LATENCY_MS[name]]), np.array([LATENCY_MS[name]])),
            truncated=np.zeros(n, bool),
        )
        for k, (name, z) in enumerate(logits.items())
    }
    outputs = next(iter(models.values())).logits.shape[1]
    return Profile("toy", metric, outputs, np.arange(n), np.asarray(labels), models)


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    """Logits (N, K) of a model that says these labels."""
    return 4 * np.eye(classes, dtype=np.float32)[labels]


def plan_of(*folds: FoldPlan, method: str = "x") -> Plan:
    return Plan(method, "toy", list(folds), 0, {})


class TableLab:
    """Loads models that look their logits up: query k is row k of the profile. Its engine has no streams."""

    name = "table"

    def __init__(self, profile: Profile) -> None:
        self.profile, self.engine, self.memo = profile, self, {}
        self.task = SimpleNamespace(queries=[Query(int(row), (str(row),)) for row in profile.rows])

    def load(self, name: str, *, importance: str | None = None, pooled: bool = False) -> TableModel:
        return TableModel(self.profile.models[name].logits)

    def apart(self) -> TableLab:
        return TableLab(self.profile)

    def concurrent(self, models: list[TableModel]) -> Any | None:
        return None


@dataclass
class TableModel:
    logits: np.ndarray

    def encode(self, texts):
        return _Encoding(int(texts[0]), tuple(texts))

    def set_temperature(self, temperature):
        self.temperature = temperature

    def forward(self, encoding, want_importance: bool = False):
        return Output(self.logits[encoding.row])

    begin_batch = LoadedModel.begin_batch

    def forward_batch(self, encodings, want_importance: bool = False):
        return [self.forward(encoding, want_importance) for encoding in encodings]


@dataclass
class _Encoding:
    row: int
    texts: tuple[str, ...]
    truncated: bool = False
