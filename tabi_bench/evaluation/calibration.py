"""Does confidence mean what it says: reliability, expected calibration error, and how well it ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS = 15  # of equal width (Guo et al. 2017)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """One row per bin (low, high] that holds queries: low, high, confidence and accuracy (means), n.

    A confidence that is not a number (a model failed) is none at all: 0, here and in `auroc`.
    """
    confidence, correct = _known(confidence), np.asarray(correct, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    n = np.bincount(index, minlength=bins)
    full = n > 0
    values = {"confidence": confidence, "accuracy": correct}
    means = {key: np.bincount(index, v, bins)[full] / n[full] for key, v in values.items()}
    return pd.DataFrame({"low": edges[:-1][full], "high": edges[1:][full], **means, "n": n[full]})


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over the queries' bins."""
    table = reliability(confidence, correct, bins)
    return float(((table.accuracy - table.confidence).abs() * table.n).sum() / table.n.sum())


def auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """P(a right answer is more confident than a wrong one), ties half; NaN where all are right or all wrong."""
    from sklearn.metrics import roc_auc_score

    correct = np.asarray(correct, bool)
    return float("nan") if correct.all() or not correct.any() else float(roc_auc_score(correct, _known(confidence)))


def _known(confidence: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.asarray(confidence, np.float64), nan=0.0)
