"""One query's text without its unimportant words, as serving makes it: the rules of `rules.py` put together."""

from __future__ import annotations

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.profiling.profile import PruneKey


def prune_query(
    texts: tuple[str, ...], importance: np.ndarray, key: PruneKey, seed: int, query: int
) -> tuple[tuple[str, ...], float, bool]:
    """(pruned texts, share of words kept, whether some importance lies within 1e-3 of its threshold)."""
    words = [text.split() for text in texts]
    keep = rules.kept_words(importance, words, key.alpha, key.control, seed, query)
    near = rules.near_threshold(importance, [len(text) for text in words], key.alpha)
    return rules.pruned_texts(texts, words, keep), float(keep.mean()) if len(keep) else 1.0, near
