"""From a folder in the Hugging Face layout to a model whose logits come out in the task's own order."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.cache import file_sha256
from tabi_bench.zoo.base import FROM_FOLDER, ModelError, ModelSpec
from tabi_bench.zoo.checks import model_class, naming, read_supported, read_tokenizer, tensor_shapes, weight_files
from tabi_bench.zoo.families import family


def content_hash(path: Path) -> str:
    """SHA-256 (16 hex digits) of weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for file in [Path(path) / "config.json", *weight_files(path), Path(path) / "tokenizer.json"]:
        digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()[:16]


def spec_of(
    path: Path,
    name: str,
    max_length: int = 128,
    label_order: tuple[int, ...] | None = None,
    scale: tuple[float, float] | None = None,
) -> ModelSpec:
    """Describes the model in `path` without loading it; it reads `max_length` tokens, or as many as it has places for.

    Raises ModelError for an incomplete or foreign folder.
    """
    config = read_supported(path)
    kind = config["model_type"]
    with naming(path, "its config.json lacks what a model of its type has"):
        layers, places = family(kind).layers(config), family(kind).places(config, max_length)
    shapes = tensor_shapes(path)  # of which position ids are no weights
    params = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith("position_ids"))
    limit = min(max_length, places)
    return ModelSpec(name, Path(path), kind, layers, params, content_hash(path), limit, label_order, scale)


def final_linear(model: nn.Module) -> nn.Linear:
    """The last linear layer: its input is the pooled vector, its outputs are the logits."""
    head = getattr(model.classifier, "out_proj", model.classifier)
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{type(model).__name__}: its head is a {type(head).__name__}, not a linear layer")
    return head


@torch.no_grad()
def fold_head(model: nn.Module, label_order: tuple[int, ...] | None, scale: tuple[float, float] | None) -> None:
    """Permutes the head's outputs to the task's labels and maps a regression output y to a*y + b, in its weights."""
    head = final_linear(model)
    if label_order is not None:
        order = torch.tensor(label_order, dtype=torch.int64, device=head.weight.device)
        head.weight = nn.Parameter(head.weight[order].clone(), requires_grad=head.weight.requires_grad)
        head.bias = nn.Parameter(head.bias[order].clone(), requires_grad=head.bias.requires_grad)
        head.out_features = model.config.num_labels = model.num_labels = len(label_order)
    if scale is not None:
        head.weight.mul_(scale[0])
        head.bias.mul_(scale[0]).add_(scale[1])


def read_weights(kind: Any, path: Path, **options: Any) -> tuple[PreTrainedModel, list[str]]:
    """A model of class `kind` with the weights in `path`, on the CPU; and the names of those that are missing there."""
    model, report = kind.from_pretrained(path, weights_only=True, output_loading_info=True, **FROM_FOLDER, **options)
    return model, sorted(report["missing_keys"])


def load_folder(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in `path`, on the CPU, in eval mode. Weights that are missing are an error, never drawn at random."""
    with naming(path, "it cannot be loaded; copy or save it again"):
        model, missing = read_weights(model_class(path), path, dtype=dtype)
    if missing:
        raise ModelError(f"{path}: weights are missing ({', '.join(missing[:4])}); it is not a fine-tuned classifier: "
                         f"fine-tune it first")  # fmt: skip
    return model.eval()


def load_model(spec: ModelSpec, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A *ForSequenceClassification in eval mode on `device`, its logits in the task's label order and scale."""
    model = load_folder(spec.path, dtype)
    fold_head(model, spec.label_order, spec.scale)
    return model.to(device, dtype)  # from_pretrained leaves DeBERTa's biases of queries and values in float32


def load_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """The Rust tokenizer of a model folder: truncates the longer text first, never pads."""
    tokenizer = read_tokenizer(path)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.no_padding()
    return tokenizer
