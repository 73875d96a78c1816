"""The paper's twelve shapes: parameter counts against the paper's, and one that is written, loaded and run."""

from __future__ import annotations

import csv

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tabi_bench.config import conf_dir, read_file
from tabi_bench.engines import make_engine
from tabi_bench.zoo.families import shapes
from tabi_bench.zoo.families.shapes import PAPER, config_of, write_shape
from tabi_bench.zoo.loading import spec_of

with (conf_dir().parent / "results/paper/models.csv").open() as stream:
    MILLIONS = {row["model"].lower(): float(row["params_millions"]) for row in csv.DictReader(stream)}


@pytest.mark.parametrize("name", PAPER)
def test_parameter_counts_are_those_that_the_paper_prints(name):
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config_of(name))
    assert model.num_parameters() / 1e6 == pytest.approx(MILLIONS[name], rel=0.03, abs=0.7)


def test_all_twelve_are_there():
    assert set(PAPER) == set(MILLIONS)
    with pytest.raises(ValueError, match="no shape 'bert-huge'; there are: bert-small"):
        config_of("bert-huge")


@pytest.mark.parametrize("name", ["distilbert", "albert", "roberta-base", "deberta-large", "deberta-xlarge"])
def test_a_shape_is_written_loaded_and_run(name, tmp_path, monkeypatch):
    family, changes = PAPER[name]
    small = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    small = {"n_layers": 1, "dim": 32, "n_heads": 2, "hidden_dim": 32} if family == "distilbert" else small
    small |= {"attention_head_size": 32} if "attention_head_size" in changes else {}
    monkeypatch.setitem(shapes.SHAPES, name, (family, changes | small))
    write_shape(name, tmp_path, n_outputs=5, dtype=torch.float16)
    spec = spec_of(tmp_path, name, 32)
    engine = make_engine(read_file("engine", "eager", device="cpu", dtype="float32"))
    model = engine.load(spec, importance="last")
    encoding = model.encode(("w1 w2 unheard", "w3"))
    assert encoding.n_tokens == 7
    assert model.forward(encoding, want_importance=True).logits.shape == (5,)
