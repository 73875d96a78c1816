"""An operating point on profiled rows: both ends, latencies and borderline rows by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.cascade.rules import softmax
from tests.cascade.ladder import build

N = 120
PAIR = Point(["small", "large"], [1.0, 1.0], [0.6, 0.9], [0.7], [0.0])
ROWS = np.arange(N)


@pytest.fixture(scope="module")
def profile():
    return build(N, seed=2).profile


@pytest.mark.parametrize(("tau", "name"), [(0.0, "small"), (2.0, "large")])
def test_both_ends_of_the_threshold_are_the_single_models(profile, tau, name):
    outcomes = replay_point(replace(PAIR, taus=[tau]), profile, ROWS)
    assert (outcomes.labels == profile.models[name].logits.argmax(1)).all()


def test_one_level_is_the_model_alone(profile):
    outcomes, model = replay_point(Point.of_one("medium"), profile, ROWS), profile.models["medium"]
    assert outcomes.labels.tolist() == model.logits.argmax(1).tolist() and not outcomes.levels.any()
    assert outcomes.latency_ms == pytest.approx(model.latency(model.tokens))
    assert (outcomes.words_kept_share == 1).all()


def test_latency_is_that_of_the_levels_passed_and_what_lies_between(profile):
    outcomes = replay_point(PAIR, profile, ROWS)
    small, large = (profile.models[name].latency(profile.models[name].tokens) for name in PAIR.models)
    routed = softmax(profile.models["small"].logits).max(axis=1) < 0.7
    assert (outcomes.levels == routed).all() and 0 < routed.sum() < N
    assert outcomes.latency_ms == pytest.approx(small + routed * (large + profile.overhead_ms))


def test_pruned_text_is_shorter_and_read_with_importance(profile):
    dear = replace(profile, prune_ms=0.5)
    whole, pruned = (replay_point(replace(PAIR, taus=[2.0], alphas=[alpha]), dear, ROWS) for alpha in (0.0, 0.8))
    assert (pruned.words_kept_share <= 1).all() and pruned.words_kept_share.mean() < 0.9
    model = dear.models["small"]
    extra = model.latency(model.tokens, importance=True) - model.latency(model.tokens) + 0.5
    assert (pruned.latency_ms <= whole.latency_ms + extra + 1e-9).all()


def test_rows_may_come_in_any_order(profile):
    order = np.random.default_rng(0).permutation(N)[:50]
    some, every = replay_point(PAIR, profile, order), replay_point(PAIR, profile, ROWS)
    assert some.rows.tolist() == order.tolist()
    assert some.labels.tolist() == every.labels[order].tolist()
    assert some.latency_ms == pytest.approx(every.latency_ms[order])


def test_what_lies_at_a_threshold_is_borderline(profile):
    sure = softmax(profile.models["small"].logits).max(axis=1)
    row = int(np.argsort(sure)[N // 2])
    point = replace(PAIR, taus=[float(sure[row]) + 5e-4])
    borderline = replay_point(point, profile, ROWS).borderline
    assert borderline[row] and borderline.sum() < N / 10


def test_a_level_that_is_not_finite_passes_the_row_on():
    profile = build(N, seed=2).profile
    profile.models["small"].logits[3] = np.nan
    outcomes = replay_point(replace(PAIR, taus=[0.0]), profile, ROWS)
    assert np.flatnonzero(outcomes.levels).tolist() == [3]
    assert outcomes.labels[3] == profile.models["large"].logits[3].argmax()
