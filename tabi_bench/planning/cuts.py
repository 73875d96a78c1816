"""What the plan search moves along: thresholds between neighbouring confidences, and outputs known so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.dispatch import Threshold
from tabi_bench.cascade.point import Point
from tabi_bench.profiling.profile import Profile, PruneKey


@dataclass(frozen=True)
class Cut:
    """Some rows, least confident first, and the thresholds between them.

    order: (M,) positions; confidence: (M,) in that order, -inf where it is not a number: such rows always re-route.
    """

    order: np.ndarray
    confidence: np.ndarray
    dispatcher: type[Threshold] = Threshold

    @classmethod
    def of(cls, confidence: np.ndarray, positions: np.ndarray, dispatcher: type[Threshold] = Threshold) -> Cut:
        """confidence: (N,) of all rows, as `dispatcher` compares it; positions: (M,) of those that are cut."""
        sure = np.nan_to_num(confidence[positions], nan=-np.inf)
        ascending = np.argsort(sure, kind="stable")
        return cls(positions[ascending], sure[ascending], dispatcher)

    @cached_property
    def counts(self) -> np.ndarray:
        """Ascending numbers of rows that some threshold re-routes: not between equals, never short of a NaN."""
        between = np.flatnonzero(self.confidence[1:] > self.confidence[:-1]) + 1
        ends = [] if np.isneginf(self.confidence[:1]).any() else [0]
        return np.unique(np.concatenate([ends, between, [len(self.order)]]).astype(np.int64))

    def tau(self, count: int) -> float:
        """The threshold that re-routes `count` rows: midway between neighbours."""
        if count == len(self.order):
            return self.dispatcher.always
        if count == 0 or np.isneginf(self.confidence[count - 1]):
            return self.dispatcher.never
        below, above = self.confidence[count - 1], self.confidence[count]
        midway = (below + above) / 2
        return float(midway if midway > below else above)  # neighbouring floats have nothing between them


class Known:
    """What a model says of what it reads, rows (N,), as far as known.

    output: (N, K), NaN where it has not run; pooled: (N, H) or None; ms: (N,), a lower bound until `timed`. Full text
    is known from the start; pruned text, given by `key`, is tokenised and run only on demand.
    """

    def __init__(
        self, output: np.ndarray, pooled: np.ndarray | None, ms: np.ndarray, key: PruneKey | None = None
    ) -> None:
        self.output, self.pooled, self.ms, self.key = output, pooled, ms, key
        self.ran, self.timed = np.full(len(ms), key is None), np.full(len(ms), key is None)

    @classmethod
    def of_pruned(cls, key: PruneKey, profile: Profile) -> Known:
        """Nothing known yet but that no text is faster than the shortest."""
        n, fastest = len(profile.rows), float(profile.models[key.large].latency.ms.min())
        return cls(np.full((n, profile.n_outputs), np.nan), None, np.full(n, fastest), key)

    def known(self, order: np.ndarray) -> int:
        """How many rows in `order`, from its beginning, have run."""
        ran = self.ran[order]
        return len(order) if ran.all() else int((~ran).argmax())

    def time(self, profile: Profile, positions: np.ndarray) -> bool:
        """Latencies of pruned texts by their length; no model runs. False if all were timed before."""
        new = positions[~self.timed[positions]]
        if self.key is not None and len(new):
            self.ms[new] = profile.models[self.key.large].latency(profile.pruned_tokens(self.key, new))
            self.timed[new] = True
        return len(new) > 0

    def run(self, profile: Profile, positions: np.ndarray, temperature: float) -> int:
        """Runs the large model on those of the pruned texts that it has not read; how many these were."""
        self.time(profile, positions)
        new = positions[~self.ran[positions]]
        if self.key is not None and len(new):
            pruned = profile.pruned(self.key, new)
            self.output[new], self.ran[new] = outputs_of(pruned.logits, temperature), True
            if pruned.pooled is not None:
                if self.pooled is None:
                    self.pooled = np.zeros((len(self.ran), pruned.pooled.shape[1]))
                self.pooled[new] = pruned.pooled
        return len(new)


@dataclass(frozen=True)
class LastStep:
    """Everything decided but the last threshold.

    passed: outputs (N, K) of the levels before the last; base: (N,) answers if the last level is never asked; spent_ms:
    their total time over all rows; cut: the rows that reach the last level but one; last: the last level; taus, shares:
    of the levels before these two.
    """

    point: Point
    passed: list[np.ndarray]
    base: np.ndarray
    spent_ms: float
    cut: Cut
    last: Known
    taus: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def latency_ms(self, overhead_ms: float) -> np.ndarray:
        """(M + 1,) mean latency by number of rows re-routed to the last level; a lower bound for untimed rows."""
        extra = np.cumsum(self.last.ms[self.cut.order] + overhead_ms)
        return (self.spent_ms + np.concatenate([[0.0], extra])) / len(self.base)
