"""ELECTRA: BERT's layers; embeddings may be narrower than the layers, and the head is RoBERTa's."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.zoo.families.base import Family


class Electra(Family):
    has_pooler = False
    embeds_in_one = False

    def embed(self, model: PreTrainedModel, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """See Family."""
        hidden = super().embed(model, ids, types)
        widen = self.body(model)._modules.get("embeddings_project")
        return widen(hidden) if isinstance(widen, nn.Linear) else hidden
