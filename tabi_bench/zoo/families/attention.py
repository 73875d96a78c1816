"""Fused attention everywhere, explicit attention on the layer whose probabilities are read.

transformers asks by name for an attention function and a mask function; ours are registered under `NAME`. Under its own
sdpa a forward pass with a mask synchronises with the device and attentions come back as an empty tuple; here the mask
is one additive row, built on the device, and whoever reads probabilities is the module's `probe`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "tabi_bench"


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention of (B, heads, L, d) under an additive mask -> (B, L, heads, d)."""
    probe = module.__dict__.get("probe")
    if probe is not None and probe.reads():
        scores = torch.matmul(query, key.transpose(2, 3)) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = scores.softmax(dim=-1)
        probe.add(probabilities)
        mixed = torch.matmul(probabilities, value)
    else:
        mixed = scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


def additive_mask(
    *, attention_mask: torch.Tensor | None = None, dtype: torch.dtype = torch.float32, **_
) -> torch.Tensor | None:
    """(B, 1, 1, L) with 0 for tokens and the lowest number for padding, from a boolean (B, L); None stays None."""
    if attention_mask is None:
        return None
    zero = torch.zeros((), dtype=dtype, device=attention_mask.device)
    return torch.where(attention_mask.bool(), zero, torch.finfo(dtype).min)[:, None, None, :]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, additive_mask)
