"""From tokens back to words: which word of the text each token belongs to, for training and for serving."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding as Tokens

_WORD = re.compile(r"\S+")  # the same runs as str.split


def word_spans(text: str) -> np.ndarray:
    """(W, 2) first and one-past-last character of each word."""
    spans = [match.span() for match in _WORD.finditer(text)]
    return np.array(spans, np.int64).reshape(-1, 2)


def align(texts: Sequence[str], tokens: Tokens) -> np.ndarray:
    """(L,) int64: the word of each token, numbered through all texts; -1 for special tokens and those of white space.

    A token belongs to the word that holds its last character: some tokenizers count the space before a word to it.
    """
    word = np.full(len(tokens), -1, np.int64)
    sequence = np.array([-1 if s is None else s for s in tokens.sequence_ids], np.int64)
    offsets = np.array(tokens.offsets, np.int64).reshape(-1, 2)
    first = 0
    for number, text in enumerate(texts):
        spans = word_spans(text)
        rows = np.flatnonzero((sequence == number) & (offsets[:, 1] > offsets[:, 0]))
        if len(spans) and len(rows):
            last = offsets[rows, 1] - 1
            word_before = np.searchsorted(spans[:, 0], last, side="right") - 1
            inside = (word_before >= 0) & (last < spans[word_before, 1])
            word[rows[inside]] = first + word_before[inside]
        first += len(spans)
    return word


def without_short_texts(word: np.ndarray, texts: Sequence[str], most: int) -> np.ndarray:
    """`word` (L,) of `align` with -1 for the words of texts of at most `most` words."""
    counts = [len(text.split()) for text in texts]
    short = np.repeat([count <= most for count in counts], counts)
    return np.where((word >= 0) & np.append(short, False)[word], -1, word)
