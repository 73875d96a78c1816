"""Dispatchers: what each compares with its threshold, and that all keep the rule's two ends."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.cascade import rules
from tabi_bench.cascade.dispatch import DISPATCHERS, Random, Sigmoid, Table, Threshold

CONFIDENCES, IDS = np.array([0.5, 0.9, 0.7, 0.7]), np.array([3, 0, 2, 7])


def test_the_threshold_compares_the_confidence_itself():
    assert Threshold()(CONFIDENCES, 0, IDS) is CONFIDENCES


def test_the_sigmoid_shifts_confidences_by_the_draw_of_seed_query_and_level():
    uniform = rules.draws(5, IDS, stream=1)
    expected = CONFIDENCES + np.log(uniform / (1 - uniform)) / 10
    assert Sigmoid(k=10, seed=5)(CONFIDENCES, 1, IDS) == pytest.approx(expected)


def test_random_routing_re_routes_its_tau_whatever_the_confidence():
    ids = np.arange(20_000)
    for confidence in (0.1, 0.99):
        compared = Random(seed=1)(np.full(20_000, confidence), 0, ids)
        assert rules.reroute(compared, 0.3).mean() == pytest.approx(0.3, abs=0.01)


def test_a_table_re_routes_its_queries_and_no_other():
    compared = Table(reroute=[2, 3])(CONFIDENCES, 0, IDS)
    assert rules.reroute(compared, 0.5).tolist() == [True, False, True, False]


@pytest.mark.parametrize("name", DISPATCHERS)
def test_one_query_or_many_by_the_same_rule(name):
    dispatch = DISPATCHERS[name](20.0, 4, [0, 7])
    for level in (0, 1):
        many = dispatch(CONFIDENCES, level, IDS)
        assert [float(dispatch(c, level, int(i))) for c, i in zip(CONFIDENCES, IDS, strict=True)] == many.tolist()


@pytest.mark.parametrize("name", ["threshold", "sigmoid"])
def test_both_ends_re_route_nothing_and_everything(name):
    dispatch = DISPATCHERS[name](20.0, 4)
    compared = dispatch(np.linspace(0, 1, 500), 0, np.arange(500))
    assert not rules.reroute(compared, dispatch.never).any() and rules.reroute(compared, dispatch.always).all()


@pytest.mark.parametrize("name", ["threshold", "sigmoid"])
def test_a_confidence_that_is_no_number_is_re_routed(name):
    dispatch = DISPATCHERS[name](20.0, 4)
    assert rules.reroute(dispatch(np.array([np.nan]), 0, np.array([1])), dispatch.never).all()
