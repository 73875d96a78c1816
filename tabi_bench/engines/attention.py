"""Fused attention everywhere, explicit attention on the layer whose probabilities are read.

transformers asks by name for an attention function and a mask function; ours are registered under `NAME`. Under its own
sdpa a forward pass with a mask synchronises with the device and attentions come back as an empty tuple; here the mask
is one additive row, built on the device, and a `Probe` collects the scores of pieces.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from tabi_bench.engines.importance import attention_received_torch

NAME = "tabi_bench"
DISENTANGLED = ("deberta", "deberta-v2")


class Probe:
    """Collects the attention that each piece receives in the last layer, or in all of them.

    `begin` arms it with the mask of non-special tokens (1, L), or disarms it with None. Attention calls are counted, so
    that layers which share their weights (ALBERT) are told apart.
    """

    def __init__(self, layers: int, option: str):
        if option not in ("last", "mean"):
            raise ValueError(f"importance={option!r}: choose last or mean")
        self.layers, self.option = layers, option
        self.begin(None)

    def begin(self, content: torch.Tensor | None) -> None:
        self.content = content
        self.calls = 0
        self.scores: list[torch.Tensor] = []

    def reads(self) -> bool:
        """Whether the attention call that starts now is to be read."""
        self.calls += 1
        return self.content is not None and (self.option == "mean" or self.calls == self.layers)

    def add(self, probabilities: torch.Tensor) -> None:
        """probabilities: (1, heads, L, L) of one layer."""
        self.scores.append(attention_received_torch(probabilities, self.content))

    def result(self) -> torch.Tensor:
        """(L,) float32 scores, averaged over the layers read. No attention seen is an AssertionError."""
        expected = 1 if self.option == "last" else self.layers
        assert len(self.scores) == expected, f"attention of {len(self.scores)} layers seen, {expected} expected"
        return self.scores[0] if expected == 1 else torch.stack(self.scores).mean(0)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, L, d) under an additive mask -> (1, L, heads, d). Inference only: no dropout."""
    probe = getattr(module, "probe", None)
    if probe is not None and probe.reads():
        scores = torch.matmul(query, key.transpose(2, 3)) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = scores.softmax(dim=-1)
        probe.add(probabilities)
        mixed = torch.matmul(probabilities, value)
    else:
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
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


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The self-attention modules of a supported encoder, in the order of its layers."""
    suffixes = ("SelfAttention", "AlbertAttention")
    return [module for module in model.modules() if type(module).__name__.endswith(suffixes)]


def attention_calls(model: nn.Module) -> int:
    """How often attention is computed in one forward pass."""
    config = model.config
    if config.model_type == "albert":
        return config.num_hidden_layers * config.inner_group_num
    return len(attention_modules(model))


def install_probe(model: nn.Module, option: str) -> Probe:
    """Attaches a Probe to every attention module of `model`."""
    probe = Probe(attention_calls(model), option)
    for module in attention_modules(model):
        if model.config.model_type in DISENTANGLED:
            _hook_disentangled(module, probe)
        else:
            module.probe = probe
    return probe


def _hook_disentangled(module: nn.Module, probe: Probe) -> None:
    """DeBERTa computes its probabilities explicitly and returns them on request."""

    def ask(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return (*args[:2], probe.reads(), *args[3:]), kwargs

    def take(_module: nn.Module, _args: tuple, output: tuple) -> None:
        if output[1] is not None:
            probe.add(output[1])

    module.register_forward_pre_hook(ask, with_kwargs=True)
    module.register_forward_hook(take)
