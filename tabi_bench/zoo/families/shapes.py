"""The shapes of the paper's twelve models (and of the two encoders), with random weights: timing needs no training.

Where the paper's size is ambiguous (DeBERTa exists in three versions) the shape is the one whose parameter count the
paper prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from tabi_bench.zoo.base import ModelSpec


def _size(hidden: int, layers: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }


ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
DISENTANGLED |= {"type_vocab_size": 0}
DEBERTA_V2 = {"position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True, "vocab_size": 128100}
XLARGE = {"conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 64}
ALBERT = {"vocab_size": 30000, "embedding_size": 128, "hidden_act": "gelu_new"}
PAPER: dict[str, tuple[str, dict[str, Any]]] = {  # model type, what differs from its default configuration
    "bert-small": ("bert", _size(512, 4)),
    "distilbert": ("distilbert", {}),
    "albert": ("albert", _size(768, 12) | ALBERT),
    "prunebert": ("bert", _size(768, 12)),  # zeros are multiplied like any other weight
    "deberta-small": ("deberta-v2", _size(768, 6) | DISENTANGLED | DEBERTA_V2),
    "bert-base": ("bert", _size(768, 12)),
    "roberta-base": ("roberta", _size(768, 12) | ROBERTA),
    "deberta-base": ("deberta-v2", _size(768, 12) | DISENTANGLED | DEBERTA_V2),
    "bert-large": ("bert", _size(1024, 24)),
    "roberta-large": ("roberta", _size(1024, 24) | ROBERTA),
    "deberta-large": ("deberta", _size(1024, 24) | DISENTANGLED | {"vocab_size": 50265}),
    "deberta-xlarge": ("deberta-v2", _size(1536, 24) | DISENTANGLED | DEBERTA_V2 | XLARGE),
}
ENCODERS = {f"minilm-l{k}": ("bert", _size(384, k) | {"num_attention_heads": 12}) for k in (2, 3, 6)}
ENCODERS |= {f"mpnet-{k}": ("mpnet", _size(768, k) | {"vocab_size": 30527}) for k in (6, 12)}
SHAPES = PAPER | ENCODERS
WORDS = 20000


def config_of(name: str, n_outputs: int = 3) -> PreTrainedConfig:
    """The configuration of a shape; an unknown name is a ValueError."""
    if name not in SHAPES:
        raise ValueError(f"no shape {name!r}; there are: {', '.join(SHAPES)}")
    family, changes = SHAPES[name]
    return AutoConfig.for_model(family, **changes, num_labels=n_outputs, pad_token_id=0)


def write_shape(name: str, folder: Path, n_outputs: int, dtype: torch.dtype) -> None:
    """A model of this shape with random weights, and a tokenizer of whole words `w0 w1 ...`, in `folder`."""
    random_model(name, dtype, "cpu", n_outputs).save_pretrained(folder)
    word_tokenizer().save(str(folder / "tokenizer.json"))


def random_model(name: str, dtype: torch.dtype, device: str, n_outputs: int = 3) -> PreTrainedModel:
    """A model of this shape in eval mode, its weights drawn on `device`: the same ones at every call there.

    They are drawn in float32 and then rounded, so that a model in half precision is that of float32, rounded.
    """
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config_of(name, n_outputs), dtype=torch.float32)
    return model.to(dtype).eval()


def shape_spec(name: str, folder: Path, max_length: int) -> ModelSpec:
    """A shape without weights on disk, for `random_model`: only the tokenizer is written to `folder`."""
    config = config_of(name)
    with torch.device("meta"):
        params = AutoModelForSequenceClassification.from_config(config).num_parameters()
    Path(folder).mkdir(parents=True, exist_ok=True)
    word_tokenizer().save(str(Path(folder) / "tokenizer.json"))
    digest = f"random weights, {name}, {config.num_labels} outputs"
    return ModelSpec(name, Path(folder), config.model_type, config.num_hidden_layers, params, digest, max_length)


def word_tokenizer() -> Tokenizer:
    """One token per word: `w0` to `w19999` have their own, all others share [UNK]."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
