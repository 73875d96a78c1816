"""Folders of micro models with random weights: each family loads, heads are folded, missing weights are an error."""

import itertools

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.families import FAMILIES
from tabi_bench.zoo.loading import ModelError, load_model, spec_of

SHAPE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
OWN = {
    "distilbert": {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "albert": SHAPE | {"embedding_size": 8},
}
IDS = torch.tensor([[2, 7, 9, 11, 3]])


def config(family, labels=3):
    return AutoConfig.for_model(family, **OWN.get(family, SHAPE), num_labels=labels, pad_token_id=0)


def save(folder, family="bert", labels=3, auto=AutoModelForSequenceClassification):
    torch.manual_seed(0)
    model = auto.from_config(config(family, labels), dtype=torch.float32).eval()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return model


def spec(folder, **changes):
    return ModelSpec("m", folder, "bert", 2, 0, "", **changes)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_loads_with_its_own_logits(tmp_path, family):
    saved = save(tmp_path, family)
    spec = spec_of(tmp_path, "m")
    assert (spec.family, spec.layers) == (family, 2)
    assert spec.params == sum(p.numel() for p in saved.parameters())
    loaded = load_model(spec, torch.float32, "cpu")
    assert not loaded.training
    torch.testing.assert_close(logits(loaded), logits(saved))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_no_more_tokens_are_read_than_a_model_has_places_for(tmp_path, family):
    shape = config(family)
    shape.max_position_embeddings = 24
    AutoModelForSequenceClassification.from_config(shape, dtype=torch.float32).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    spec = spec_of(tmp_path, "m", max_length=128)
    assert spec.max_length == {"roberta": 23, "mpnet": 22}.get(family, 24)
    assert spec_of(tmp_path, "m", max_length=16).max_length == 16
    longest = torch.full((1, spec.max_length), 7)
    assert load_model(spec, torch.float32, "cpu")(input_ids=longest).logits.isfinite().all()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_head_is_permuted_to_the_tasks_labels(tmp_path, order):
    saved = save(tmp_path)
    loaded = load_model(spec(tmp_path, label_order=order), torch.float32, "cpu")
    torch.testing.assert_close(logits(loaded), logits(saved)[:, list(order)])


def test_a_regression_head_is_rescaled(tmp_path):
    saved = save(tmp_path, labels=1)
    loaded = load_model(spec(tmp_path, scale=(5.0, 0.5)), torch.float32, "cpu")
    torch.testing.assert_close(logits(loaded), 5 * logits(saved) + 0.5)


def test_incomplete_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        spec_of(tmp_path, "m")
    save(tmp_path, auto=AutoModel)
    with pytest.raises(ModelError, match=r"weights are missing \(classifier"):
        load_model(spec(tmp_path), torch.float32, "cpu")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        spec_of(tmp_path, "m")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="model_type 't5' is not supported"):
        spec_of(tmp_path, "m")
