"""How one model runs one query: the protocol that all engines follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tabi_bench.device import Begun
from tabi_bench.engines.encoding import Encoding
from tabi_bench.zoo.base import ModelSpec


class Output:
    """What a model says of one query.

    logits: (K,) float32 in the task's label order (regression: (1,), on the task's scale).
    pooled: (H,) float32, the input of the final linear layer; only when the engine was loaded with `pooled=True`.
    probabilities: (K,) softmax(logits / temperature) where the engine computed it on the device, else None.
    verdict: (label, largest probability) where the device computed those, else None; the second is NaN where a logit is
    not finite.
    """

    __slots__ = ("logits", "pending", "pooled", "probabilities", "verdict")

    def __init__(
        self,
        logits: np.ndarray,
        importance: np.ndarray | Callable[[], np.ndarray] | None = None,
        pooled: np.ndarray | None = None,
        probabilities: np.ndarray | None = None,
        verdict: tuple[int, float] | None = None,
    ):
        self.logits, self.pooled, self.probabilities, self.verdict = logits, pooled, probabilities, verdict
        self.pending = importance

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: with its importance, as the encoding is left behind."""
        return Output, (self.logits, self.importance, self.pooled, self.probabilities, self.verdict)

    @property
    def finite(self) -> bool:
        """Whether all logits are finite."""
        if self.verdict is not None:
            return self.verdict[1] == self.verdict[1]
        return bool(np.isfinite(self.logits).all())

    @property
    def importance(self) -> np.ndarray | None:
        """(W,) float32, one per word over all texts, NaN for words without a token; None unless asked for.

        A query that returns early never reads it, so aligning tokens with words waits until someone does.
        """
        if callable(self.pending):
            self.pending = self.pending()
        return self.pending


class Model(Protocol):
    """A zoo member, loaded on an engine."""

    spec: ModelSpec
    encode: Callable[[Sequence[str]], Encoding]  # the same object for models that read the same tokens

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output: ...

    def forward_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> list[Output]: ...

    def begin_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> Begun[list[Output]]:
        """`forward_batch` without waiting for the device. At most two may be on their way, and end in order."""
        ...

    def set_temperature(self, temperature: float) -> None: ...


class SegmentedModel(Protocol):
    """A model cut after its active off-ramps (DeeBERT): `start` once per query, then `step` up to n_segments times."""

    spec: ModelSpec
    n_segments: int

    def encode(self, texts: Sequence[str]) -> Encoding: ...

    def start(self, encoding: Encoding) -> None: ...

    def step(self) -> np.ndarray:
        """Runs the next segment; logits (K,) of the ramp at its end (the last: of the model's own head)."""
        ...

    def start_batch(self, encodings: Sequence[Encoding]) -> None: ...

    def step_batch(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The same in batches: logits (n, K), of `rows` (n,) of those of the last step (None: all). Others left."""
        ...


class Together(Protocol):
    """Models that run at the same time."""

    def forward(self, encodings: Sequence[Encoding]) -> list[Output]:
        """One encoding per model, outputs in the same order."""
        ...


class Engine(Protocol):
    """Loads models on one device in one dtype."""

    name: str
    device: str  # "cpu" or "cuda:0"
    dtype: str  # "float32", "float16"

    def load(
        self, spec: ModelSpec, *, importance: str | None = None, pooled: bool = False, instance: str = ""
    ) -> Model:
        """importance: None, "last" or "mean" (over layers): which attention `want_importance` reads.

        instance: loads of the same model share weights and graphs; under another name it has its own.
        """
        ...

    def load_segments(self, spec: ModelSpec, ramps: dict[int, Any], instance: str = "") -> SegmentedModel:
        """ramps: {layer (1-based, < spec.layers): torch module, hidden states (1, L, H) and mask (1, L) -> (1, K)}."""
        ...

    def concurrent(self, models: Sequence[Model]) -> Together | None:
        """What runs the models at the same time; None: the engine has no streams."""
        ...

    def lengths(self, longest: int) -> list[int]:
        """Token lengths at which latency is profiled: the buckets, or a grid for engines that do not pad."""
        ...

    @property
    def pads(self) -> bool:
        """True if a query runs at the next bucket's length (latency is a step function of length)."""
        ...

    def describe(self) -> dict:
        """For the record: buckets, padding share, capture and compile seconds, recompilations, fallbacks by model."""
        ...

    def forget_words(self) -> None:
        """Empties the tokenizers' memory of words: profiling has seen all queries, serving has not."""
        ...

    def close(self) -> None:
        """Frees graphs, memory pools and weights."""
        ...


@dataclass
class Fallback:
    """A model that could not run under the engine asked for, and why; it runs under eager instead."""

    model: str
    reason: str
    engine: str = "eager"
    details: dict = field(default_factory=dict)
