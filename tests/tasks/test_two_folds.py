"""Two-fold cross-fitting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi_bench.tasks.folds import two_folds


@given(st.lists(st.integers(0, 4), min_size=4, max_size=80), st.integers(0, 5))
def test_halves_are_disjoint_complete_and_stratified(labels, seed):
    labels = np.array(labels)
    a, b = two_folds(labels, seed)
    assert sorted([*a, *b]) == list(range(len(labels)))
    assert abs(len(a) - len(b)) <= 1
    for label in np.unique(labels):
        assert abs((labels[a] == label).sum() - (labels[b] == label).sum()) <= 1


def test_scores_are_stratified_by_decile():
    scores = np.linspace(0, 5, 100)
    a, b = two_folds(scores, 0)
    assert abs(scores[a].mean() - scores[b].mean()) < 0.2


def test_seeded():
    labels = np.arange(40) % 3
    assert (two_folds(labels, 1)[0] == two_folds(labels, 1)[0]).all()
    assert not np.array_equal(two_folds(labels, 1)[0], two_folds(labels, 2)[0])


def test_too_few_rows():
    with pytest.raises(ValueError, match="at least 4"):
        two_folds(np.array([0, 1]), 0)
