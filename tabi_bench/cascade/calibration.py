"""Temperature scaling, and how much each model's vote counts."""

from __future__ import annotations

import numpy as np

from tabi_bench.cascade.rules import softmax
from tabi_bench.evaluation import metrics

LOG_T = (-3.0, 3.0)  # bounds of log T


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of labels (N,) under softmax(z / T), logits (N, K)."""
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """T > 0 that minimises the NLL (Guo et al., 2017), over bounded log T; 1 if that does not improve it.

    Rows with non-finite logits are left out.
    """
    from scipy.optimize import minimize_scalar

    finite = np.isfinite(logits).all(axis=1)
    if logits.shape[1] == 1 or not finite.any():
        return 1.0
    logits, labels = logits[finite], labels[finite]
    fit = minimize_scalar(lambda log_t: nll(logits, labels, np.exp(log_t)), bounds=LOG_T, method="bounded")
    return float(np.exp(fit.x)) if fit.fun < nll(logits, labels) else 1.0


def vote_weight(logits: np.ndarray, labels: np.ndarray) -> float:
    """a_l: the share of right answers; for regression the Pearson correlation, at least 0.01."""
    if logits.shape[1] > 1:
        return metrics.score("accuracy", labels, logits.argmax(1))
    return max(metrics.score("pearson", labels, logits[:, 0]), 0.01)


def outputs_of(logits: np.ndarray, temperature: float) -> np.ndarray:
    """What a level says, float64: probabilities (..., K), or the score itself (..., 1)."""
    return np.asarray(logits, np.float64) if logits.shape[-1] == 1 else softmax(logits, temperature)
