"""What is known offline: every model's outputs on the validation rows, and its latency by length.

Predictions come from the same engine call as serving (batch 1, same bucket) and may be cached; latencies are measured
anew in every session.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class LatencyCurve:
    """Milliseconds from raw text to output on the host, by token length.

    lengths: (B,) ascending; ms, ms_importance: (B,) medians, without and with importance. `step`: a query runs at the
    next length up (engines that pad); else linear between lengths.
    """

    lengths: np.ndarray
    ms: np.ndarray
    ms_importance: np.ndarray
    step: bool = False

    def __call__(self, tokens: np.ndarray, importance: bool = False) -> np.ndarray:
        """(N,) milliseconds for (N,) token counts."""
        table = self.ms_importance if importance else self.ms
        if self.step:
            return table[np.minimum(np.searchsorted(self.lengths, tokens), len(self.lengths) - 1)]
        return np.interp(tokens, self.lengths, table)


@dataclass(frozen=True)
class Ragged:
    """N arrays of differing lengths, end to end. values: (sum,), offsets: (N + 1,)."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, arrays: list[np.ndarray]) -> Ragged:
        lengths = [len(a) for a in arrays]
        values = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        return Ragged.of([self[row] for row in rows])


@dataclass(frozen=True)
class ModelProfile:
    """One model's outputs on N rows (full text).

    logits: (N, K) float32, task label order; tokens: (N,) how many; importance: per word, by option ("last", "mean");
    latency: what plans minimise, at the batch size that the scenario serves by; in_batches: {batch size: milliseconds
    per query}, where the scenario serves batches; pooled: (N, H), regression only; ramps: {layer: (N, K)} logits of
    DeeBERT's off-ramps, where trained (`ramps_hash`); drift: (N,) how far a batch of the size served moves the largest
    probability, infinite where it changes the label, where batches are served.
    """

    name: str
    params: int
    layers: int
    logits: np.ndarray
    tokens: np.ndarray
    latency: LatencyCurve
    truncated: np.ndarray
    importance: dict[str, Ragged] = field(default_factory=dict)
    pooled: np.ndarray | None = None
    ramps: dict[int, np.ndarray] = field(default_factory=dict)
    ramps_hash: str = ""
    in_batches: dict[int, LatencyCurve] = field(default_factory=dict)
    drift: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> ModelProfile:
        return replace(
            self,
            logits=self.logits[rows],
            tokens=self.tokens[rows],
            truncated=self.truncated[rows],
            importance={key: ragged.take(rows) for key, ragged in self.importance.items()},
            pooled=None if self.pooled is None else self.pooled[rows],
            drift=None if self.drift is None else self.drift[rows],
            ramps={layer: logits[rows] for layer, logits in self.ramps.items()},
        )

    def at_batch(self, size: int) -> ModelProfile:
        """The same model with its latency at this batch size, where that was measured."""
        return replace(self, latency=self.in_batches.get(size, self.latency))

    @property
    def answered(self) -> np.ndarray:
        """(N,) bool, where all logits are finite."""
        return np.isfinite(self.logits).all(axis=1)

    @property
    def mean_ms(self) -> float:
        """Predicted mean latency on these rows, full text."""
        return float(self.latency(self.tokens).mean())


@dataclass(frozen=True)
class SegmentTimes:
    """What leaving a model early costs.

    share: (layers,) of the whole model's time that has passed after each layer; ramp_ms: of each off-ramp passed.
    """

    share: np.ndarray
    ramp_ms: float


@dataclass(frozen=True)
class Pruned:
    """A large model's outputs on pruned text, for some rows.

    logits: (n, K); pooled: (n, H) or None; tokens: (n,); kept_share: (n,) share of words kept; borderline: (n,)
    bool, an importance lies within 1e-3 (relative to the mean) of the pruning threshold.
    """

    logits: np.ndarray
    tokens: np.ndarray
    kept_share: np.ndarray
    borderline: np.ndarray
    pooled: np.ndarray | None = None


@dataclass(frozen=True)
class PruneKey:
    """What a large-model pass on pruned text depends on."""

    small: str
    large: str
    alpha: float
    importance: str = "last"  # last | mean
    control: str = "importance"  # importance | random | stopwords


@dataclass(frozen=True)
class Profile:
    """All models of a zoo on N rows of a task, smallest first. Pure data; `lab.LiveProfile` also runs models."""

    task: str
    metric: str  # see evaluation.metrics
    n_outputs: int
    rows: np.ndarray  # (N,) row numbers in the validation split
    labels: np.ndarray  # (N,)
    models: dict[str, ModelProfile]
    overhead_ms: float = 0.0  # per level beyond the first: dispatching and combining, less what levels share
    prune_ms: float = 0.0  # beside it, where the level reads pruned text
    seed: int = 0
    segments: dict[str, SegmentTimes] = field(default_factory=dict)  # by model, where off-ramps were trained

    @property
    def is_regression(self) -> bool:
        """Whether answers are scores: models have one output."""
        return self.n_outputs == 1

    @property
    def in_batches(self) -> bool:
        """Whether latencies are milliseconds per query of batches."""
        return any(model.in_batches for model in self.models.values())

    @property
    def names(self) -> list[str]:
        """Of the models, smallest first."""
        return list(self.models)

    def view(self, positions: np.ndarray) -> Self:
        """The profile of some of its rows (positions in `rows`): all that a System's plan may see."""
        return replace(
            self,
            rows=self.rows[positions],
            labels=self.labels[positions],
            models={name: model.take(positions) for name, model in self.models.items()},
        )

    def at_batch(self, size: int) -> Self:
        """The profile with milliseconds per query at this batch size, where that was measured."""
        return replace(self, models={name: model.at_batch(size) for name, model in self.models.items()})

    def band(self, least: float, positions: np.ndarray) -> float:
        """How near a threshold rows at `positions` may be decided otherwise in a batch than alone.

        The largest drift of the other rows, which the plan was tuned on (of all, where there are no others).
        """
        drifts = [model.drift for model in self.models.values() if model.drift is not None]
        if not drifts:
            return least
        tuned_on = np.ones(len(self.rows), bool)
        tuned_on[positions] = False
        drift = np.stack(drifts)[:, tuned_on if tuned_on.any() else ~tuned_on]
        return max(least, float(drift[np.isfinite(drift)].max(initial=0.0)))

    def level_ms(self, pruned: bool) -> float:
        """What a level beyond the first costs beside its model, on full or on pruned text."""
        return self.overhead_ms + self.prune_ms * pruned

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Positions of validation rows in this profile."""
        return np.searchsorted(self.rows, rows)

    def pruned(self, key: PruneKey, positions: np.ndarray) -> Pruned:
        """Outputs of `key.large` on the pruned text of some rows of this profile. Raises LookupError without models."""
        raise LookupError(f"this profile has no outputs on pruned text for {key}; it was loaded without models")

    def pruned_tokens(self, key: PruneKey, positions: np.ndarray) -> np.ndarray:
        """(n,) tokens of the pruned texts of some rows; no model runs. Raises LookupError without models."""
        return self.pruned(key, positions).tokens

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns; a profile with a lab keeps it for the session."""
        return make()
