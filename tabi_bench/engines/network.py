"""A classifier as every engine runs it: token ids in; logits, scores of tokens and pooled vector out."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.engines.fuse import fuse_projections
from tabi_bench.engines.importance import install_probe
from tabi_bench.engines.stages import Stages
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.families import family
from tabi_bench.zoo.loading import final_linear, load_model


class Network(nn.Module):
    """Wraps a *ForSequenceClassification: `forward` runs one query, `batch` several.

    `importance`: None, "last" or "mean"; `pooled`: also return the input of the final linear layer.
    """

    def __init__(self, model: PreTrainedModel, importance: str | None = None, pooled: bool = False):
        super().__init__()
        self.model = model
        self.family = family(model.config.model_type)
        self.family.prepare(model)
        self.typed = self.family.takes_types(model.config)
        self.stages = Stages(model) if self.family.cuttable else None
        self.pad = self.family.padding(model.config)
        self.probe = install_probe(model, importance) if importance else None
        self.pooled: torch.Tensor | None = None
        self.keeps_pooled = pooled
        if pooled:
            final_linear(model).register_forward_pre_hook(self._keep_pooled)

    def remember_positions(self, length: int) -> None:
        """Builds what depends on the length alone before a compiler looks, or it would compile twice."""
        self.family.remember_positions(self.model, length)

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
        logits, scores, pooled = self.batch(ids, types, keep, content)
        return logits[0], None if scores is None else scores[0], None if pooled is None else pooled[0]

    def batch(
        self,
        ids: torch.Tensor,
        types: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
        content: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """B queries: as `forward`, with inputs (B, L) and outputs (B, K), (B, L) and (B, H)."""
        if self.probe is not None:
            self.probe.begin(content)
        if keep is None and self.family.needs_mask:
            keep = torch.ones_like(ids)
        logits = (self.stages or self._whole)(ids, types, keep).float()
        scores = self.probe.result() if content is not None and self.probe is not None else None
        return logits, scores, None if self.pooled is None else self.pooled.float()

    @property
    def packs(self) -> bool:
        """Whether `packed` can be called."""
        return self.stages is not None and self.stages.packs

    def packed(
        self, ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor, starts: torch.Tensor, longest: int
    ) -> tuple[torch.Tensor, None, torch.Tensor | None]:
        """As `batch`, of queries without padding between them: ids, types, places in the query (R,), starts (B + 1,).

        longest: no query has more tokens.
        """
        assert self.stages is not None and self.stages.packs, "ask `packs` first"
        if self.probe is not None:
            self.probe.begin(None)
        logits = self.stages.packed(ids, types, places, starts, longest).float()
        return logits, None, None if self.pooled is None else self.pooled.float()

    def _whole(self, ids: torch.Tensor, types: torch.Tensor | None, keep: torch.Tensor | None) -> torch.Tensor:
        kwargs = {"token_type_ids": types} if self.typed else {}
        return self.model(input_ids=ids, attention_mask=keep, **kwargs).logits


def build_network(
    spec: ModelSpec, dtype: torch.dtype, device: str, importance: str | None, pooled: bool, fuse_qkv: bool
) -> Network:
    """Loads `spec` as a Network; see `as_network`."""
    return as_network(load_model(spec, dtype, device), importance, pooled, fuse_qkv)


def as_network(model: nn.Module, importance: str | None, pooled: bool, fuse_qkv: bool) -> Network:
    """A loaded classifier as a Network; with `fuse_qkv`, queries, keys and values come from one matrix product."""
    if fuse_qkv:
        fuse_projections(model)
    return Network(model, importance, pooled).eval().requires_grad_(False)
