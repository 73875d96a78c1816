"""Dispatchers: what a level compares with its threshold. One class each, known by name in `DISPATCHERS`.

A query is re-routed iff the number that its dispatcher gives is below tau, or is none (`rules.reroute`). So one search
over thresholds, one live cascade and one replay serve all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import numpy as np

from tabi_bench.cascade import rules


class Threshold:
    """Re-route iff the confidence is below tau [Tabi, the slides]."""

    plain: ClassVar[bool] = True  # whether it compares the confidence itself
    never: ClassVar[float] = rules.NEVER  # the threshold that re-routes nothing
    always: ClassVar[float] = rules.ALWAYS  # and the one that re-routes everything

    def __init__(self, k: float = 20.0, seed: int = 0, reroute: Collection[int] = ()) -> None:
        """k: steepness of the sigmoid; seed: of the draws; reroute: the queries of a table."""
        self.k, self.seed, self.reroute = k, seed, frozenset(reroute)

    def __call__(self, confidence: np.ndarray, level: int, ids: np.ndarray | int) -> np.ndarray:
        """(...,) numbers to compare with tau, for confidences (...,) after `level` of the queries `ids` (...,)."""
        return confidence

    def _draws(self, level: int, ids: np.ndarray | int) -> np.ndarray:
        uniform = rules.draws(self.seed, ids, stream=level)
        return uniform if np.ndim(ids) else uniform[0]


class Sigmoid(Threshold):
    """P(re-route) = sigmoid(k (tau - c)) [Tabi, a reading note], decided by draws of (seed, query)."""

    plain = False
    never, always = -1e6, 1e6  # perturbed confidences have no natural ends

    def __call__(self, confidence: np.ndarray, level: int, ids: np.ndarray | int) -> np.ndarray:
        return rules.perturb(confidence, self.k, self._draws(level, ids))


class Random(Threshold):
    """Tau is the share of queries to re-route, whatever the confidence: a control."""

    plain = False

    def __call__(self, confidence: np.ndarray, level: int, ids: np.ndarray | int) -> np.ndarray:
        return self._draws(level, ids)


class Table(Threshold):
    """0 for the queries of a table, 1 for all others: who is re-routed was decided beforehand (a control)."""

    plain = False

    def __call__(self, confidence: np.ndarray, level: int, ids: np.ndarray | int) -> np.ndarray:
        if np.ndim(ids) == 0:
            return np.asarray(ids not in self.reroute, np.float64)
        return np.array([row not in self.reroute for row in np.asarray(ids).tolist()], np.float64)


DISPATCHERS: dict[str, type[Threshold]] = {
    "threshold": Threshold,
    "sigmoid": Sigmoid,
    "random": Random,
    "table": Table,
}
