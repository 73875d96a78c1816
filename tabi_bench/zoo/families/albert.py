"""ALBERT: layers share their weights in groups; embeddings are narrower than the layers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.zoo.families.base import Family


class Albert(Family):
    attention_classes = ("AlbertAttention",)

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """See Family."""
        layers, groups = model.config.num_hidden_layers, self.body(model).encoder.albert_layer_groups
        per_group = layers / model.config.num_hidden_groups
        return [groups[int(index / per_group)] for index in range(layers)]

    def layer_parts(self, block: nn.Module) -> None:
        """See Family."""
        return None

    def embed(self, model: PreTrainedModel, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """See Family."""
        return self.body(model).encoder.embedding_hidden_mapping_in(super().embed(model, ids, types))

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """See Family."""
        body = self.body(model)
        return model.classifier(body.pooler_activation(body.pooler(hidden[:, 0])))

    def attention_calls(self, model: PreTrainedModel) -> int:
        """See Family."""
        return model.config.num_hidden_layers * model.config.inner_group_num
