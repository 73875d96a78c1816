"""The operating point of a cascade as plain data, and the decisions that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.dispatch import DISPATCHERS, Threshold
from tabi_bench.cascade.regression import Agreement
from tabi_bench.system import PlanError

CHOICES = {
    "ensemble": rules.ENSEMBLES,
    "confidence": rules.CONFIDENCES,
    "dispatcher": tuple(DISPATCHERS),
    "importance": ("last", "mean"),
    "pruning": rules.PRUNINGS,
}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


@dataclass(frozen=True)
class Point:
    """One setting of everything that a cascade of L levels decides by.

    models, temperatures, weights: (L,); taus: (L - 1,), of all levels but the last; alphas: (L - 1,), of all levels but
    the first; agreement: regression only, (L - 1,) fits of `regression.Agreement` as plain data; reroute: the row
    numbers that the dispatcher `table` re-routes.
    """

    models: list[str]
    temperatures: list[float]
    weights: list[float]
    taus: list[float] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    ensemble: str = "large"
    share: float = 0.5  # of the last level in the ensemble `tuned`
    confidence: str = "max"
    dispatcher: str = "threshold"  # a key of dispatch.DISPATCHERS
    sigmoid_k: float = 20.0
    importance: str = "last"
    pruning: str = "importance"
    seed: int = 0
    agreement: list[dict[str, Any]] = field(default_factory=list)
    reroute: list[int] = field(default_factory=list)

    @classmethod
    def of_one(cls, model: str) -> Point:
        """One model alone. Nothing else decides: no temperature moves a label."""
        return cls([model], [1.0], [1.0])

    @classmethod
    def checked(cls, plain: dict[str, Any], models: Sequence[str]) -> Point:
        """A point that somebody else wrote, for a zoo of these models. Raises PlanError with what is wrong with it."""
        try:
            point = cls(**plain)
        except TypeError as error:
            raise PlanError(f"not an operating point of a cascade ({error})") from None
        names = point.models if isinstance(point.models, list) else []
        if not names or any(name not in models for name in names) or len(set(names)) < len(names):
            raise PlanError(f"models={point.models}: one or several of this zoo, which has {', '.join(models)}")
        point._check_choices()
        point._check_numbers()
        point._check_fits()
        return point

    def _check_choices(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise PlanError(f"{key}={getattr(self, key)!r}: choose one of {', '.join(choices)}")

    def _check_numbers(self) -> None:
        """Lists of the right length, finite numbers within their bounds."""
        levels = len(self.models)
        lengths = {"temperatures": levels, "weights": levels, "taus": levels - 1, "alphas": levels - 1}
        for key, length in lengths.items():
            values = getattr(self, key)
            if not isinstance(values, list) or len(values) != length or not all(map(_is_finite, values)):
                raise PlanError(f"{key}={values}: a list of {length} finite numbers for {levels} levels")
            if min(values, default=0) < 0 and (key != "taus" or self.dispatch.plain):
                raise PlanError(f"{key}={values}: none below 0")
        if min(self.temperatures) == 0:
            raise PlanError(f"temperatures={self.temperatures}: above 0, as they divide logits")
        if not _is_finite(self.share) or not 0 <= self.share <= 1:
            raise PlanError(f"share={self.share}: of the last level, between 0 and 1")
        if not _is_finite(self.sigmoid_k) or self.sigmoid_k <= 0:
            raise PlanError(f"sigmoid_k={self.sigmoid_k}: a steepness above 0")
        if not isinstance(self.seed, int) or not isinstance(self.reroute, list):
            raise PlanError(f"seed={self.seed!r}, reroute={self.reroute!r}: a whole number and a list of row numbers")
        if not all(isinstance(row, int) for row in self.reroute):
            raise PlanError("reroute: a list of row numbers, which are whole numbers")

    def _check_fits(self) -> None:
        try:
            fits = [np.concatenate([fit.error, fit.logistic]) for fit in self.agreements]
            whole = all(np.isfinite(fit).all() and len(fit) > 4 for fit in fits)
        except (TypeError, ValueError, KeyError):
            whole = False
        if not whole or len(self.agreement) not in (0, len(self.models) - 1):
            raise PlanError("agreement: a fit with finite coefficients for every level but the last, or none at all")

    def plain(self) -> dict[str, Any]:
        """For FoldPlan.point and plan.json."""
        return asdict(self)

    @cached_property
    def agreements(self) -> list[Agreement]:
        """The fits behind `agreement`."""
        return [Agreement.of(plain) for plain in self.agreement]

    @cached_property
    def dispatch(self) -> Threshold:
        """The dispatcher, ready to be called."""
        return DISPATCHERS[self.dispatcher](self.sigmoid_k, self.seed, self.reroute)

    @property
    def by_largest(self) -> bool:
        """Whether a level compares its largest probability with tau, nothing else."""
        return self.dispatch.plain and self.confidence == "max" and not self.agreement

    def source(self, level: int) -> int:
        """The latest level before `level` that saw the text whole: its importance prunes the text for `level`."""
        return max(k for k in range(level) if k == 0 or self.alphas[k - 1] == 0)

    def wants_importance(self, level: int) -> bool:
        """Whether some later level's text is pruned by the importance of `level`."""
        later = range(level + 1, len(self.models))
        return any(self.alphas[k - 1] > 0 and self.source(k) == level for k in later)

    def combine(self, outputs: list[np.ndarray], levels: list[int]) -> np.ndarray:
        """The ensemble's output (..., K) from the outputs of `levels`, in order."""
        return rules.combine(outputs, [self.weights[level] for level in levels], self.ensemble, self.share)

    def combine_rows(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(n, K) ensemble of n rows from those outputs (n, K) of the first levels that are finite; NaN if none is."""
        finite = np.stack([np.isfinite(output).all(axis=1) for output in outputs], axis=1)
        if finite.all():
            return self.combine(list(outputs), list(range(len(outputs))))
        result = np.full(outputs[0].shape, np.nan)
        for pattern in np.unique(finite, axis=0):
            rows, levels = (pattern == finite).all(axis=1), np.flatnonzero(pattern).tolist()
            if levels:
                result[rows] = self.combine([outputs[level][rows] for level in levels], levels)
        return result

    def confidence_of(
        self, level: int, output: np.ndarray, pooled: np.ndarray | None, ids: np.ndarray | int
    ) -> np.ndarray:
        """(...,) what `level` compares with its tau, for the combined output (..., K) of queries `ids` (...,)."""
        if self.agreement:
            sure = self.agreements[level](pooled, output[..., 0])
        else:
            sure = rules.confidence(output, self.confidence)
        return self.dispatch(sure, level, ids)
