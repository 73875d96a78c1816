"""The accuracy target, and when a system counts as meeting it on the rows that it was tuned on.

Choosing the fastest point whose tune score just meets the target picks the lucky one, and the report score then falls
short. So a target is met with a margin: the mean paired difference to the best single model, minus `margin_se` standard
errors of that difference, must be at least -slack; with an absolute target the same with the score itself. The standard
error is closed-form for accuracy, a seeded bootstrap over rows for every other metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tabi_bench.evaluation import metrics
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import Unreachable

RESAMPLES = 200
BATCH = 64  # counts that `first_met` bootstraps at a time
TOLERANCE = 1e-9  # of rounding, when a score equals the target


@dataclass(frozen=True)
class Target:
    """A score to reach on one set of rows.

    value: the score; slack: below the reference (relative targets); labels, reference_predictions: (N,), the reference
    being the best single model on these rows (the smaller of equals). Scores are fractions.
    """

    kind: str  # relative | paper | absolute
    value: float
    slack: float
    metric: str
    margin_se: float
    labels: np.ndarray
    reference_model: str
    reference_predictions: np.ndarray
    seed: int = 0

    @classmethod
    def of(
        cls, profile: Profile, kind: str, value: float | None, slack: float, margin_se: float, seed: int = 0
    ) -> Target:
        """The target on the rows of `profile`; `value` is the score for paper and absolute targets.

        Raises Unreachable when no single model has that score.
        """
        answers = {name: metrics.predictions_from(model.logits) for name, model in profile.models.items()}
        scores = {name: metrics.score(profile.metric, profile.labels, given) for name, given in answers.items()}
        best = max(scores, key=scores.__getitem__)
        if kind == "relative":
            value = scores[best] - slack
        elif value is None:
            raise ValueError(f"a target of kind {kind!r} needs a value, the score to reach as a fraction")
        if scores[best] < value - TOLERANCE:
            raise Unreachable(
                f"{profile.task}: no model reaches the target {value:.4f}; the best on tune is {best} with "
                f"{scores[best]:.4f} {profile.metric}. Lower target.value or add a better model to the zoo"
            )
        return cls(kind, float(value), slack, profile.metric, margin_se, profile.labels, best, answers[best], seed)

    def view(self, positions: np.ndarray) -> Target:
        """The same target on some of its rows; a relative target follows its reference's score there."""
        labels, reference = self.labels[positions], self.reference_predictions[positions]
        value = metrics.score(self.metric, labels, reference) - self.slack if self._relative else self.value
        return replace(self, labels=labels, reference_predictions=reference, value=value)

    def score(self, predictions: np.ndarray) -> float:
        return metrics.score(self.metric, self.labels, predictions)

    def meets(self, predictions: np.ndarray, positions: np.ndarray | None = None) -> bool:
        """Whether predictions (N,), of the rows at `positions` if given, meet the target with its margin."""
        target = self if positions is None else self.view(positions)
        return bool(target.scan(predictions, predictions, np.arange(0), np.zeros(1, np.int64))[0])

    def first_met(self, base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray) -> int | None:
        """The least of the ascending `counts` for which `scan` holds; None if it holds for none."""
        if not len(counts):
            return None
        if self.margin_se > 0:  # the plain rule rules most of them out at little cost
            plain = replace(self, margin_se=0.0).scan(base, other, order, counts)
            counts = counts[plain]
        step = len(counts) if self.metric == "accuracy" else BATCH
        for batch in (counts[i : i + step] for i in range(0, len(counts), max(step, 1))):
            met = self.scan(base, other, order, batch)
            if met.any():
                return int(batch[met.argmax()])
        return None

    def scan(self, base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(C,) bool: met when the first counts[c] rows of `order` answer `other` and all the rest answer `base`?

        base, other: (N,) predictions; order: (M,) positions, M <= N; counts: (C,) integers 0..M. All counts at once
        where the metric is a function of sums over rows.
        """
        compute = self._accuracy if self.metric == "accuracy" else self._bootstrap
        point, error = compute(base, other, order, counts)
        return point - self.margin_se * error >= self._goal - TOLERANCE

    def features(self, predictions: np.ndarray) -> np.ndarray:
        """(N, F) whose sums over rows say whether predictions (N,) may meet the target: see `may_meet`."""
        if self.metric != "accuracy":
            return self._features(predictions) if self._known.additive else np.zeros((len(predictions), 1))
        right = (self.reference_predictions == self.labels) * 1.0 if self._relative else 0.0
        difference = (predictions == self.labels) - right
        return np.stack([difference, difference**2], axis=1)

    def may_meet(self, sums: np.ndarray) -> np.ndarray:
        """(...,) bool from sums (..., F) of features over all rows: met with the margin for accuracy, without it for
        other metrics, whose margin needs the rows themselves; always for a metric that sums do not determine."""
        if self.metric == "accuracy":
            point, error = self._mean_and_error(sums)
            return point - self.margin_se * error >= self._goal - TOLERANCE
        if not self._known.additive:
            return np.ones(sums.shape[:-1], bool)
        own = self.score(self.reference_predictions) if self._relative else 0.0
        return self._known.from_sums(sums, np.array(float(len(self.labels)))) - own >= self._goal - TOLERANCE

    def _mean_and_error(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.labels)
        mean, square = np.moveaxis(sums / n, -1, 0)
        return mean, np.sqrt(np.maximum(square - mean**2, 0) / max(n - 1, 1))

    @property
    def _goal(self) -> float:
        return -self.slack if self._relative else self.value

    @property
    def _relative(self) -> bool:
        return self.kind == "relative"

    def _accuracy(self, base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray) -> tuple:
        """(score or paired difference, its standard error) at each count, both (C,)."""
        alone = np.ones((1, len(self.labels)))
        return self._mean_and_error(_prefix_sums(self.features(base), self.features(other), order, counts, alone)[0])

    def _bootstrap(self, base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray) -> tuple:
        weights = self._weights if self.margin_se else self._weights[:1]
        if self._known.additive:
            sums = _prefix_sums(self._features(base), self._features(other), order, counts, weights)
            scores = self._known.from_sums(sums, weights.sum(axis=1, keepdims=True))
        else:
            scores = np.stack([self._scores(replaced, weights) for replaced in _swapped(base, other, order, counts)], 1)
        if self._relative:
            scores = scores - self._scores(self.reference_predictions, weights)[:, None]
        return scores[0], scores[1:].std(axis=0, ddof=1) if len(scores) > 1 else np.zeros(len(counts))

    def _scores(self, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self._known.scores(self.labels, predictions, weights)

    @cached_property
    def _weights(self) -> np.ndarray:
        """(1 + RESAMPLES, N): all ones, then how often each bootstrap resample drew each row."""
        n = len(self.labels)
        drawn = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
        return np.concatenate([np.ones((1, n)), drawn])

    def _features(self, predictions: np.ndarray) -> np.ndarray:
        """(N, F) whose weighted sums over rows determine the metric."""
        return self._known.features(self.labels, predictions, self._space)

    @property
    def _known(self) -> metrics.Metric:
        return metrics.metric_of(self.metric)

    @cached_property
    def _space(self) -> Any:
        """What all predictions share: the classes up to the highest label, and a failed row's, or a score nearby."""
        if self._known.regression:
            return self._known.space(self.labels)
        highest = int(max(self.labels.max(), self.reference_predictions.max()))
        return self._known.space(np.arange(metrics.FAILED, highest + 1))


def least_rerouting(
    metric: str, labels: np.ndarray, small: np.ndarray, large: np.ndarray, cost_ms: np.ndarray, goal: float
) -> tuple[np.ndarray, bool]:
    """The cheapest positions to answer by `large` instead of `small` until the score is `goal`, and whether it is.

    All (N,). Only answers that get better are candidates: wrong ones that become right, cheapest first; for scores
    those that come closer, by squared error saved per millisecond. If all of them do not suffice, all.
    """
    if labels.dtype.kind == "f":
        gain = (small - labels) ** 2 - (large - labels) ** 2
        rank = -gain / cost_ms
    else:
        gain = (large == labels) * 1.0 - (small == labels)
        rank = cost_ms
    better = np.flatnonzero(gain > 0)
    order = better[np.argsort(rank[better], kind="stable")]
    target = Target("absolute", goal, 0.0, metric, 0.0, labels, "", small)
    count = target.first_met(small, large, order, np.arange(len(order) + 1))
    return order[:count], count is not None


def _prefix_sums(
    base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(B, C, F) weighted sums of `base` (N, F), with its first counts[c] rows in `order` replaced by `other`'s."""
    first, last = int(counts.min()), int(counts.max())
    base = base.copy()
    base[order[:first]] = other[order[:first]]
    start, swapped = (weights @ base)[:, None], order[first:last]
    gain = np.cumsum(weights[:, swapped, None] * (other - base)[swapped], axis=1)
    return start + np.concatenate([np.zeros_like(start), gain], axis=1)[:, counts - first]


def _swapped(base: np.ndarray, other: np.ndarray, order: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """(N,) predictions at each count: `base` with its first rows in `order` replaced by `other`'s."""
    for count in counts:
        replaced = base.copy()
        replaced[order[:count]] = other[order[:count]]
        yield replaced
