"""Attention received: by hand, and against the attentions that transformers returns."""

import numpy as np
import pytest
import torch

from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.importance import attention_received, attention_received_torch, word_importance
from tabi_bench.engines.loaded import work_out
from tabi_bench.zoo.loading import load_model
from tests.engines.micro_models import FAMILIES

TEXTS = ("the films is not very good",)
PAIR = ("don't play bad movies", "a café of the film")


def test_attention_received_by_hand():
    head = np.array(
        [
            [0.1, 0.2, 0.3, 0.4],  # special: no row
            [0.2, 0.5, 0.2, 0.1],
            [0.1, 0.6, 0.1, 0.2],
            [0.4, 0.3, 0.3, 0.0],  # special
        ]
    )
    other = np.full((4, 4), 0.25)
    content = np.array([0, 1, 1, 0])
    # token 1 is received from row 2 alone: (0.6 + 0.25) / 2; token 2 from row 1: (0.2 + 0.25) / 2
    expected = [0, 0.425, 0.225, 0]
    np.testing.assert_allclose(attention_received(np.stack([head, other]), content), expected, rtol=1e-6)


def test_three_rows_are_averaged_without_the_token_itself():
    attention = np.array([[[0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.5, 0.2, 0.3]]])
    expected = [(0.3 + 0.5) / 2, (0.1 + 0.2) / 2, (0.1 + 0.4) / 2]
    np.testing.assert_allclose(attention_received(attention, np.ones(3)), expected, rtol=1e-6)


def test_a_token_alone_receives_nothing():
    assert attention_received(np.ones((1, 3, 3)) / 3, np.array([0, 1, 0])).tolist() == [0, 0, 0]


def test_the_device_computes_the_same():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, 9, 9)).astype(np.float32)
    attention = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    content = np.array([0, 1, 1, 1, 0, 1, 1, 0, 0])
    on_device = attention_received_torch(torch.tensor(attention)[None], torch.tensor(content)[None])
    np.testing.assert_allclose(on_device[0].numpy(), attention_received(attention, content), rtol=1e-5)


def test_a_word_takes_the_maximum_of_its_tokens():
    scores = np.array([9, 0.1, 0.4, 0.2, 0.3, 9], np.float32)  # the last is padding of a longer bucket
    words = word_importance(scores, np.array([-1, 0, 0, 2, -1]), 4)
    np.testing.assert_array_equal(words, np.array([0.4, np.nan, 0.2, np.nan], np.float32))


def transformers_importance(spec, encoding, option: str) -> np.ndarray:
    """Words' importance from the attentions of the model as transformers runs it."""
    model = load_model(spec, torch.float32, "cpu")
    model.set_attn_implementation("eager")
    kwargs = {"input_ids": torch.tensor([encoding.ids])}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        kwargs["token_type_ids"] = torch.tensor([encoding.type_ids])
    with torch.no_grad():
        attentions = model(**kwargs, output_attentions=True).attentions
    scores = [attention_received(layer[0].numpy(), encoding.content) for layer in attentions]
    score = scores[-1] if option == "last" else np.mean(scores, axis=0)
    return word_importance(score, encoding.word_of_token, sum(map(len, encoding.words)))


@pytest.mark.parametrize("option", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_importance_is_that_of_the_attentions_of_transformers(specs, family, option):
    engine = make_engine(read_file("engine", "eager", device="cpu"))
    model = engine.load(specs[family], importance=option)
    for texts in (TEXTS, PAIR):
        encoding = model.encode(texts)
        importance = model.forward(encoding, want_importance=True).importance
        expected = transformers_importance(specs[family], encoding, option)
        np.testing.assert_allclose(importance, expected, rtol=1e-4)
        assert np.ptp(importance) > 1e-3  # attention is far from uniform here


def test_reading_importance_leaves_the_logits_alone(specs, eager):
    model = eager.load(specs["bert"], importance="mean")
    encoding = model.encode(TEXTS)
    read = model.forward(encoding, want_importance=True)
    plain = model.forward(encoding)
    np.testing.assert_allclose(read.logits, plain.logits, atol=1e-5)
    assert plain.importance is None


def test_options_are_checked(specs, eager):
    with pytest.raises(ValueError, match="choose last or mean"):
        eager.load(specs["bert"], importance="first")
    model = eager.load(specs["roberta"])
    with pytest.raises(ValueError, match="loaded without importance"):
        model.forward(model.encode(TEXTS), want_importance=True)


def test_importance_of_several_outputs_is_worked_out_at_once(specs, eager):
    model = eager.load(specs["bert"], importance="last")
    encodings = [model.encode(texts) for texts in (("a good film",), ("not a film", "good"), ("",))]
    alone = [model.forward(encoding, want_importance=True).importance for encoding in encodings]
    outputs = model.forward_batch(encodings, want_importance=True)
    for known, importance in zip(alone, work_out(outputs), strict=True):
        np.testing.assert_allclose(importance, known, rtol=1e-4, atol=1e-6)
