"""What the loaded models of all engines share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from tabi_bench.device import Begun
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoders, Encoding, numbers
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

    def begin_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> Begun[list[Output]]:
        """See `Model.begin_batch`; it waits unless an engine knows better."""
        return Begun.done(self.forward_batch(encodings, want_importance))


@dataclass(frozen=True, slots=True)
class Pending:
    """Importance that nobody has asked for yet: called, the (W,) of the words of `encoding`, from scores (>= L,) of its
    tokens."""

    scores: np.ndarray
    encoding: Encoding

    def __call__(self) -> np.ndarray:
        return word_importance(self.scores, self.encoding.word_of_token, sum(map(len, self.encoding.words)))


def words_from(scores: np.ndarray | None, encoding: Encoding) -> Pending | None:
    """The importance of the words of `encoding` where there are scores (>= L,) of its tokens."""
    return None if scores is None else Pending(scores, encoding)


def work_out(outputs: Sequence[Output]) -> list[np.ndarray]:
    """The (W,) importance of each of several outputs that have one; what is pending, by one call for all."""
    waiting = [(output, output.pending) for output in outputs if isinstance(output.pending, Pending)]
    if len(waiting) > 1:
        ends = list(accumulate(sum(map(len, one.encoding.words)) for _, one in waiting))
        starts, words = [0, *ends[:-1]], [one.encoding.word_of_token for _, one in waiting]
        scores = np.concatenate([one.scores[: len(word)] for (_, one), word in zip(waiting, words, strict=True)])
        word = np.concatenate(words)
        word = np.where(word < 0, word, word + np.repeat(starts, [len(one) for one in words]))
        importance = word_importance(scores, word, ends[-1])
        for (output, _), start, end in zip(waiting, starts, ends, strict=True):
            output.pending = importance[start:end]
    known = [output.importance for output in outputs]
    assert all(one is not None for one in known), "a level that others prune by is loaded with importance"
    return [one for one in known if one is not None]


def joined(rows: Iterable[bytes]) -> np.ndarray:
    """(sum of tokens,) int64: rows of several encodings, one after the other."""
    return numbers(b"".join(rows))


def padded(encodings: Sequence[Encoding], pad: int, size: int, length: int, content: bool) -> np.ndarray:
    """(4, size, length) int64: ids, type ids, keep and content of a batch. Rows beyond it keep one token of padding.

    `content` is filled only where it is asked for.
    """
    rows = np.zeros((4, size, length), np.int64)
    tokens = np.array([encoding.n_tokens for encoding in encodings])
    inside = np.zeros((size, length), bool)
    inside[: len(encodings)] = np.arange(length) < tokens[:, None]
    rows[0] = pad
    rows[0][inside] = joined(encoding.row for encoding in encodings)
    rows[1][inside] = joined(encoding.type_row for encoding in encodings)
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
