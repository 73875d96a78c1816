"""The rules of the cascade: a case worked by hand for each, and what must hold for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tabi_bench.cascade import rules
from tabi_bench.engines.importance import attention_received, word_importance

unit = st.floats(0, 1, allow_nan=False)
relaxed = settings(deadline=None, max_examples=60)


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("max", 0.7), ("margin", 0.5), ("entropy", 1 - 0.8018186 / np.log(3))],  # H(0.2, 0.7, 0.1) in nats
)
def test_confidence_scores(kind, expected):
    assert rules.confidence(np.array([0.2, 0.7, 0.1]), kind) == pytest.approx(expected)


def test_reroute_iff_confidence_is_below_tau_or_unknown():
    assert rules.reroute(np.array([0.79, 0.8, 0.81, np.nan]), 0.8).tolist() == [True, False, False, True]


def test_sigmoid_dispatcher_reroutes_with_the_probability_it_says():
    k, tau, sure = 20.0, 0.8, 0.75
    uniform = (np.arange(20_000) + 0.5) / 20_000
    share = rules.reroute(rules.perturb(np.full(20_000, sure), k, uniform), tau).mean()
    assert share == pytest.approx(1 / (1 + np.exp(-k * (tau - sure))), abs=1e-3)


def test_importance_is_attention_received_from_other_content_rows():
    heads = np.array(
        [[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]], [[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.1, 0.8, 0.1]]]
    )
    # the first token is special: of tokens 1 and 2 each receives what the other pays it, averaged over the heads
    assert attention_received(heads, np.array([0, 1, 1])) == pytest.approx([0.0, 0.7, 0.4])


def test_a_word_is_as_important_as_its_most_important_token():
    scores, tokens = np.array([9.0, 0.1, 0.4, 0.2]), np.array([-1, 0, 0, 1])
    assert word_importance(scores, tokens, 3)[:2] == pytest.approx([0.4, 0.2])
    assert np.isnan(word_importance(scores, tokens, 3)[2])  # a word without a token


def test_pruning_drops_words_below_alpha_times_the_mean_of_their_text():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.1, 0.1, 0.1])  # the first text has mean 3.5, the second 3 words
    assert rules.prune(scores, [6, 3], 0.8).tolist() == [False, False, True, True, True, True, True, True, True]
    assert rules.prune(scores, [6, 3], 1.5).tolist()[:6] == [False, False, False, True, True, True]  # at least three
    assert rules.prune(np.array([0.0, np.nan, 5, 5, 5]), [5], 1.0).tolist() == [False, True, True, True, True]


def test_two_labels_within_the_band_are_tied():
    rows = np.array([[0.5004, 0.4996, 0.0], [0.5006, 0.4994, 0.0], [0.1, 0.45, 0.45], [np.nan, 0.5, 0.5]])
    assert rules.tied(rows).tolist() == [True, False, True, False]
    assert rules.tied(np.array([[2.5], [2.5]])).tolist() == [False, False]


def test_ensembles():
    small, large = np.array([0.6, 0.4]), np.array([0.2, 0.8])
    assert rules.combine([small, large], [0.6, 0.9], "weighted") == pytest.approx([0.36, 0.64])
    assert rules.combine([small, large], [0.6, 0.9], "large") is large
    assert rules.combine([small, large], [0.6, 0.9], "tuned", share=0.75) == pytest.approx([0.3, 0.7])
    odds = [np.log(1.5), np.log(9.0)]
    expected = (odds[0] * small + odds[1] * large) / sum(odds)
    assert rules.combine([small, large], [0.6, 0.9], "log_odds") == pytest.approx(expected)


def test_controls_prune_as_many_words_of_each_text():
    words = ["the", "plan", "is", "a", "good", "one", "of", "theirs"]
    keep = np.array([True, False, False, True, True, True, True, False])
    stop = rules.prune_as_many(keep, [8], words, "stopwords", seed=0, query=1)
    assert stop.sum() == keep.sum()
    assert not stop[[words.index(w) for w in words if w in rules.stop_words()]].all()
    assert rules.prune_as_many(keep, [5, 3], words, "random", 0, 1).tolist() != keep.tolist()


def test_draws_depend_on_seed_query_and_stream_alone():
    assert rules.draws(3, np.arange(5))[2] == rules.draws(3, 2)[0] != rules.draws(4, 2)[0]
    assert abs(rules.draws(0, np.arange(20_000)).mean() - 0.5) < 0.01


# --- for any input ----------------------------------------------------------------------------------------------------


@relaxed
@given(hnp.arrays(float, st.integers(1, 40), elements=unit))
def test_tau_zero_is_the_small_model_and_above_one_the_large(confidences):
    assert not rules.reroute(confidences, rules.NEVER).any()
    assert rules.reroute(confidences, rules.ALWAYS).all()


@relaxed
@given(hnp.arrays(float, st.integers(1, 40), elements=unit), unit, unit)
def test_rerouting_grows_with_tau(confidences, a, b):
    low, high = rules.reroute(confidences, min(a, b)), rules.reroute(confidences, max(a, b))
    assert (high | ~low).all()


texts = st.lists(st.integers(1, 12), min_size=1, max_size=2)


@relaxed
@given(texts, st.data(), st.floats(0, 3), st.floats(0, 3))
def test_pruning_keeps_fewer_words_for_higher_alpha_and_three_of_every_text(counts, data, a, b):
    scores = data.draw(hnp.arrays(float, sum(counts), elements=st.one_of(unit, st.just(np.nan))))
    less, more = rules.prune(scores, counts, min(a, b)), rules.prune(scores, counts, max(a, b))
    assert (less | ~more).all()
    for count, part in zip(counts, rules.segments(counts), strict=True):
        assert more[part].sum() >= min(3, count)


@relaxed
@given(hnp.arrays(float, (2, 3), elements=st.floats(0.01, 1)), st.lists(st.floats(0.05, 0.95), min_size=2, max_size=2))
def test_an_ensemble_of_probabilities_is_one(raw, weights):
    p = raw / raw.sum(axis=1, keepdims=True)
    for kind in ("weighted", "large", "log_odds", "tuned"):
        assert rules.combine(list(p), weights, kind).sum() == pytest.approx(1)


@given(
    st.lists(st.lists(st.floats(0, 1, width=32) | st.just(float("nan")), max_size=9), max_size=6),
    st.sampled_from([0.0, 0.5, 0.9, 1.5]),
)
def test_texts_of_several_queries_are_pruned_as_one_by_one(texts, alpha):
    arrays = [np.array(scores, np.float32) for scores in texts]
    importance = np.concatenate([np.zeros(0, np.float32), *arrays])
    together = rules.prune(importance, list(map(len, arrays)), alpha)
    alone = [rules.prune(scores, [len(scores)], alpha) for scores in arrays]
    assert together.tolist() == [kept for keep in alone for kept in keep.tolist()]
