"""DistilBERT: BERT's layers under other names; no type ids."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tabi_bench.zoo.families.base import Family, LayerParts


class DistilBert(Family):
    projections = ("q_lin", "k_lin", "v_lin")
    has_pooler = False
    layers_key = "n_layers"

    def takes_types(self, config: PreTrainedConfig) -> bool:
        """See Family."""
        return False

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """See Family."""
        return list(self.body(model).transformer.layer)

    def layer_parts(self, block: nn.Module) -> LayerParts:
        """See Family."""
        attention, wide = block.attention, block.ffn
        return LayerParts(
            attention, (attention.q_lin, attention.k_lin, attention.v_lin), attention.out_lin, block.sa_layer_norm,
            wide.lin1, wide.activation, wide.lin2, block.output_layer_norm, attention.dim // attention.n_heads,
        )  # fmt: skip

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """See Family."""
        return model.classifier(model.pre_classifier(hidden[:, 0]).relu())
