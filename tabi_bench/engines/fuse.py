"""Queries, keys and values from one matrix product: three weights side by side, the same numbers out.

At batch 1 the time of a projection is the time to launch it and to stream its weights; one launch instead of three.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.zoo.families import family


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
        self.others: list[torch.Tensor] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        first, *self.others = self.fused(hidden).split(self.sizes, dim=-1)
        return first


class Later(nn.Module):
    """The second or third projection of the input that `FirstOfThree` was just given."""

    def __init__(self, first: FirstOfThree, index: int):
        super().__init__()
        self.first, self.index = [first], index  # in a list: its weights are registered once, under the first

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.first[0].others[self.index]


def fuse_projections(model: PreTrainedModel) -> bool:
    """Fuses every attention module of `model` in place; False for families that have no three projections to fuse."""
    adapter = family(model.config.model_type)
    names = adapter.projections
    if names is None or not adapter.may_fuse(model.config):
        return False
    for module in list(model.modules()):
        children = module._modules
        if all(isinstance(children.get(name), nn.Linear) for name in names):
            first = FirstOfThree([children[name] for name in names])
            later = [Later(first, index) for index in range(len(names) - 1)]
            for name, part in zip(names, [first, *later], strict=True):
                module.add_module(name, part)
    return True
