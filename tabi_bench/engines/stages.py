"""A classifier taken apart: embeddings, layers, head. What runs whole and what runs in segments are the same calls."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import layer_norm, linear
from transformers import PreTrainedModel

from tabi_bench.engines.fuse import FirstOfThree
from tabi_bench.zoo.families import family
from tabi_bench.zoo.families.attention import attention
from tabi_bench.zoo.families.base import LayerParts
from tabi_bench.zoo.models import MeanPooled, mean_pool


class Layer:
    """A post-norm layer by its parts, fused or not, without dropout. Same numbers as calling it whole.

    transformers nests it five modules deep; at batch 1 walking them costs a thin model up to half a layer's time.
    """

    def __init__(self, parts: LayerParts):
        self.parts = parts
        first = parts.projections[0]
        self.fused = first.fused if isinstance(first, FirstOfThree) else None
        self.scaling = parts.head_size**-0.5

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, L, H) -> (B, L, H) under an additive mask."""
        parts = self.parts
        if self.fused is not None:
            projected = _linear(self.fused, hidden).chunk(3, -1)
        else:
            projected = [_linear(projection, hidden) for projection in parts.projections]
        query, key, value = [part.unflatten(-1, (-1, parts.head_size)).transpose(1, 2) for part in projected]
        mixed = attention(parts.attention, query, key, value, mask, self.scaling)[0].flatten(2)
        hidden = _norm(parts.mix_norm, _linear(parts.mix, mixed) + hidden)
        wide = parts.activation(_linear(parts.widen, hidden))
        return _norm(parts.narrow_norm, _linear(parts.narrow, wide) + hidden)


def _linear(module: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return linear(hidden, module.weight, module.bias)


def _norm(module: nn.LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    return layer_norm(hidden, module.normalized_shape, module.weight, module.bias, module.eps)


class Stages:
    """The parts of a classifier: `embed`, `mask`, `layer(i, ...)`, `head`. Same numbers as calling it whole.

    transformers wraps the stack of layers in keyword handling, mask building and recording of outputs, which cost a
    thin model at batch 1 more than half a layer's time.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.family = model, family(model.config.model_type)
        self.layers = model.config.num_hidden_layers
        self.typed = self.family.takes_types(model.config)
        self.stack = [self._callable(block) for block in self.family.blocks(model)]

    @property
    def packs(self) -> bool:
        """Whether `packed` answers a batch."""
        return False

    def _callable(self, block: nn.Module) -> Layer | nn.Module:
        parts = self.family.layer_parts(block)
        return block if parts is None else Layer(parts)

    def embed(self, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """(B, L) ids -> (B, L, H)."""
        return self.family.embed(self.model, ids, types if self.typed else None)

    def mask(self, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor | None:
        """What the layers add to attention scores; keep (B, L): tokens that are not padding, None: all."""
        return self.family.mask(self.model, hidden, keep)

    def layer(self, index: int, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Layer `index` (0-based) on (B, L, H)."""
        return self.stack[index](hidden, mask)

    def head(self, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        """Logits (B, K) of the last layer's (B, L, H)."""
        if isinstance(self.model, MeanPooled):
            return self.model.classifier(mean_pool(hidden, keep))
        return self.family.head(self.model, hidden)

    def __call__(self, ids: torch.Tensor, types: torch.Tensor | None, keep: torch.Tensor | None) -> torch.Tensor:
        """Logits (B, K) of queries (B, L); keep (B, L): tokens that are not padding, None: all."""
        hidden = self.embed(ids, types)
        mask = self.mask(hidden, keep)
        for index in range(self.layers):
            hidden = self.layer(index, hidden, mask)
        return self.head(hidden, keep)

    def packed(
        self, ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor, starts: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """Logits (B, K) of queries without padding between them: see `Network.packed`."""
        raise NotImplementedError("only kernels that know where a query ends read packed batches")
