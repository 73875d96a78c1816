"""From raw text to pieces, with the Rust tokenizer directly, and from pieces back to words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Encoding as Pieces
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from tabi_bench.engines.base import Encoding

CHARS_PER_PIECE = 32  # texts longer than this times max_length are first tried on their beginning
_WORD = re.compile(r"\S+")  # the same runs as str.split


def word_spans(text: str) -> np.ndarray:
    """(W, 2) first and one-past-last character of each word."""
    spans = [match.span() for match in _WORD.finditer(text)]
    return np.array(spans, np.int64).reshape(-1, 2)


def align(texts: Sequence[str], pieces: Pieces) -> np.ndarray:
    """(L,) int64: the word of each piece, numbered through all texts; -1 for special tokens and pieces of white space.

    A piece belongs to the word that holds its last character: some tokenizers count the space before a word to it.
    """
    word = np.full(len(pieces), -1, np.int64)
    sequence = np.array([-1 if s is None else s for s in pieces.sequence_ids], np.int64)
    offsets = np.array(pieces.offsets, np.int64).reshape(-1, 2)
    first = 0
    for number, text in enumerate(texts):
        spans = word_spans(text)
        rows = np.flatnonzero((sequence == number) & (offsets[:, 1] > offsets[:, 0]))
        if len(spans) and len(rows):
            last = offsets[rows, 1] - 1
            found = np.searchsorted(spans[:, 0], last, side="right") - 1
            inside = (found >= 0) & (last < spans[found, 1])
            word[rows[inside]] = first + found[inside]
        first += len(spans)
    return word


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Encoding:
    """Tokenises one or two texts, truncating at `max_length` pieces.

    A very long text is tokenised from its beginning, and whole only if that did not fill `max_length`: time and memory
    do not grow with the text.
    """
    from tabi_bench.engines.base import Encoding

    limit = CHARS_PER_PIECE * max_length
    if max(map(len, texts)) > limit:
        clipped = tokenizer.encode(*(text[:limit] for text in texts))
        if clipped.overflowing:
            return Encoding(tuple(texts), clipped, truncated=True)
    pieces = tokenizer.encode(*texts)
    return Encoding(tuple(texts), pieces, truncated=bool(pieces.overflowing))
