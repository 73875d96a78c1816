"""A profile of three models with round latencies, an engine that answers from it, a target that is a plain score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabi_bench.engines.base import Output
from tabi_bench.evaluation.metrics import score
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tabi_bench.system import FoldPlan, Plan
from tabi_bench.zoo.base import ModelSpec

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
    rows, words = np.arange(n), np.full(n, 5)
    outputs = next(iter(models.values())).logits.shape[1]
    return Profile("toy", metric, outputs, rows, np.asarray(labels), words, models)


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    """Logits (N, K) of a model that says these labels."""
    return 4 * np.eye(classes, dtype=np.float32)[labels]


def plan_of(*folds: FoldPlan, method: str = "x") -> Plan:
    return Plan(method, "toy", list(folds), 0, {})


class TableEngine:
    """Loads models that look their logits up: query k is row k of the profile."""

    name, device, dtype = "table", "cpu", "float32"

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def load(self, spec: ModelSpec, *, importance: str | None = None, pooled: bool = False) -> TableModel:
        return TableModel(spec, self.profile.models[spec.name].logits)

    def concurrent(self, models) -> None:
        return None


@dataclass
class TableModel:
    spec: ModelSpec
    logits: np.ndarray

    def encode(self, texts):
        return _Encoding(int(texts[0]))

    def forward(self, encoding, want_importance: bool = False):
        return Output(self.logits[encoding.row])


@dataclass
class _Encoding:
    row: int
    truncated: bool = False
