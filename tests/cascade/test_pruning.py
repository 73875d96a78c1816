"""One query's text without its unimportant words."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.cascade.pruning import prune_query
from tabi_bench.profiling.profile import PruneKey

WORDS = (["a", "b", "c", "d", "e"], ["x", "y"])
IMPORTANCE = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.1, 0.2])  # the first text's mean is 3


def test_words_below_alpha_times_their_texts_mean_go():
    keep, near = prune_query(WORDS, IMPORTANCE, PruneKey("small", "large", 0.5), seed=0, query=1)
    assert keep.tolist() == [False] + 6 * [True] and not near


def test_a_word_at_its_threshold_is_near_it():
    at = PruneKey("small", "large", 2 / 3)  # 2 / 3 of 3 is the second word's own
    assert prune_query(WORDS, IMPORTANCE, at, seed=0, query=1)[1]


def test_alpha_zero_leaves_every_word():
    keep, near = prune_query(WORDS, IMPORTANCE, PruneKey("small", "large", 0.0), 0, 1)
    assert keep.all() and not near


@pytest.mark.parametrize("control", ["random", "stopwords"])
def test_a_control_keeps_as_many_words(control):
    key = PruneKey("small", "large", 0.9, control=control)
    keep, _ = prune_query(WORDS, IMPORTANCE, key, seed=0, query=1)
    assert keep[:5].sum() == 3 and keep[5:].all()


def test_a_query_without_words_is_left_alone():
    keep, near = prune_query(([], []), np.zeros(0), PruneKey("small", "large", 0.9), 0, 1)
    assert len(keep) == 0 and not near
