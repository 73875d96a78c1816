"""A classifier taken apart: embeddings, layers, head. What runs whole and what runs in segments are the same calls."""

from __future__ import annotations

import torch
from torch import nn

from tabi_bench.engines.attention import additive_mask
from tabi_bench.zoo.models import MeanPoolBert, mean_pool


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

    def embed(self, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """(1, L) ids -> (1, L, H)."""
        kwargs = {"token_type_ids": types} if self.typed else {}
        hidden = self.base.embeddings(input_ids=ids, **kwargs)
        return self.body.embedding_hidden_mapping_in(hidden) if self.family == "albert" else hidden

    def layer(self, index: int, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Layer `index` (0-based) on (1, L, H) under an additive mask."""
        if self.family == "albert":
            group = int(index / (self.layers / self.model.config.num_hidden_groups))
            return self.body.albert_layer_groups[group](hidden, mask)
        return self.body.layer[index](hidden, mask)

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
