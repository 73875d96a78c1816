"""The tasks' metrics, as fractions. `evaluate_metrics.py` beside this wraps them for users of `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of right answers."""
    return float(np.mean(labels == predictions))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews correlation, any number of classes (Gorodkin 2004, R_K); 0 where one side is constant.

    scikit-learn's takes 6 ms to check its input, and a plan search asks thousands of times.
    """
    _, places = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    n, kinds = len(labels), int(places.max()) + 1
    true, said = (np.bincount(part, minlength=kinds) for part in (places[:n], places[n:]))
    scale = float(n * n - true @ true) * float(n * n - said @ said)
    return float(n * np.sum(labels == predictions) - true @ said) / scale**0.5 if scale > 0 else 0.0


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of label 1, as GLUE reports it for mrpc and qqp."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels == 1, predictions == 1, zero_division=0.0))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson correlation; 0 where one side is constant."""
    x, y = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (labels, predictions))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(labels), rankdata(predictions))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "pearson": pearson,
    "f1": f1,
    "spearman": spearman,
}


def score(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Score of (N,) predictions against (N,) labels. Raises ValueError for an unknown metric or unequal lengths."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"{metric} needs as many predictions as labels: {predictions.shape} against {labels.shape}")
    return METRICS[metric](labels, predictions)


def also(metrics: Iterable[str], labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The metrics that are reported beside the task's own, by name."""
    return {metric: score(metric, labels, predictions) for metric in metrics}
