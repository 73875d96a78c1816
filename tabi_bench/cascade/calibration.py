"""What turns a model's output into a confidence: temperature (labels), probability of agreement (regression)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

AGREEMENT = 0.5  # two scores this close count as the same answer
LOG_T_BOUNDS = (np.log(0.05), np.log(20.0))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean NLL of labels (N,) under softmax(logits / T), logits (N, K)."""
    return float(-log_softmax(logits.astype(np.float64) / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """T > 0 that minimises NLL on tune (Guo et al. 2017), optimised in log T; 1 if that does not improve it.

    Rows with non-finite logits do not count.
    """
    finite = np.isfinite(logits).all(axis=1)
    logits, labels = logits[finite], labels[finite]
    if not len(labels):
        return 1.0
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, labels, np.exp(log_t)), bounds=LOG_T_BOUNDS, method="bounded"
    )
    return float(np.exp(found.x)) if found.fun < negative_log_likelihood(logits, labels, 1.0) else 1.0


@dataclass
class AgreementModel:
    """Estimated P(|y_level - y_large| <= 0.5): a logistic over predicted absolute error, the score and its square.

    error: weights (H,) and bias of a ridge regressor on the level's pooled vector; logistic: intercept and three
    coefficients. auroc: cross-fitted on tune; below 0.6 routing is near random. Plain data, so that a plan can hold it.
    """

    error_weights: list[float]
    error_bias: float
    logistic: list[float]
    auroc: float

    def __call__(self, pooled: np.ndarray, score: np.ndarray) -> np.ndarray:
        """(...,) confidence from pooled (..., H) and scores (...,)."""
        error = pooled @ np.asarray(self.error_weights) + self.error_bias
        intercept, by_error, by_score, by_square = self.logistic
        return 1 / (1 + np.exp(-(intercept + by_error * error + by_score * score + by_square * score**2)))

    def to_dict(self) -> dict:
        return asdict(self)


def fit_agreement(pooled: np.ndarray, score: np.ndarray, large: np.ndarray) -> AgreementModel:
    """Fits on tune: pooled (N, H) and score (N,) of a level, score (N,) of the large model.

    The error regressor sees each row only out of fold when the logistic is fitted, else its fit would look too good.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    error, agree = np.abs(score - large), np.abs(score - large) <= AGREEMENT
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    folds = KFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(ridge, pooled, error, cv=folds)
    ridge.fit(pooled, error)
    scaler, linear = ridge[0], ridge[1]
    weights = linear.coef_ / scaler.scale_
    bias = float(linear.intercept_ - weights @ scaler.mean_)
    if agree.all() or not agree.any():
        constant = 20.0 if agree.all() else -20.0
        return AgreementModel(weights.tolist(), bias, [constant, 0.0, 0.0, 0.0], 0.5)
    features = np.stack([predicted, score, score**2], axis=1)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    out_of_fold = cross_val_predict(logistic, features, agree, cv=folds, method="predict_proba")[:, 1]
    logistic.fit(features, agree)
    coefficients = logistic[1].coef_[0] / logistic[0].scale_
    intercept = float(logistic[1].intercept_[0] - coefficients @ logistic[0].mean_)
    auroc = float(roc_auc_score(agree, out_of_fold))
    return AgreementModel(weights.tolist(), bias, [intercept, *coefficients.tolist()], auroc)
