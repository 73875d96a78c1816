"""The sentence at the end of a session."""

from __future__ import annotations

import pytest

from tabi_bench.records.record import Record
from tabi_bench.verdict import verdict, why_not

MODELS = [
    {"name": "small", "score": 0.8, "mean_ms": 1.0},
    {"name": "middle", "score": 0.85, "mean_ms": 2.0},
    {"name": "large", "score": 0.9, "mean_ms": 4.0},
]


def session(points, reduction=(30.0, 25.0, 35.0), outcome="met"):
    value, low, high = reduction
    common = {"session_id": "s", "task": "t", "source": "g", "zoo": "z", "engine": "e", "device": "d"}
    reference = Record(run_id="a", method="first", config={"method": {}}, **common)
    reference.reference = {"method": "first"}
    reference.details = {"system": {"folds": [{"models": ["large"], "taus": []}]}}
    ours = Record(run_id="b", method="second", config={"method": {"levels": 2}}, **common)
    ours.outcome = outcome
    ours.reference = {"method": "first", "reduction_pct": value, "reduction_low": low, "reduction_high": high}
    ours.details = {"system": {"folds": points}, "zoo": {"models": MODELS}, "small_level": {"model": "small"}}
    ours.details["small_level"] |= {"auroc_right": 0.8}
    return [reference, ours]


PAIR = {"models": ["small", "large"], "taus": [0.83]}


def test_it_pays():
    assert verdict(session([PAIR, PAIR])) == (
        "A cascade pays here: small before large, re-route below 0.83, 30 % [25, 35] less time than large alone, at a "
        "score that meets the target."
    )


def test_halves_that_differ_are_both_named():
    text = verdict(session([PAIR, {"models": ["small", "large"], "taus": [0.9]}]))
    assert "re-route below 0.83 / 0.90," in text
    text = verdict(session([PAIR, {"models": ["large"], "taus": []}]))
    assert "small before large, re-route below 0.83 or large alone" in text


@pytest.mark.parametrize(
    "reduction, outcome, start",
    [
        ((5.0, -3.0, 13.0), "met", "Not decided"),
        ((5.0, None, None), "met", "Not decided"),
        (
            (-20.0, -30.0, -10.0),
            "met",
            "Do not cascade: small before large, re-route below 0.83 takes 20 % [10, 30] more",
        ),
        ((30.0, 25.0, 35.0), "missed", "Do not cascade by this plan"),
    ],
)
def test_it_does_not(reduction, outcome, start):
    assert verdict(session([PAIR], reduction, outcome)).startswith(start)


def test_no_pair_and_why():
    single = {"models": ["large"], "taus": []}
    text = verdict(session([single, single]))
    assert text.startswith("Do not cascade: no pair meets the target in less time than large alone; the smaller models")
    assert "fastest model" in why_not(MODELS, "small", None)
    assert "ratio of costs" in why_not([*MODELS[2:], {"name": "s", "score": 0.8, "mean_ms": 3.0}], "large", None)
    assert "does not rank" in why_not(MODELS, "large", {"model": "small", "auroc_right": 0.55})


def test_sessions_without_a_cascade_say_nothing():
    assert verdict(session([PAIR])[:1]) is None
