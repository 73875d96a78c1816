"""Importance of words: the attention that their tokens receive from the other tokens of the query.

s_j = mean over heads and over non-special rows i != j of A[i, j]. Special tokens and padding count neither as rows nor
as columns. A word's importance is the maximum over its tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from tabi_bench.zoo.families import family


def attention_received(attention: np.ndarray, content: np.ndarray) -> np.ndarray:
    """(L,) scores from attention (heads, L, L) and the mask of non-special tokens (L,); 0 without another row."""
    weights = content.astype(np.float32)
    mean_heads = attention.mean(axis=0, dtype=np.float32)
    total = weights @ mean_heads - weights * np.diagonal(mean_heads)
    return (weights * total / np.maximum(weights.sum() - 1, 1)).astype(np.float32)


def attention_received_torch(attention: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """The same on a device, without a synchronisation: attention (B, heads, L, L), content (B, L) -> (B, L) float32."""
    weights = content.to(torch.float32)
    mean_heads = attention.mean(dim=1, dtype=torch.float32)
    total = (weights[:, None] @ mean_heads)[:, 0] - weights * torch.diagonal(mean_heads, dim1=1, dim2=2)
    return weights * total / (weights.sum(1, keepdim=True) - 1).clamp(min=1)


class Probe:
    """Collects the attention that each token receives in the last layer, or in all of them.

    `begin` arms it with the mask of non-special tokens (B, L), or disarms it with None. Attention calls are counted, so
    that layers which share their weights (ALBERT) are told apart.
    """

    def __init__(self, layers: int, option: str):
        if option not in ("last", "mean"):
            raise ValueError(f"importance={option!r}: choose last or mean")
        self.layers, self.option = layers, option
        self.begin(None)

    def begin(self, content: torch.Tensor | None) -> None:
        self.content = content
        self.calls = 0
        self.scores: list[torch.Tensor] = []

    def reads(self) -> bool:
        """Whether the attention call that starts now is to be read."""
        self.calls += 1
        return self.content is not None and (self.option == "mean" or self.calls == self.layers)

    def add(self, probabilities: torch.Tensor) -> None:
        """probabilities: (B, heads, L, L) of one layer."""
        self.scores.append(attention_received_torch(probabilities, self.content))

    def result(self) -> torch.Tensor:
        """(B, L) float32 scores, averaged over the layers read. No attention seen is an AssertionError."""
        expected = 1 if self.option == "last" else self.layers
        assert len(self.scores) == expected, f"attention of {len(self.scores)} layers seen, {expected} expected"
        return self.scores[0] if expected == 1 else torch.stack(self.scores).mean(0)


def install_probe(model: PreTrainedModel, option: str) -> Probe:
    """Attaches a Probe to every attention module of `model`."""
    adapter = family(model.config.model_type)
    probe = Probe(adapter.attention_calls(model), option)
    for module in adapter.attention_modules(model):
        adapter.read_attention(module, probe)
    return probe


def word_importance(scores: np.ndarray, word_of_token: np.ndarray, n_words: int) -> np.ndarray:
    """(W,) float32: the maximum of the scores (L,) over each word's tokens, NaN for a word without a token."""
    words = np.full(n_words, np.nan, np.float32)
    inside = word_of_token >= 0
    np.fmax.at(words, word_of_token[inside], scores[: len(word_of_token)][inside])
    return words
