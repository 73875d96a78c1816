"""Which texts are timed for a length, and that their words are known by then."""

import time
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tabi_bench.profiling.lab import FEW, HARDLY, Lab, _latency_curves, _rows
from tabi_bench.tasks.base import Query

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


def test_words_met_for_the_first_time_are_no_part_of_a_models_time(tmp_path):
    """Two models share an encoder that takes long over a text that it has not seen, as when outputs were cached."""
    seen = set()

    def encode(texts):
        if texts not in seen:
            seen.add(texts)
            end = time.perf_counter() + 2e-3
            while time.perf_counter() < end:
                pass
        return texts

    def model(name):
        spec = SimpleNamespace(name=name, layers=1)
        return SimpleNamespace(spec=spec, encode=encode, forward=lambda encoding, want_importance: None)

    queries = [Query(row, (f"text {row}",)) for row in range(60)]
    engine = SimpleNamespace(lengths=lambda longest: [longest], pads=True, device="cpu")
    lab = Lab(SimpleNamespace(queries=queries), None, engine, tmp_path, seed=0, rounds=2)
    outputs = {name: {"tokens": np.full(60, 8), "importance": {}} for name in ("first", "second")}
    loaded = {name: {None: model(name)} for name in outputs}
    curves = _latency_curves(lab, loaded, outputs)
    assert curves["first"].ms[0] < 1.0 and curves["second"].ms[0] < 1.0
