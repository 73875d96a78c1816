"""One query without its unimportant words, as serving makes it: the rules of `rules.py` put together."""

from __future__ import annotations

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.profiling.profile import PruneKey


def prune_query(
    words: tuple[list[str], ...], importance: np.ndarray, key: PruneKey, seed: int, query: int
) -> tuple[np.ndarray, bool]:
    """((W,) bool, True for words that are kept; whether some importance lies within 1e-3 of its threshold).

    words: of each text; importance: (W,) of all of them.
    """
    keep = rules.kept_words(importance, words, key.alpha, key.control, seed, query)
    return keep, rules.near_threshold(importance, [len(text) for text in words], key.alpha)
