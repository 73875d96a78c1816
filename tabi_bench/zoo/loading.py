"""From a folder in the Hugging Face layout to a model whose logits come out in the task's own order."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from tabi_bench.zoo.base import ModelError, ModelSpec
from tabi_bench.zoo.checks import FROM_FOLDER, naming, read_config, read_tokenizer, tensor_shapes, weight_files
from tabi_bench.zoo.families import FAMILIES, family
from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn
from tabi_bench.zoo.models import PREFIX, mean_pooled

LAYERLESS = {kind.__name__: kind for kind in (TextCnn, DecomposableAttention)}


def count_parameters(path: Path) -> int:
    """Number of stored weights, from the safetensors headers alone (position ids are no weights)."""
    shapes = tensor_shapes(path)
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith("position_ids"))


def content_hash(path: Path) -> str:
    """SHA-256 (16 hex digits) of weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for file in [Path(path) / "config.json", *weight_files(path), Path(path) / "tokenizer.json"]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
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
    config = read_config(path)
    kind = config.get("model_type", "")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(f"{path}: model_type {kind!r} is not supported; there are: {', '.join(FAMILIES)}")
    if not (Path(path) / "tokenizer.json").is_file():
        raise ModelError(f"{path} has no tokenizer.json; save its fast tokenizer there with save_pretrained")
    with naming(path, "its config.json lacks what a model of its type has"):
        layers, places = family(kind).layers(config), family(kind).places(config, max_length)
    params, digest = count_parameters(path), content_hash(path)
    return ModelSpec(name, Path(path), kind, layers, params, digest, min(max_length, places), label_order, scale)


def model_class(path: Path) -> type[PreTrainedModel]:
    """The *ForSequenceClassification class that the folder's config.json asks for."""
    names = read_config(path).get("architectures") or [""]
    if names[0] in LAYERLESS:
        return LAYERLESS[names[0]]
    config = AutoConfig.from_pretrained(path, **FROM_FOLDER)
    if names[0].startswith(PREFIX):
        return mean_pooled(config.__class__)
    return AutoModelForSequenceClassification._model_mapping[type(config)]


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


def load_folder(path: Path, dtype: torch.dtype, attention: str = "sdpa") -> PreTrainedModel:
    """The model in `path`, on the CPU, in eval mode. Weights that are missing are an error, never drawn at random.

    DeBERTa computes its own disentangled attention: there `attention` has no effect.
    """
    with naming(path, "it cannot be loaded; copy or save it again"):
        kind = model_class(path)
        chosen = attention if kind._supports_sdpa else "eager"
        model, report = kind.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=chosen,
            weights_only=True,
            output_loading_info=True,
            **FROM_FOLDER,
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:4])
        raise ModelError(
            f"{path}: weights are missing ({missing}); it is not a fine-tuned classifier: fine-tune it first"
        )
    return model.eval()


def load_model(spec: ModelSpec, dtype: torch.dtype, device: str, attention: str = "sdpa") -> PreTrainedModel:
    """A *ForSequenceClassification in eval mode on `device`, its logits in the task's label order and scale."""
    model = load_folder(spec.path, dtype, attention)
    fold_head(model, spec.label_order, spec.scale)
    return model.to(device, dtype)  # from_pretrained leaves DeBERTa's biases of queries and values in float32


def load_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """The Rust tokenizer of a model folder: truncates the longer text first, never pads."""
    tokenizer = read_tokenizer(path)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.no_padding()
    return tokenizer
