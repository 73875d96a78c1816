"""What the baselines share: labels from logits, plans, near ties."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabi_bench.cascade.rules import BAND, softmax, tied
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import FoldPlan, NoAnswer, Predicted


def between_labels(logits: np.ndarray, band: float = BAND) -> np.ndarray:
    """(N,) bool: logits (N, K) whose two likeliest labels are so near that another run may give the other."""
    return tied(softmax(logits), band)


def finite(logits: np.ndarray, model: str, query: int) -> np.ndarray:
    """The logits themselves. Raises NoAnswer."""
    if not np.isfinite(logits).all():
        raise NoAnswer(
            f"model {model} returned non-finite logits for query {query}, and there is no other level to ask; "
            "try engine.dtype=float32, or leave the model out with zoo.models"
        )
    return logits


def predictions(profile: Profile) -> dict[str, np.ndarray]:
    """(N,) labels that each model of the profile gives, smallest model first."""
    return {name: predictions_from(model.logits) for name, model in profile.models.items()}


def best(profile: Profile, answers: dict[str, np.ndarray]) -> str:
    """The best of some (N,) predictions in words, for messages: "0.912 by L12"."""
    scores = {name: score(profile.metric, profile.labels, labels) for name, labels in answers.items()}
    name = max(scores, key=scores.__getitem__)
    return f"{scores[name]:.4f} by {name}"


def fold_plan(
    profile: Profile, target: Target, point: dict[str, Any], labels: np.ndarray, latency_ms: float
) -> FoldPlan:
    """A plan tuned on the rows of `profile`, where it gives `labels` (N,) at a mean of `latency_ms`, at one level."""
    value = score(profile.metric, profile.labels, labels)
    predicted = Predicted(score=value, latency_ms=float(latency_ms), shares=[1.0])
    return FoldPlan(profile.rows.tolist(), None, float(target.value), point, predicted)


def shares_of(levels: np.ndarray, count: int) -> list[float]:
    """(count,) share of the queries that each level returned. levels: (N,) 0-based."""
    return (np.bincount(levels, minlength=count) / len(levels)).tolist()
