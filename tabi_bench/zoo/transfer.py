"""Unlabelled queries for distillation, made from the texts of a task's own train split.

A small model has few labelled rows to learn from, but its teacher can answer any query. The made ones need not be
sensible; they need to lie near enough to real ones that the answers say how it tells labels apart: the transfer set of
Hinton et al. 2015, https://arxiv.org/abs/1503.02531, augmented as in TinyBERT, Jiao et al. 2020,
https://aclanthology.org/2020.findings-emnlp.372.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from tabi_bench.zoo.training import MIN_WORDS

CHUNK = 2048  # rows of the similarity matrix at a time

Query = tuple[str, ...]


def made_queries(rows: Sequence[Query], rounds: int, seed: int) -> list[Query]:
    """`rounds` queries per row of two texts: in turn the texts swapped, the second text replaced by a similar one, a
    fragment of the first text with the second.

    Raises ValueError for rows of one text.
    """
    if any(len(row) != 2 for row in rows):
        raise ValueError("queries are made of pairs of texts")
    rng = np.random.default_rng(seed)
    firsts, seconds = [row[0] for row in rows], [row[1] for row in rows]
    similar = _similar(firsts, seconds, count=-(-rounds // 3))
    made: list[Query] = []
    for turn in range(rounds):
        if turn % 3 == 0:
            made += [(fragment(second, rng) if turn else second, first) for first, second in rows]
        elif turn % 3 == 1:
            made += [(first, seconds[near]) for first, near in zip(firsts, similar[:, turn // 3], strict=True)]
        else:
            made += [(fragment(first, rng), second) for first, second in rows]
    return made


def fragment(text: str, rng: np.random.Generator) -> str:
    """A run of words of the text: half of them or more, and never fewer than MIN_WORDS of a longer text."""
    words = text.split()
    length = int(rng.integers(max(MIN_WORDS, -(-len(words) // 2)), max(MIN_WORDS, len(words)) + 1))
    start = int(rng.integers(0, max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])


def _similar(firsts: list[str], seconds: list[str], count: int) -> np.ndarray:
    """(N, count) rows whose second text shares most with row's first (cosine of tf-idf), the row itself left out."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit(firsts + seconds)
    left, right = vectorizer.transform(firsts), vectorizer.transform(seconds)
    found = []
    for start in range(0, len(firsts), CHUNK):
        alike = (left[start : start + CHUNK] @ right.T).toarray()
        own = np.arange(len(alike))
        alike[own, start + own] = -1.0
        best = np.argpartition(-alike, count, axis=1)[:, :count]
        found.append(np.take_along_axis(best, np.argsort(-np.take_along_axis(alike, best, 1), axis=1), 1))
    return np.concatenate(found)
