"""What the loaded models of all engines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoders, Encoding
from tabi_bench.engines.importance import word_importance
from tabi_bench.zoo.base import ModelSpec


class LoadedModel:
    """Tokenising and temperature: what the models of all engines share. Not safe for concurrent use."""

    def __init__(self, spec: ModelSpec, encoders: Encoders):
        self.spec = spec
        self.temperature = 1.0
        self.encode = encoders.of(spec.path, spec.max_length)  # the same object for models that read the same pieces

    def set_temperature(self, temperature: float) -> None:
        """Of the probabilities that the device computes."""
        self.temperature = float(temperature)

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """See `Model.forward`."""
        raise NotImplementedError

    def forward_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> list[Output]:
        """See `Model.forward_batch`; one after the other unless an engine knows better."""
        return [self.forward(encoding, want_importance) for encoding in encodings]


def words_from(scores: np.ndarray | None, encoding: Encoding) -> Callable[[], np.ndarray] | None:
    """Works out, when called, the (W,) importance of the words of `encoding` from scores (>= L,) of its pieces."""
    if scores is None:
        return None
    return lambda: word_importance(scores, encoding.word_of_piece, sum(map(len, encoding.words)))
