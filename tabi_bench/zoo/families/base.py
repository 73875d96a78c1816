"""What an adapter of an architecture provides; the defaults are BERT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tabi_bench.zoo.families.attention import NAME, additive_mask


class AttentionReader(Protocol):
    """Who reads attention probabilities: asked once per attention call, then handed them where it said yes."""

    def reads(self) -> bool: ...

    def add(self, probabilities: torch.Tensor) -> None: ...


@dataclass(frozen=True)
class LayerParts:
    """The modules of one post-norm layer. `attention` carries the reader of its probabilities."""

    attention: nn.Module
    projections: tuple[nn.Module, nn.Module, nn.Module]  # queries, keys, values
    mix: nn.Linear
    mix_norm: nn.LayerNorm
    widen: nn.Linear
    activation: Any
    narrow: nn.Linear
    narrow_norm: nn.LayerNorm
    head_size: int


class Family:
    """An architecture. Models are *ForSequenceClassification, or the same with a mean over the text."""

    projections: tuple[str, str, str] | None = ("query", "key", "value")  # linear layers that may be fused into one
    cuttable = True  # embeddings, layers and head can be called one by one
    embeds_in_one = True  # word, place and type embeddings are summed and normalised, and that is all
    needs_mask = False  # without one, it looks for padding, which waits for the device
    has_pooler = True  # its body can be built with a pooler and without
    attention_classes: tuple[str, ...] = ("SelfAttention",)  # how the names of self-attention modules end
    layers_key = "num_hidden_layers"

    # what a configuration says

    def layers(self, config: Mapping[str, Any]) -> int:
        """Layers that config.json names."""
        return int(config[self.layers_key])

    def places(self, config: Mapping[str, Any], unknown: int) -> int:
        """Tokens that the model has positions for; `unknown` where config.json does not say."""
        return int(config.get("max_position_embeddings", unknown)) - self.first_place(config)

    def first_place(self, config: Mapping[str, Any]) -> int:
        """The position of the first token."""
        return 0

    def takes_types(self, config: PreTrainedConfig) -> bool:
        """Whether token type ids change anything."""
        return getattr(config, "type_vocab_size", 0) > 1

    def padding(self, config: PreTrainedConfig) -> int:
        """The id that fills a batch."""
        return config.pad_token_id or 0

    # the parts of a model

    def body(self, model: PreTrainedModel) -> nn.Module:
        """The model without its head."""
        return model.get_submodule(model.base_model_prefix)

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """What computes each layer, in order."""
        return list(self.body(model).encoder.layer)

    def embed(self, model: PreTrainedModel, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """(B, L) ids -> (B, L, H). types: None for a model that takes none."""
        kwargs = {} if types is None else {"token_type_ids": types}
        return self.body(model).embeddings(input_ids=ids, **kwargs)

    def mask(self, model: PreTrainedModel, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to attention scores: (B, 1 or heads, 1 or L, L), None for nothing. keep (B, L); None: all."""
        return additive_mask(attention_mask=keep, dtype=hidden.dtype)

    def position_bias(self, model: PreTrainedModel) -> torch.Tensor | None:
        """(1, heads, longest, longest) added to the scores of all layers; None for nothing."""
        return None

    def layer_parts(self, block: nn.Module) -> LayerParts | None:
        """The modules of a post-norm layer; None for a block that is called whole."""
        attention, mix = block.attention.self, block.attention.output
        return LayerParts(
            attention, (attention.query, attention.key, attention.value), mix.dense, mix.LayerNorm,
            block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense,
            block.output.LayerNorm, attention.attention_head_size,
        )  # fmt: skip

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of the last layer's (B, L, H), through the body's pooler where it has one."""
        pooler = self.body(model)._modules.get("pooler")
        return model.classifier(hidden if pooler is None else pooler(hidden))

    # attention

    def prepare(self, model: PreTrainedModel) -> None:
        """Readies a model to be run or trained: our attention function, and what can be kept between calls."""
        model.set_attn_implementation(NAME)

    def remember_positions(self, model: PreTrainedModel, length: int) -> None:
        """Builds what depends on the length alone before a compiler looks."""

    def attention_modules(self, model: PreTrainedModel) -> list[nn.Module]:
        """The self-attention modules, in the order of the layers."""
        return [module for module in model.modules() if type(module).__name__.endswith(self.attention_classes)]

    def attention_calls(self, model: PreTrainedModel) -> int:
        """How often attention is computed in one forward pass."""
        return len(self.attention_modules(model))

    def read_attention(self, module: nn.Module, reader: AttentionReader) -> None:
        """Lets `reader` see the probabilities of an attention module."""
        module.probe = reader

    def may_fuse(self, config: PreTrainedConfig) -> bool:
        """Whether queries, keys and values may come from one matrix product."""
        return self.projections is not None

    # tokenizer

    def mend_tokenizer(self, folder: Path, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer that the library builds from raw vocabulary files, with what it gets wrong put right."""
        return tokenizer

    def plain_text(self, text: str) -> str:
        """A text as the architecture's own tokenizer hands it to sentencepiece."""
        return text
