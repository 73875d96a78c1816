"""Which texts are timed for a length."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tabi_bench.profiling.build import FEW, HARDLY, _rows

CALLS = 30

TOKENS = st.lists(st.integers(1, 40), min_size=1, max_size=200).map(np.array)


@given(TOKENS)
def test_a_padding_engine_is_timed_on_texts_of_the_bucket(tokens):
    grid = np.array([8, 16, 32, 48])
    for shorter, length, rows in zip([0, *grid], grid, _rows(tokens, grid, pads=True, calls=CALLS), strict=False):
        inside = np.flatnonzero((tokens > shorter) & (tokens <= length))
        if len(inside):
            assert set(rows) <= set(inside) and len(set(rows)) == len(rows) == min(CALLS, len(inside))
        else:
            assert len(rows) >= min(FEW, len(tokens))


@given(TOKENS)
def test_other_engines_are_timed_on_the_nearest_texts(tokens):
    grid = np.array([5, 20, 40])
    for length, rows in zip(grid, _rows(tokens, grid, pads=False, calls=CALLS), strict=True):
        away = np.abs(tokens - length)
        assert len(set(rows)) == len(rows) <= CALLS and len(rows) >= min(FEW, len(tokens))
        assert sorted(away[rows[:FEW]]) == sorted(away)[:FEW] and (away[rows[FEW:]] <= HARDLY).all()


def test_many_texts_of_one_length_are_not_timed_over_and_over():
    assert len(_rows(np.full(500, 9), np.array([9]), pads=False, calls=CALLS)[0]) == CALLS
