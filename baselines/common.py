"""What the baselines share: labels from logits, the plan of a query, outcomes of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tabi_bench.cascade.rules import softmax, tied
from tabi_bench.evaluation.metrics import score
from tabi_bench.system import FoldPlan, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Output
    from tabi_bench.profiling.profile import Profile


class NonFiniteOutput(RuntimeError):
    """A model returned NaN or infinity, and this method has no other model to ask."""


def decide(logits: np.ndarray) -> np.ndarray:
    """Labels (...,) of logits (..., K): the argmax (the lowest of equals), or the score itself where K is 1."""
    return logits[..., 0].astype(np.float64) if logits.shape[-1] == 1 else logits.argmax(axis=-1)


def between_labels(logits: np.ndarray) -> np.ndarray:
    """(N,) bool: logits (N, K) whose two likeliest labels are so near that another run may give the other."""
    return tied(softmax(logits))


def finite(logits: np.ndarray, model: str, query: int) -> np.ndarray:
    """The logits themselves. Raises NonFiniteOutput."""
    if not np.isfinite(logits).all():
        raise NonFiniteOutput(
            f"model {model} returned non-finite logits for query {query}, and there is no next level to ask; "
            "try engine.dtype=float32, or leave the model out with zoo.models"
        )
    return logits


def said(output: Output, model: str, query: int) -> float:
    """The label (or score) of one output: as the device worked it out, or by `decide`. Raises NonFiniteOutput."""
    if output.verdict is not None and output.finite:
        return output.verdict[0]
    return decide(finite(output.logits, model, query)).item()


def predictions(profile: Profile) -> dict[str, np.ndarray]:
    """(N,) labels that each model of the profile gives, smallest model first."""
    return {name: decide(model.logits) for name, model in profile.models.items()}


def best(profile: Profile, answers: dict[str, np.ndarray]) -> str:
    """The best of some (N,) predictions in words, for messages: "0.912 by L12"."""
    scores = {name: score(profile.metric, profile.labels, labels) for name, labels in answers.items()}
    name = max(scores, key=scores.__getitem__)
    return f"{scores[name]:.4f} by {name}"


def fold_plan(profile: Profile, target: Any, point: dict, labels: np.ndarray, latency_ms: float) -> FoldPlan:
    """A plan tuned on the rows of `profile`, where it gives `labels` (N,) at a mean of `latency_ms`."""
    predicted = {"score": score(profile.metric, profile.labels, labels), "latency_ms": float(latency_ms)}
    return FoldPlan(profile.rows.tolist(), None, float(target.value), point, predicted)


class Points:
    """Which operating point serves a query, looked up in constant time."""

    def __init__(self, plan: Plan) -> None:
        self._by_row = {row: fold.point for fold in plan.folds for row in fold.serves or ()}
        self._default = next((fold.point for fold in plan.folds if fold.serves is None), None)

    def __getitem__(self, query: int) -> dict[str, Any]:
        point = self._by_row.get(query, self._default)
        if point is None:
            raise PlanError(f"no fold of this plan serves query {query}; it was made for other data")
        return point


def full_text(rows: np.ndarray, labels: np.ndarray, latency_ms: np.ndarray, **changes: np.ndarray) -> Outcomes:
    """Outcomes of one level on the full text: (N,) labels and milliseconds."""
    n = len(rows)
    fields = {
        "levels": np.zeros(n, np.int64),
        "words_kept_share": np.ones(n),
        "borderline": np.zeros(n, bool),
        **changes,
    }
    return Outcomes(rows=np.asarray(rows), labels=labels, latency_ms=latency_ms, **fields)
