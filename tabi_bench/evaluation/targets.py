"""The accuracy target of one set of tune rows, and what it means to meet it.

The fastest point whose tune score just meets the target is a lucky one, so a system must meet it with a margin: the
score (relative targets: its paired difference to the best single model), less `margin_se` standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tabi_bench.evaluation.metrics import score
from tabi_bench.evaluation.statistics import difference_se, resampled
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import Unreachable

EPSILON = 1e-12  # two means that are equal on paper may differ in their last bit


def predictions_of(logits: np.ndarray) -> np.ndarray:
    """(N,) labels, or scores where there is one output, from logits (N, K)."""
    return logits[:, 0].astype(np.float64) if logits.shape[1] == 1 else logits.argmax(1)


@dataclass(frozen=True)
class Target:
    """`value`: the score to reach on these rows; relative targets are `slack` below the best single model."""

    kind: str  # relative | paper | absolute
    value: float
    slack: float
    metric: str
    margin_se: float
    labels: np.ndarray  # (N,)
    reference: np.ndarray  # (N,) predictions of the best single model
    reference_model: str
    seed: int = 0

    @classmethod
    def of(
        cls, profile: Profile, kind: str, value: float | None, slack: float, margin_se: float, seed: int = 0
    ) -> Target:
        """The target on the rows of `profile`. Raises Unreachable, naming the best score and its model."""
        scores = {n: score(profile.metric, profile.labels, predictions_of(m.logits)) for n, m in profile.models.items()}
        best = max(scores, key=scores.__getitem__)
        reach = scores[best] - slack if kind == "relative" else value
        reference = predictions_of(profile.models[best].logits)
        target = cls(kind, float(reach), slack, profile.metric, margin_se, profile.labels, reference, best, seed)
        if kind != "relative" and scores[best] < reach:
            raise Unreachable(
                f"target {reach:.4f} ({profile.metric}) cannot be met on task {profile.task!r}: the best single model, "
                f"{best}, reaches {scores[best]:.4f} on tune; lower target.value or use target.kind=relative"
            )
        return target

    def score(self, predictions: np.ndarray) -> float:
        return score(self.metric, self.labels, predictions)

    @cached_property
    def _right(self) -> np.ndarray:
        return (self.reference == self.labels).astype(np.float64)

    def meets(self, predictions: np.ndarray) -> bool:
        """Whether predictions (N,) of these rows meet the target with its margin."""
        gain = self.score(predictions) - (self.value if self.kind != "relative" else self.score(self.reference))
        floor = -self.slack if self.kind == "relative" else 0.0
        if gain < floor - EPSILON or self.margin_se == 0:
            return gain >= floor - EPSILON
        return gain - self.margin_se * self._error(predictions) >= floor - EPSILON

    def _error(self, predictions: np.ndarray) -> float:
        if self.kind == "relative":
            return difference_se(self.metric, self.labels, predictions, self.reference, self.seed)
        if self.metric == "accuracy":
            return float((predictions == self.labels).std(ddof=1) / np.sqrt(len(self.labels)))
        return float(resampled(self.metric, self.labels, predictions, seed=self.seed)[0].std(ddof=1))

    def first_met(self, base: np.ndarray, other: np.ndarray, order: np.ndarray, allowed: np.ndarray) -> int | None:
        """The least k for which `base`, with the rows order[:k] taken from `other`, meets the target; None: no k does.

        base, other: (N,) predictions; order: (M,) positions, the first to be replaced first; allowed: (M + 1,) bool,
        which k there is a threshold for (not between equal confidences).
        """
        if self.metric == "accuracy":
            return self._first_met_accuracy(base, other, order, allowed)
        mixed = base.copy()
        for k in range(len(order) + 1):
            if k:
                mixed[order[k - 1]] = other[order[k - 1]]
            if allowed[k] and self.meets(mixed):
                return k
        return None

    def _first_met_accuracy(
        self, base: np.ndarray, other: np.ndarray, order: np.ndarray, allowed: np.ndarray
    ) -> int | None:
        """All k at once: means and standard errors from running sums of the paired differences."""
        shift = self._right if self.kind == "relative" else np.full(len(base), self.value)
        before = (base == self.labels) - shift
        after = (other == self.labels) - shift

        def running(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return a.sum() + np.concatenate([[0.0], np.cumsum((b - a)[order])])

        n = len(base)
        mean = running(before, after) / n
        variance = np.maximum(running(before**2, after**2) / n - mean**2, 0) * n / max(n - 1, 1)
        floor = -self.slack if self.kind == "relative" else 0.0
        met = np.flatnonzero(allowed & (mean - self.margin_se * np.sqrt(variance / n) >= floor - EPSILON))
        return int(met[0]) if len(met) else None
