"""The tasks' metrics, as fractions, each written once: as a function of weighted sums over rows.

A metric has features (N, F) of labels and predictions, and a function of their sums. Weights of one give the score, how
often a resample drew each row gives the bootstrap, and running sums give the search for a target. Spearman's ranks
depend on all rows, so it has no features: it is computed from weighted ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

FAILED = -1  # the prediction of a row whose output is not finite: never right
CONSTANT = 1e-12  # a variance below this share of the second moment is rounding


def predictions_from(outputs: np.ndarray) -> np.ndarray:
    """(...,) predictions of logits or probabilities (..., K): int64 labels, the lowest of equals; FAILED if not finite.

    With K = 1 (regression) the outputs are scores, and so are the predictions, float64.
    """
    outputs = np.asarray(outputs)
    chosen = outputs[..., 0].astype(np.float64) if outputs.shape[-1] == 1 else outputs.argmax(-1).astype(np.int64)
    return np.where(np.isfinite(outputs).all(-1), chosen, chosen.dtype.type(FAILED))


def matthews_from_counts(right: np.ndarray, labels: np.ndarray, predictions: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(...,) Matthews correlation of any number of classes (Gorodkin 2004, R_K); 0 where one side is constant.

    right, n: (...,) how many predictions are right, how many rows there are; labels, predictions: (..., K) how many
    rows have each class as their label, as their prediction.
    """
    covariance = n * right - (labels * predictions).sum(-1)
    varies = (n**2 - (labels**2).sum(-1)) * (n**2 - (predictions**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(varies, 0)), varies > CONSTANT * n**4)


def pearson_from_moments(
    n: np.ndarray, x: np.ndarray | float, y: np.ndarray | float, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> np.ndarray:
    """(...,) Pearson correlation from n and the sums of x, y, x^2, y^2 and x y; 0 where one side is constant."""
    x_varies, y_varies = n * xx - x**2, n * yy - y**2
    varies = (x_varies > CONSTANT * n * xx) & (y_varies > CONSTANT * n * yy)
    return _ratio(n * xy - x * y, np.sqrt(np.maximum(x_varies, 0)) * np.sqrt(np.maximum(y_varies, 0)), varies)


def _ratio(above: np.ndarray, below: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where, above / np.where(where, below, 1.0), 0.0)


class Metric:
    """Accuracy, and what the other metrics change of it. (N,) labels and predictions, weights (R, N)."""

    regression = False  # whether labels are scores
    additive = True  # whether sums of features determine it

    def space(self, labels: np.ndarray, *predictions: np.ndarray) -> Any:
        """What `features` of several predictions must share, so that their sums can be mixed."""
        return None

    def features(self, labels: np.ndarray, predictions: np.ndarray, space: Any) -> np.ndarray:
        """(N, F) float64."""
        return (labels == predictions)[:, None].astype(np.float64)

    def from_sums(self, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
        """(...,) from sums (..., F) of the features over rows that weigh n (...,) in all."""
        return sums[..., 0] / n

    def scores(self, labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(R,) the metric under each of R weightings of the rows."""
        features = self.features(labels, predictions, self.space(labels, predictions))
        return self.from_sums(weights @ features, weights.sum(axis=1))


class Matthews(Metric):
    """Matthews correlation of any number of classes."""

    def space(self, labels: np.ndarray, *predictions: np.ndarray) -> np.ndarray:
        """The classes that occur."""
        return np.unique(np.concatenate([labels, *predictions]))

    def features(self, labels: np.ndarray, predictions: np.ndarray, space: np.ndarray) -> np.ndarray:
        parts = [(labels == predictions)[:, None], labels[:, None] == space, predictions[:, None] == space]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def from_sums(self, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
        kinds = sums.shape[-1] // 2
        return matthews_from_counts(sums[..., 0], sums[..., 1 : 1 + kinds], sums[..., 1 + kinds :], n)


class F1(Metric):
    """F1 of one label: 1, as GLUE reports it for mrpc and qqp, unless the metric is named f1@LABEL."""

    def __init__(self, label: int = 1) -> None:
        self.label = label

    def features(self, labels: np.ndarray, predictions: np.ndarray, space: Any) -> np.ndarray:
        actual, predicted = labels == self.label, predictions == self.label
        return np.stack([actual & predicted, actual, predicted], axis=1).astype(np.float64)

    def from_sums(self, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
        either = sums[..., 1] + sums[..., 2]
        return _ratio(2 * sums[..., 0], either, either > 0)


class Pearson(Metric):
    """Pearson correlation of scores."""

    regression = True

    def space(self, labels: np.ndarray, *predictions: np.ndarray) -> float:
        """A value near the labels to measure from: the moments then lose no digits."""
        return float(labels[0])

    def features(self, labels: np.ndarray, predictions: np.ndarray, space: float) -> np.ndarray:
        x, y = np.asarray(labels, np.float64) - space, np.asarray(predictions, np.float64) - space
        return np.stack([x, y, x * x, y * y, x * y], axis=1)

    def from_sums(self, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
        return pearson_from_moments(n, *np.moveaxis(sums, -1, 0))


class Spearman(Metric):
    """Spearman rank correlation of scores."""

    regression = True
    additive = False

    def scores(self, labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        x, y = weighted_ranks(labels, weights), weighted_ranks(predictions, weights)
        squares = ((weights * product).sum(axis=1) for product in (x * x, y * y, x * y))
        return pearson_from_moments(weights.sum(axis=1), 0.0, 0.0, *squares)


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, N) ranks of (N,) values, less their mean, where row i occurs weights[r, i] times; ties share a rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    heavy = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(heavy, axis=1) - heavy / 2
    return middle[:, group] - weights.sum(axis=1, keepdims=True) / 2


METRICS: dict[str, Metric] = {
    "accuracy": Metric(),
    "matthews": Matthews(),
    "pearson": Pearson(),
    "f1": F1(),
    "spearman": Spearman(),
}


def metric_of(name: str) -> Metric:
    """The metric of this name; f1@2 is the F1 of label 2. Raises ValueError for an unknown one."""
    kind, _, label = name.partition("@")
    if name in METRICS:
        return METRICS[name]
    if kind == "f1" and label.isdecimal():
        return F1(int(label))
    raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}, f1@LABEL")


def score(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Score of (N,) predictions against (N,) labels. Raises ValueError for an unknown metric or unequal lengths."""
    known, labels, predictions = metric_of(metric), np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"{metric} needs as many predictions as labels: {predictions.shape} against {labels.shape}")
    return float(known.scores(labels, predictions, np.ones((1, len(labels))))[0])


def also(metrics: Iterable[str], labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The metrics that are reported beside the task's own, by name."""
    return {metric: score(metric, labels, predictions) for metric in metrics}
