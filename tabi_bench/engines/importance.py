"""Importance of words: the attention that their pieces receive from the other pieces of the query.

s_j = mean over heads and over non-special rows i != j of A[i, j]. Special tokens and padding count neither as rows nor
as columns. A word's importance is the maximum over its pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def attention_received(attention: np.ndarray, content: np.ndarray) -> np.ndarray:
    """(L,) scores from attention (heads, L, L) and the mask of non-special tokens (L,); 0 without another row."""
    weights = content.astype(np.float32)
    mean_heads = attention.mean(axis=0, dtype=np.float32)
    total = weights @ mean_heads - weights * np.diagonal(mean_heads)
    return (weights * total / np.maximum(weights.sum() - 1, 1)).astype(np.float32)


def attention_received_torch(attention: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """The same on a device, without a synchronisation: attention (1, heads, L, L), content (1, L) -> (L,) float32."""
    import torch

    weights = content[0].to(torch.float32)
    mean_heads = attention[0].mean(dim=0, dtype=torch.float32)
    total = weights @ mean_heads - weights * torch.diagonal(mean_heads)
    return weights * total / (weights.sum() - 1).clamp(min=1)


def word_importance(scores: np.ndarray, word_of_piece: np.ndarray, n_words: int) -> np.ndarray:
    """(W,) float32: the maximum of the scores (L,) over each word's pieces, NaN for a word without a piece."""
    words = np.full(n_words, -np.inf, np.float32)
    inside = word_of_piece >= 0
    np.maximum.at(words, word_of_piece[inside], scores[: len(word_of_piece)][inside])
    words[np.isneginf(words)] = np.nan
    return words
