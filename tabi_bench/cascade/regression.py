"""Confidence for regression: how likely a small model's score is close enough to the large one's.

A score has no softmax. Its confidence is an estimate of P(|y_l - y_L| <= 0.5): a ridge regression on the level's
pooled vector, its score and the score's square predicts the absolute error; a logistic regression on that prediction,
the score and its square (agreement is U-shaped in the score) turns it into a probability. Both are stored as plain
numbers, so that answering a query costs two dot products.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

log = logging.getLogger(__name__)
CLOSE = 0.5  # on the task's scale
PENALTIES = np.logspace(1, 5, 9)  # of the ridge regression, chosen by leave-one-out
PARTS = 5  # of cross-fitting: no row's error is predicted by a regressor that saw it
NEAR_RANDOM = 0.6  # AUROC below which routing is said to be near random


@dataclass(frozen=True)
class Agreement:
    """P(agreement with the last level) = sigmoid(logistic . (1, error, score, score^2)), error = linear . features.

    error: (H + 3,) coefficients of (1, score, score^2, pooled...); logistic: (4,). auroc: of the cross-fitted estimate
    against agreement on tune, None where all rows agree or none does.
    """

    error: np.ndarray
    logistic: np.ndarray
    auroc: float | None

    def __call__(self, pooled: np.ndarray | None, score: np.ndarray) -> np.ndarray:
        """(...,) confidence of scores (...,) with pooled vectors (..., H)."""
        error = self.error[0] + self.error[1] * score + self.error[2] * score**2
        if pooled is not None:
            error = error + np.asarray(pooled, np.float64) @ self.error[3:]
        g = self.logistic
        return 1 / (1 + np.exp(-np.clip(g[0] + g[1] * error + g[2] * score + g[3] * score**2, -50, 50)))

    def plain(self) -> dict:
        """For plan.json."""
        return {"error": self.error.tolist(), "logistic": self.logistic.tolist(), "auroc": self.auroc}

    @classmethod
    def of(cls, plain: dict) -> Agreement:
        return cls(np.array(plain["error"]), np.array(plain["logistic"]), plain["auroc"])


def fit_agreement(pooled: np.ndarray | None, score: np.ndarray, large: np.ndarray) -> tuple[Agreement, np.ndarray]:
    """The fit on tune rows, and their cross-fitted confidences (N,), to choose thresholds by.

    pooled: (N, H) or None; score, large: (N,) of the level and of the last level.
    """
    columns = [score[:, None], score[:, None] ** 2] + ([] if pooled is None else [np.asarray(pooled, np.float64)])
    features, gap = np.concatenate(columns, axis=1), np.abs(score - large)
    close = gap <= CLOSE
    held_out = np.empty(len(score))
    for part in np.array_split(np.random.default_rng(0).permutation(len(score)), PARTS):
        other = np.setdiff1d(np.arange(len(score)), part)
        held_out[part] = _linear(features[other], gap[other]) @ _with_one(features[part]).T
    logistic = _logistic(np.stack([held_out, score, score**2], 1), close)
    confidences = 1 / (1 + np.exp(-_with_one(np.stack([held_out, score, score**2], 1)) @ logistic))
    auroc = _auroc(close, confidences)
    if auroc is not None and auroc < NEAR_RANDOM:
        log.warning("regression confidence has AUROC %.2f on tune: routing by it is near random", auroc)
    return Agreement(_linear(features, gap), logistic, auroc), confidences


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)


def _unscaled(intercept: float, slopes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(1 + F,) coefficients on raw features of a model fitted on standardised ones."""
    slopes = slopes / scale
    return np.concatenate([[intercept - slopes @ mean], slopes])


def _linear(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    ridge = RidgeCV(PENALTIES).fit(scaler.transform(features), target)
    return _unscaled(float(ridge.intercept_), ridge.coef_, scaler.mean_, scaler.scale_)


def _logistic(features: np.ndarray, close: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if close.all() or not close.any():  # nothing to tell apart: the (smoothed) base rate
        rate = (close.sum() + 1) / (len(close) + 2)
        return np.array([np.log(rate / (1 - rate)), 0.0, 0.0, 0.0])
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(scaler.transform(features), close)
    return _unscaled(float(fitted.intercept_[0]), fitted.coef_[0], scaler.mean_, scaler.scale_)


def _auroc(close: np.ndarray, confidences: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    return None if close.all() or not close.any() else float(roc_auc_score(close, confidences))
