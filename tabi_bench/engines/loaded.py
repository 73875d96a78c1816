"""What the loaded models of all engines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

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
        self.encode = encoders.of(spec.path, spec.max_length)  # the same object for models that read the same tokens

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
    """Works out, when called, the (W,) importance of the words of `encoding` from scores (>= L,) of its tokens."""
    if scores is None:
        return None
    return lambda: word_importance(scores, encoding.word_of_token, sum(map(len, encoding.words)))


def padded(encodings: Sequence[Encoding], pad: int, size: int, length: int, content: bool) -> np.ndarray:
    """(4, size, length) int64: ids, type ids, keep and content of a batch. Rows beyond it keep one token of padding.

    `content` is filled only where it is asked for.
    """
    rows = np.zeros((4, size, length), np.int64)
    tokens = np.array([encoding.n_tokens for encoding in encodings])
    inside = np.zeros((size, length), bool)
    inside[: len(encodings)] = np.arange(length) < tokens[:, None]
    rows[0] = pad
    rows[0][inside] = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
    if any(any(encoding.type_ids) for encoding in encodings):
        rows[1][inside] = np.fromiter(chain.from_iterable(encoding.type_ids for encoding in encodings), np.int64)
    rows[2] = inside
    rows[2, len(encodings) :, 0] = 1
    if content:
        rows[3][inside] = np.concatenate([encoding.content for encoding in encodings])
    return rows


def outputs_of_batch(
    encodings: Sequence[Encoding],
    temperature: float,
    logits: np.ndarray,
    scores: np.ndarray | None,
    pooled: np.ndarray | None,
) -> list[Output]:
    """The Outputs of a batch from logits (B, K), scores of tokens (B, L) and pooled vectors (B, H), rows in order."""
    verdicts: list[tuple[int, float] | None] = [None] * len(encodings)
    probabilities = None
    if logits.shape[1] > 1:
        shifted = (logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature)
        exponentials = np.exp(shifted)
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        verdicts = list(zip(logits.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist(), strict=True))
    return [
        Output(
            logits[k],
            None if scores is None else words_from(scores[k], encoding),
            None if pooled is None else pooled[k],
            None if probabilities is None else probabilities[k],
            verdicts[k],
        )
        for k, encoding in enumerate(encodings)
    ]
