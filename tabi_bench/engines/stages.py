"""A classifier taken apart: embeddings, layers, head. What runs whole and what runs in segments are the same calls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import layer_norm, linear

from tabi_bench.engines.attention import additive_mask, attention
from tabi_bench.engines.fuse import FirstOfThree
from tabi_bench.zoo.models import MeanPoolBert, mean_pool


class BertLayer:
    """A layer of a BERT or a RoBERTa by its parts, fused or not, without dropout. Same numbers as calling it whole.

    transformers nests it five modules deep; at batch 1 walking them costs a thin model up to half a layer's time.
    """

    def __init__(self, layer: nn.Module):
        self.attention = layer.attention.self
        first, mix, widen, narrow = self.attention.query, layer.attention.output, layer.intermediate, layer.output
        self.fused = first.fused if isinstance(first, FirstOfThree) else None
        self.projections = first, self.attention.key, self.attention.value
        self.mix, self.mix_norm = mix.dense, mix.LayerNorm
        self.widen, self.activation = widen.dense, widen.intermediate_act_fn
        self.narrow, self.narrow_norm = narrow.dense, narrow.LayerNorm
        self.size, self.scaling = self.attention.attention_head_size, self.attention.scaling

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(1, L, H) -> (1, L, H) under an additive mask."""
        if self.fused is not None:
            projected = _linear(self.fused, hidden).chunk(3, -1)
        else:
            projected = [_linear(projection, hidden) for projection in self.projections]
        query, key, value = [part.unflatten(-1, (-1, self.size)).transpose(1, 2) for part in projected]
        mixed = attention(self.attention, query, key, value, mask, self.scaling)[0].flatten(2)
        hidden = _norm(self.mix_norm, _linear(self.mix, mixed) + hidden)
        wide = self.activation(_linear(self.widen, hidden))
        return _norm(self.narrow_norm, _linear(self.narrow, wide) + hidden)


def _linear(module: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return linear(hidden, module.weight, module.bias)


def _norm(module: nn.LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    return layer_norm(hidden, module.normalized_shape, module.weight, module.bias, module.eps)


class Stages:
    """The parts of a classifier: `embed`, `layer(i, ...)`, `head`. Same numbers as calling it whole.

    transformers wraps the stack of layers in keyword handling, mask building and recording of outputs, which cost a
    thin model at batch 1 more than half a layer's time.
    """

    def __init__(self, model: nn.Module, typed: bool):
        self.model, self.typed = model, typed
        self.family = self.model.config.model_type
        self.base = getattr(self.model, self.model.base_model_prefix)
        self.body = self.base.transformer if self.family == "distilbert" else self.base.encoder
        self.layers = self.model.config.num_hidden_layers
        self._stack = self._by_index()

    def _by_index(self) -> list[Callable]:
        """What computes each layer; ALBERT's layers share their weights in groups."""
        if self.family == "albert":
            each = self.layers / self.model.config.num_hidden_groups
            return [self.body.albert_layer_groups[int(index / each)] for index in range(self.layers)]
        return [BertLayer(layer) if self.family in ("bert", "roberta") else layer for layer in self.body.layer]

    def embed(self, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """(1, L) ids -> (1, L, H)."""
        kwargs = {"token_type_ids": types} if self.typed else {}
        hidden = self.base.embeddings(input_ids=ids, **kwargs)
        return self.body.embedding_hidden_mapping_in(hidden) if self.family == "albert" else hidden

    def layer(self, index: int, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Layer `index` (0-based) on (1, L, H) under an additive mask."""
        return self._stack[index](hidden, mask)

    def head(self, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        """Logits (1, K) of the last layer's (1, L, H)."""
        model = self.model
        if isinstance(model, MeanPoolBert):
            return model.classifier(mean_pool(hidden, keep))
        if self.family == "roberta":
            return model.classifier(hidden)
        if self.family == "distilbert":
            return model.classifier(model.pre_classifier(hidden[:, 0]).relu())
        if self.family == "albert":
            return model.classifier(self.base.pooler_activation(self.base.pooler(hidden[:, 0])))
        return model.classifier(self.base.pooler(hidden))

    def __call__(self, ids: torch.Tensor, types: torch.Tensor | None, keep: torch.Tensor | None) -> torch.Tensor:
        """Logits (1, K) of one query (1, L); keep (1, L): tokens that are not padding, None: all."""
        hidden = self.embed(ids, types)
        mask = additive_mask(attention_mask=keep, dtype=hidden.dtype)
        for index in range(self.layers):
            hidden = self.layer(index, hidden, mask)
        return self.head(hidden, keep)
