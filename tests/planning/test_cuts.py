"""Thresholds between neighbouring confidences, by hand; what is known of a model on pruned text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tabi_bench.cascade.dispatch import Sigmoid, Threshold
from tabi_bench.cascade.rules import ALWAYS, NEVER, reroute
from tabi_bench.planning.cuts import Cut, Known
from tabi_bench.profiling.profile import PruneKey
from tests.cascade.ladder import build


def cut(*confidence: float, dispatcher: type[Threshold] = Threshold) -> Cut:
    return Cut.of(np.array(confidence), np.arange(len(confidence)), dispatcher)


def test_thresholds_by_hand():
    result = cut(0.9, 0.5, 0.7, 0.7)
    assert result.order.tolist() == [1, 2, 3, 0] and result.counts.tolist() == [0, 1, 3, 4]
    assert [result.tau(count) for count in (0, 1, 3, 4)] == pytest.approx([NEVER, 0.6, 0.8, ALWAYS])


def test_what_is_no_number_is_always_re_routed():
    result = cut(0.9, np.nan, 0.7)
    assert result.counts.tolist() == [1, 2, 3] and result.tau(1) == NEVER


def test_neighbouring_floats_have_a_threshold_too():
    low, high = 0.7, np.nextafter(0.7, 1)
    result = cut(low, high)
    assert reroute(np.array([low, high]), result.tau(1)).tolist() == [True, False]


def test_ends_are_the_dispatchers_own():
    result = cut(-3.0, 4.0, dispatcher=Sigmoid)
    assert (result.tau(0), result.tau(2)) == (Sigmoid.never, Sigmoid.always)


confidences = st.one_of(st.floats(0, 1), st.just(np.nan), st.sampled_from([0.2, 0.5]))


@given(hnp.arrays(float, st.integers(1, 30), elements=confidences))
def test_every_threshold_re_routes_as_many_rows_as_it_counts(confidence):
    result = Cut.of(confidence, np.arange(len(confidence)))
    for count in result.counts.tolist():
        routed = reroute(confidence, result.tau(count))
        assert set(np.flatnonzero(routed)) == set(result.order[:count].tolist())


def test_pruned_text_is_timed_without_a_model_and_run_once():
    ladder = build(40, seed=1)
    profile, key = ladder.profile, PruneKey("small", "large", 0.8)
    known, rows = Known.of_pruned(key, profile), np.array([3, 5, 8])
    before = len(ladder.models["large"].calls)
    assert known.known(rows) == 0 and (known.ms == profile.models["large"].latency.ms.min()).all()
    assert known.time(profile, rows) and not known.time(profile, rows)
    assert len(ladder.models["large"].calls) == before, "lengths need no model"
    assert (known.ms[rows] >= known.ms[0]).all() and np.isnan(known.output).all()
    assert known.run(profile, rows[:2], temperature=1.0) == 2 and known.run(profile, rows, temperature=1.0) == 1
    assert known.known(rows) == 3 and np.isfinite(known.output[rows]).all() and known.pooled[rows].any()
    assert len(profile.runner.ran) == 3
