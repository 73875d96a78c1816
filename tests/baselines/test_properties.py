"""What must hold of the baselines' rules whatever the models say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baselines.cocktail import class_weights, vote
from baselines.deebert import entropy, first_below
from baselines.infaas import Infaas
from tabi_bench.config import read_file
from tabi_bench.system import Unreachable
from tests.baselines.baseline_toys import PlainTarget, one_hot, profile_of

relaxed = settings(deadline=None, max_examples=50)
SAYS = arrays(np.int64, (3, 12), elements=st.integers(0, 2))
LABELS = arrays(np.int64, 12, elements=st.integers(0, 2))


@given(SAYS, arrays(float, (3, 3), elements=st.floats(0.01, 1)))
@relaxed
def test_a_vote_names_what_some_member_says_and_all_if_they_agree(says, weights):
    predictions = vote(says, weights)
    assert (predictions == says).any(axis=0).all()
    same = (says == says[0]).all(axis=0)
    assert (predictions[same] == says[0][same]).all()


@given(SAYS, arrays(float, (3, 3), elements=st.floats(0.01, 1)))
@relaxed
def test_no_class_has_more_weight_than_the_one_that_wins(says, weights):
    predictions = vote(says, weights)
    for row, label in enumerate(predictions):
        totals = [sum(weights[m, k] for m in range(3) if says[m, row] == k) for k in range(3)]
        assert totals[label] == pytest.approx(max(totals))


@given(LABELS, LABELS)
@relaxed
def test_smoothed_weights_lie_strictly_between_nothing_and_one(labels, says):
    weights = class_weights(labels, says, 3)
    assert ((weights > 0) & (weights < 1)).all()
    plain = class_weights(labels, says, 3, smoothed=False)
    assert ((plain >= 0) & (plain <= 1)).all()


@given(arrays(float, (3, 9), elements=st.floats(0, 1)), st.floats(0, 1), st.floats(0, 1))
@relaxed
def test_a_higher_threshold_never_leaves_later(entropies, a, b):
    low, high = sorted((a, b))
    assert (first_below(entropies, high) <= first_below(entropies, low)).all()
    assert (first_below(entropies, 0.0) == 3).all()


@given(arrays(float, (5, 4), elements=st.floats(-30, 30)))
@relaxed
def test_entropy_lies_between_zero_and_that_of_a_die(logits):
    values = entropy(logits)
    assert ((values >= -1e-12) & (values <= np.log(4) + 1e-9)).all()


@given(LABELS, SAYS, st.floats(0, 1))
@relaxed
def test_infaas_takes_the_fastest_of_those_that_meet_the_target(labels, says, value):
    names = ("small", "medium", "large")  # in order of their latency
    profile = profile_of(
        labels.tolist(), {name: one_hot(predictions.tolist(), 3) for name, predictions in zip(names, says, strict=True)}
    )
    meeting = [name for name, predictions in zip(names, says, strict=True) if (predictions == labels).mean() >= value]
    if not meeting:
        with pytest.raises(Unreachable):
            Infaas.plan(profile, PlainTarget(profile, value), read_file("method", "infaas"))
    else:
        plan = Infaas.plan(profile, PlainTarget(profile, value), read_file("method", "infaas"))
        assert plan.point["models"] == [meeting[0]]
