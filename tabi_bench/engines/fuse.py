"""Queries, keys and values from one matrix product: three weights side by side, the same numbers out.

At batch 1 the time of a projection is the time to launch it and to stream its weights; one launch instead of three.
"""

from __future__ import annotations

import torch
from torch import nn

NAMES = {
    "bert": ("query", "key", "value"),
    "roberta": ("query", "key", "value"),
    "albert": ("query", "key", "value"),
    "distilbert": ("q_lin", "k_lin", "v_lin"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj"),
}


class FirstOfThree(nn.Module):
    """Computes all three projections of its input, hands out the first and keeps the others for `Later`."""

    def __init__(self, linears: list[nn.Linear]):
        super().__init__()
        first = linears[0]
        self.fused = nn.Linear(
            first.in_features,
            sum(linear.out_features for linear in linears),
            device=first.weight.device,
            dtype=first.weight.dtype,
        )
        with torch.no_grad():
            self.fused.weight.copy_(torch.cat([linear.weight for linear in linears]))
            self.fused.bias.copy_(torch.cat([linear.bias for linear in linears]))
        self.sizes = [linear.out_features for linear in linears]
        self.rest: list[torch.Tensor] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        first, *self.rest = self.fused(hidden).split(self.sizes, dim=-1)
        return first


class Later(nn.Module):
    """The second or third projection of the input that `FirstOfThree` was just given."""

    def __init__(self, first: FirstOfThree, index: int):
        super().__init__()
        self.first, self.index = [first], index  # in a list: its weights are registered once, under the first

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.first[0].rest[self.index]


def fuse_projections(model: nn.Module) -> bool:
    """Fuses every attention module of `model` in place; False for families that have no three projections to fuse.

    DeBERTa-v2 that shares its keys projects position embeddings with the same layers, so it stays as it is, as does
    DeBERTa, which comes fused.
    """
    names = NAMES.get(model.config.model_type)
    if names is None or getattr(model.config, "share_att_key", False):
        return False
    for module in list(model.modules()):
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in names):
            first = FirstOfThree([getattr(module, name) for name in names])
            setattr(module, names[0], first)
            for index, name in enumerate(names[1:]):
                setattr(module, name, Later(first, index))
    return True
