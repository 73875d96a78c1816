"""Classifiers without layers: padding is not seen, one text's order and what two texts share are learnt."""

import numpy as np
import pytest
import torch
from transformers import BertConfig

from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn, layerless
from tabi_bench.zoo.training import Examples, predict, train
from tests.settings import fine_tuning

WORDS, LENGTH, CLS, SEP = 12, 5, 1, 2


def model(texts: int):
    torch.manual_seed(0)
    shape = {"vocab_size": 3 + WORDS, "hidden_size": 32, "num_hidden_layers": 0, "num_attention_heads": 2}
    return layerless(texts)(BertConfig(**shape, num_labels=2, hidden_dropout_prob=0.0)).eval()


def examples(texts: int, rows: int = 800) -> Examples:
    """Label 1: word 3 directly before word 4 (one text); the last word of the second text is in the first (two)."""
    rng = np.random.default_rng(texts)
    labels = rng.integers(0, 2, rows)
    ids, types = [], []
    for label in labels:
        if texts == 1:
            text = rng.integers(5, 3 + WORDS, LENGTH)
            place = rng.integers(0, LENGTH - 1)
            text[place : place + 2] = (3, 4) if label else (4, 3)
            row, kinds = [CLS, *text, SEP], [0] * (LENGTH + 2)
        else:
            first, others = np.split(3 + rng.permutation(WORDS), [LENGTH])
            second = [*others[: LENGTH - 1], rng.choice(first) if label else others[-1]]
            row, kinds = [CLS, *first, SEP, *second, SEP], [0] * (LENGTH + 2) + [1] * (LENGTH + 1)
        ids.append(np.array(row, np.int32))
        types.append(np.array(kinds, np.int32))
    return Examples(ids, types, [np.full(len(row), -1, np.int32) for row in ids], labels)


@pytest.mark.parametrize("texts", [1, 2])
@torch.no_grad()
def test_padding_changes_nothing(texts):
    rows = examples(texts, 3)
    ids, types = (torch.tensor(np.array(part)).long() for part in (rows.ids, rows.type_ids))
    expected = model(texts)(ids, None, token_type_ids=types).logits
    padded = {"input_ids": (ids, 0), "attention_mask": (torch.ones_like(ids), 0), "token_type_ids": (types, 0)}
    padded = {key: torch.nn.functional.pad(part, (0, 4), value=value) for key, (part, value) in padded.items()}
    torch.testing.assert_close(model(texts)(**padded).logits, expected)
    assert expected.std() > 0


@pytest.mark.parametrize("texts", [1, 2])
def test_neighbours_and_partners_are_learnt(texts):
    learner, rows = model(texts), examples(texts)
    train(learner, rows, fine_tuning(epochs=12, batch_size=16, learning_rate=1e-2, patience=0), seed=0)
    fresh = examples(texts, 1400).take(np.arange(800, 1400))
    assert (predict(learner, fresh, "cpu").argmax(1) == fresh.labels).mean() > 0.8


def test_the_number_of_texts_decides():
    assert layerless(1) is TextCnn and layerless(2) is DecomposableAttention
