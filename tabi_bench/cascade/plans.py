"""The operating point of a cascade as plain data, and the decisions that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.regression import Agreement


@dataclass(frozen=True)
class Point:
    """One setting of everything that a cascade of L levels decides by.

    models, temperatures, weights: (L,); taus: (L - 1,), of all levels but the last; alphas: (L - 1,), of all levels but
    the first; agreement: regression only, (L - 1,) fits of `regression.Agreement` as plain data.
    """

    models: list[str]
    temperatures: list[float]
    weights: list[float]
    taus: list[float] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    ensemble: str = "large"
    share: float = 0.5  # of the last level in the ensemble `tuned`
    confidence: str = "max"
    dispatcher: str = "threshold"  # threshold | sigmoid | random (tau is then the share re-routed: a control)
    sigmoid_k: float = 20.0
    importance: str = "last"
    pruning: str = "importance"
    seed: int = 0
    agreement: list[dict] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For FoldPlan.point and plan.json."""
        return asdict(self)

    @cached_property
    def agreements(self) -> list[Agreement]:
        return [Agreement.of(plain) for plain in self.agreement]

    @property
    def by_largest(self) -> bool:
        """Whether a level's confidence is its largest probability, nothing else."""
        return self.dispatcher == "threshold" and self.confidence == "max" and not self.agreement

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
        if self.dispatcher == "random":
            uniform = rules.draws(self.seed, ids, stream=level)
            return uniform if np.ndim(ids) else uniform[0]
        if self.agreement:
            sure = self.agreements[level](pooled, output[..., 0])
        else:
            sure = rules.confidence(output, self.confidence)
        if self.dispatcher == "sigmoid":
            uniform = rules.draws(self.seed, ids, stream=level)
            sure = rules.perturb(sure, self.sigmoid_k, uniform if np.ndim(sure) else uniform[0])
        return sure
