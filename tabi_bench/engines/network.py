"""A classifier as every engine runs it: token ids in; logits, scores of pieces and pooled vector out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers.models.deberta import modeling_deberta

from tabi_bench.engines.attention import DISENTANGLED, NAME, install_probe
from tabi_bench.engines.fuse import fuse_projections
from tabi_bench.engines.stages import Stages
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.loading import final_linear, load_model


class Network(nn.Module):
    """Wraps a *ForSequenceClassification at batch 1.

    `importance`: None, "last" or "mean"; `pooled`: also return the input of the final linear layer.
    """

    def __init__(self, model: nn.Module, importance: str | None = None, pooled: bool = False):
        super().__init__()
        self.model = model
        family = model.config.model_type
        if family not in DISENTANGLED:
            model.set_attn_implementation(NAME)
        else:
            _remember_positions(model)
        self.needs_mask = family in DISENTANGLED  # without one, it looks for padding: a device synchronisation
        self.typed = family != "distilbert" and getattr(model.config, "type_vocab_size", 0) > 1
        self.stages = None if family in DISENTANGLED else Stages(model, self.typed)
        self.pad = model.config.pad_token_id or 0
        self.probe = install_probe(model, importance) if importance else None
        self.pooled: torch.Tensor | None = None
        self.keeps_pooled = pooled
        if pooled:
            final_linear(model).register_forward_pre_hook(self._keep_pooled)

    def remember_positions(self, length: int) -> None:
        """Builds DeBERTa's relative positions of `length` before a compiler looks, or it would compile twice."""
        if self.needs_mask:
            encoder = getattr(self.model, self.model.base_model_prefix).encoder
            encoder.get_rel_pos(torch.empty(1, length, 1, device=self.model.device))

    def _keep_pooled(self, _module: nn.Module, args: tuple[torch.Tensor]) -> None:
        self.pooled = args[0]

    def forward(
        self,
        ids: torch.Tensor,
        types: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
        content: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """One query. All inputs are (1, L).

        ids; type ids; `keep`: tokens that are not padding (None: all); `content`: non-special ones (None: no scores).
        Returns logits (K,) float32, scores (L,) float32 or None, pooled (H,) float32 or None.
        """
        if self.probe is not None:
            self.probe.begin(content)
        if keep is None and self.needs_mask:
            keep = torch.ones_like(ids)
        logits = (self.stages or self._whole)(ids, types, keep)[0].float()
        scores = self.probe.result() if content is not None and self.probe is not None else None
        return logits, scores, None if self.pooled is None else self.pooled[0].float()

    def _whole(self, ids: torch.Tensor, types: torch.Tensor | None, keep: torch.Tensor | None) -> torch.Tensor:
        kwargs = {"token_type_ids": types} if self.typed else {}
        return self.model(input_ids=ids, attention_mask=keep, **kwargs).logits


def _attention_span(query: torch.Tensor, key: torch.Tensor, longest: int) -> int:
    """What transformers computes as a tensor on the CPU, which neither a compiler nor a capture likes to meet."""
    return min(max(query.size(-2), key.size(-2)), longest)


def _remember_positions(model: nn.Module) -> None:
    """DeBERTa's relative positions depend on the length alone; built anew, they copy from the CPU at every pass."""
    modeling_deberta.compute_attention_span = _attention_span
    encoder = getattr(model, model.base_model_prefix).encoder
    build, known = encoder.get_rel_pos, {}

    def relative_positions(hidden_states: torch.Tensor, *_args, **_kwargs) -> torch.Tensor:
        length = hidden_states.size(1)
        if length not in known:
            known[length] = build(hidden_states)
        return known[length]

    encoder.get_rel_pos = relative_positions


def build_network(
    spec: ModelSpec,
    dtype: torch.dtype,
    device: str,
    importance: str | None,
    pooled: bool,
    fuse_qkv: bool,
    read: Callable[[ModelSpec, torch.dtype, str], nn.Module] = load_model,
) -> Network:
    """Loads `spec` as a Network; with `fuse_qkv`, queries, keys and values come from one matrix product.

    read: where the model comes from, its folder if nothing else is said.
    """
    model = read(spec, dtype, device)
    if fuse_qkv:
        fuse_projections(model)
    return Network(model, importance, pooled).eval().requires_grad_(False)
