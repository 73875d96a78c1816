"""MPNet: BERT's layers with a bias by relative position, which all layers share; no type ids.

`<s> a </s></s> b </s>`; the padding is 1 and positions start at 2. transformers builds the bias on the CPU in every
forward pass, which no CUDA graph can record: here it is worked out once for the longest input and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.zoo.families.attention import NAME, additive_mask, attention
from tabi_bench.zoo.families.base import Family, LayerParts

PADDING = 1  # whatever the configuration says


class MPNet(Family):
    projections = ("q", "k", "v")

    def first_place(self, config: Mapping[str, Any]) -> int:
        """See Family."""
        return PADDING + 1

    def prepare(self, model: PreTrainedModel) -> None:
        """See Family. The bias is kept as a buffer, so it follows the model to another device or type."""
        model.config._attn_implementation = NAME  # the mask function; attention itself asks for none by name
        encoder = self.body(model).encoder
        encoder.relative_attention_bias.requires_grad_(False)
        longest = torch.empty(1, model.config.max_position_embeddings, 1)
        with torch.no_grad():
            table = nn.Embedding.from_pretrained(encoder.relative_attention_bias.weight.detach().cpu())
            weights, encoder.relative_attention_bias = encoder.relative_attention_bias, table
            bias = encoder.compute_position_bias(longest)
            encoder.relative_attention_bias = weights
        encoder.register_buffer("kept_bias", bias.to(weights.weight), persistent=False)
        encoder.compute_position_bias = MethodType(_kept_bias, encoder)
        for module in self.attention_modules(model):
            module.forward = MethodType(_attend, module)

    def mask(self, model: PreTrainedModel, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        """The bias, (1, heads, L, L), and the padding's mask."""
        bias = self.body(model).encoder.compute_position_bias(hidden)
        padding = additive_mask(attention_mask=keep, dtype=hidden.dtype)
        return bias if padding is None else bias + padding

    def position_bias(self, model: PreTrainedModel) -> torch.Tensor:
        """See Family."""
        return self.body(model).encoder.kept_bias

    def layer_parts(self, block: nn.Module) -> LayerParts:
        """See Family."""
        attn = block.attention.attn
        return LayerParts(
            attn, (attn.q, attn.k, attn.v), attn.o, block.attention.LayerNorm, block.intermediate.dense,
            block.intermediate.intermediate_act_fn, block.output.dense, block.output.LayerNorm,
            attn.attention_head_size,
        )  # fmt: skip


def _kept_bias(encoder: nn.Module, hidden: torch.Tensor, *_args, **_kwargs) -> torch.Tensor:
    """(1, heads, L, L) of the kept bias, in place of `compute_position_bias`."""
    length = hidden.shape[1]
    return encoder.kept_bias[:, :, :length, :length]


def _attend(
    module: nn.Module,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_bias: torch.Tensor,
    output_attentions: bool = False,
    **_,
) -> tuple[torch.Tensor]:
    """In place of `MPNetSelfAttention.forward`: the same by one fused attention."""
    projected = [part(hidden_states) for part in (module.q, module.k, module.v)]
    query, key, value = [part.unflatten(-1, (-1, module.attention_head_size)).transpose(1, 2) for part in projected]
    bias = position_bias.to(query.dtype)
    mask = bias if attention_mask is None else bias + attention_mask.to(query.dtype)
    dropout = module.dropout.p if module.training else 0.0
    mixed = attention(module, query, key, value, mask, module.attention_head_size**-0.5, dropout)[0]
    return (module.o(mixed.flatten(2)),)
