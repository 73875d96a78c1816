"""Every family with the kind of tokenizer that it has: it loads in zoo=custom, learns, and prunes the right words."""

import re

import numpy as np
import pytest
import torch

from tabi_bench.cascade.rules import kept_words
from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.importance import attention_received
from tabi_bench.zoo.custom import load
from tabi_bench.zoo.families import FAMILIES, family
from tabi_bench.zoo.loading import load_folder, load_model, load_tokenizer
from tabi_bench.zoo.training import encode, train
from tests.engines.micro_models import write_model
from tests.settings import fine_tuning
from tests.zoo.test_words import CORPUS, byte_level, unigram, word_piece
from tests.zoo.toys import toy_task

KINDS = {"byte-level": byte_level, "WordPiece": word_piece, "Unigram": unigram}
KIND_OF = {"roberta": "byte-level", "deberta": "byte-level", "albert": "Unigram", "deberta-v2": "Unigram"}
TASK = toy_task(300)
TEXTS = ("the movie isn't a (very) good film , café ", "the play is not very bad again\n")
ALPHA = 1.0


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    """A micro model of the family that has learnt the toy task, with a tokenizer of the family's kind."""
    path = tmp_path_factory.mktemp(request.param) / "model"
    corpus = [*CORPUS, *(text for row in TASK.texts("train") for text in row)]
    tokenizer = KINDS[KIND_OF.get(request.param, "WordPiece")](corpus)
    write_model(path, request.param, num_labels=3, initializer_range=0.05, max_position_embeddings=140,
                vocab_size=tokenizer.get_vocab_size())  # fmt: skip
    tokenizer.save(str(path / "tokenizer.json"))
    model, rows = load_folder(path, torch.float32), encode(load_tokenizer(path, 128), TASK.texts("train"))
    recipe = fine_tuning(epochs=10, learning_rate=3e-3, batch_size=32, patience=0)
    train(model, type(rows)(rows.ids, rows.type_ids, rows.words, TASK.labels("train")), recipe, seed=0)
    model.save_pretrained(path)
    return path


def oracle(spec, tokenizer) -> np.ndarray:
    """(W,) importance from transformers' own attentions, words found by their characters alone."""
    model = load_model(spec, torch.float32, "cpu")
    model.set_attn_implementation("eager")
    tokens = tokenizer.encode(*TEXTS)
    inputs = {"input_ids": torch.tensor([tokens.ids])}
    if family(spec.family).takes_types(model.config):
        inputs["token_type_ids"] = torch.tensor([tokens.type_ids])
    with torch.no_grad():
        attention = model(**inputs, output_attentions=True).attentions[-1][0].numpy()
    scores = attention_received(attention, 1 - np.array(tokens.special_tokens_mask))
    best = []
    for number, text in enumerate(TEXTS):
        for word in re.finditer(r"\S+", text):
            inside = set(range(*word.span()))
            own = [
                scores[row]
                for row, span in enumerate(tokens.offsets)
                if tokens.sequence_ids[row] == number and inside & set(range(*span))
            ]
            best.append(max(own))
    return np.array(best)


@pytest.mark.parametrize("engine", ["eager", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_family_loads_and_prunes_the_right_words(folder, tmp_path, engine):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    zoo = load(read_file("zoo", "custom", paths=[str(folder)], max_length=128), TASK, tmp_path, 0, "cpu")
    (spec,) = zoo.models
    assert spec.label_order is None or spec.label_order == (0, 1, 2)
    places = {"cache_dir": str(tmp_path)} if engine == "onnx" else {}
    running = make_engine(read_file("engine", engine, device="cpu", **places))
    model = running.load(spec, importance="last")
    encoding = model.encode(TEXTS)
    importance = model.forward(encoding, want_importance=True).importance
    expected = oracle(spec, model.encode.tokenizer)
    np.testing.assert_allclose(importance, expected, rtol=1e-3, atol=1e-5)
    keep = kept_words(importance, encoding.words, ALPHA, "importance", 0, 0)
    assert 0 < (~keep).sum() <= len(keep) - 6
    shorter = encoding.without(keep, model.encode)
    kept = iter(keep)
    assert shorter.texts == tuple(" ".join(word for word in words if next(kept)) for words in encoding.words)
    assert shorter.ids == model.encode.tokenizer.encode(*shorter.texts).ids
    running.close()
