"""CUDA graphs of our own Triton kernels (`kernels.py`) for BERT-shaped models; every other model is as under `graph`.

The layer whose attention is read as importance runs as it is in PyTorch, so that its probabilities can be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from tabi_bench.config import FusedConfig
from tabi_bench.engines.buffers import Inputs
from tabi_bench.engines.graph import GraphEngine
from tabi_bench.engines.importance import Probe
from tabi_bench.engines.network import Network
from tabi_bench.engines.stages import Layer, Stages
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.families.attention import additive_mask
from tabi_bench.zoo.models import MeanPooled

if TYPE_CHECKING:
    from tabi_bench.engines.kernels import Rows


class FusedStages(Stages):
    """The parts of a BERT-shaped model as launches of our kernels. Same numbers as PyTorch's within rounding."""

    def __init__(self, model: PreTrainedModel, probe: Probe | None):
        from tabi_bench.engines import kernels

        super().__init__(model)
        self.kernels, self.probe = kernels, probe
        self.heads = model.config.num_attention_heads
        self.mean = isinstance(model, MeanPooled)
        self.bias = self.family.position_bias(model)
        self.first_place = self.family.first_place(model.config.to_dict())

    @property
    def packs(self) -> bool:
        """See Stages: not where something else is to see the hidden states of all tokens."""
        return self.family.embeds_in_one and not self._hooked

    @property
    def _hooked(self) -> bool:
        """Whether a hook keeps the pooled vector."""
        return self.mean and bool(self.model.classifier._forward_pre_hooks)

    def begin(
        self, ids: torch.Tensor, types: torch.Tensor, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Hidden states (R, H) and the padding's additive mask (R,) of (B, L) inputs; of packed ones (R,) without."""
        if self.family.embeds_in_one:
            embeddings = self.family.body(self.model).embeddings
            return self.kernels.embed(embeddings, ids, types, keep, self.first_place)
        hidden = self.embed(ids, types).flatten(0, 1)
        mask = additive_mask(attention_mask=keep, dtype=hidden.dtype)
        assert mask is not None, "keep is there"
        return hidden, mask.flatten()

    def fused_layer(self, index: int, hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Layer `index` on (R, H): seven launches."""
        run, layer = self.kernels, self.stack[index]
        parts, project = layer.parts, layer.fused
        assert project is not None, "fusible() has looked"
        qkv = run.linear(hidden, project.weight, project.bias)
        mixed = run.linear(run.attention(qkv, rows, self.heads, self.bias), parts.mix.weight, parts.mix.bias)
        hidden = run.add_norm(mixed, hidden, parts.mix_norm)
        wide = run.linear(hidden, parts.widen.weight, parts.widen.bias, gelu=True)
        return run.add_norm(run.linear(wide, parts.narrow.weight, parts.narrow.bias), hidden, parts.narrow_norm)

    def __call__(self, ids: torch.Tensor, types: torch.Tensor | None, keep: torch.Tensor | None) -> torch.Tensor:
        """Logits (B, K) of queries (B, L); keep (B, L), None: all."""
        keep = torch.ones_like(ids) if keep is None else keep
        types = torch.zeros_like(ids) if types is None else types
        probe = self.probe if self.probe is not None and self.probe.content is not None else None
        if probe is not None and probe.option == "mean":
            return super().__call__(ids, types, keep)
        hidden, mask = self.begin(ids, types, keep)
        rows = self.kernels.Rows(len(ids), ids.shape[1], mask)
        for index in range(self.layers - (probe is not None)):
            hidden = self.fused_layer(index, hidden, rows)
        if probe is not None:
            probe.calls = self.layers - 1
            whole = hidden.unflatten(0, ids.shape)
            hidden = self.layer(self.layers - 1, whole, self.mask(whole, keep)).flatten(0, 1)
        if self.mean and not self._hooked:
            return self.kernels.mean_head(hidden, keep, self.model.classifier)
        return self.head(hidden.unflatten(0, ids.shape), keep)

    def packed(
        self, ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor, starts: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """Logits (B, K) of queries whose R tokens follow each other without padding. See `batches.PackedStep`."""
        hidden, _ = self.begin(ids, types, places)
        rows = self.kernels.Rows(len(starts) - 1, longest, starts=starts)
        for index in range(self.layers):
            hidden = self.fused_layer(index, hidden, rows)
        if self.mean:
            return self.kernels.mean_head(hidden, starts, self.model.classifier)
        first = hidden[starts[:-1].clamp(max=len(hidden) - 1)]  # every other head reads the first token alone
        return self.head(first[:, None], None)


def fusible(network: Network) -> str | None:
    """Why our kernels do not fit a model; None if they do."""
    config, stages = network.model.config, network.stages
    if stages is None or not all(isinstance(layer, Layer) for layer in stages.stack):
        return f"{config.model_type} has no fused layers"
    if not all(isinstance(layer.parts.activation, GELUActivation) for layer in stages.stack):
        return f"its activation is a {type(stages.stack[0].parts.activation).__name__}"
    size = stages.stack[0].parts.head_size
    if size < 16 or size & (size - 1):
        return f"its heads are {size} wide: powers of two from 16 on are fused"
    if not all(layer.fused is not None for layer in stages.stack):
        return "its projections are not fused (engine.fuse_qkv=true)"
    return None


class FusedEngine(GraphEngine):
    """Graphs of Triton kernels. Needs a CUDA device and Triton, which PyTorch's CUDA builds bring."""

    name = "fused"
    config: FusedConfig

    @staticmethod
    def decide(logits: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """See `decided`: one launch."""
        from tabi_bench.engines import kernels

        return kernels.decide(logits, inputs.temperature)

    def __init__(self, config: FusedConfig):
        """Raises ValueError without Triton."""
        super().__init__(config)
        self.packs = config.pack
        try:
            import triton  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "engine=fused needs Triton, which comes with PyTorch's CUDA builds; use engine=graph"
            ) from error
        self.unfused: dict[str, str] = {}

    def network(self, spec: ModelSpec, importance: str | None, pooled: bool, instance: str = "") -> Network:
        """See EagerEngine."""
        network = super().network(spec, importance, pooled, instance)
        if isinstance(network.stages, FusedStages) or spec.name in self.unfused:
            return network
        reason = fusible(network)
        if reason is None:
            network.stages = FusedStages(network.model, network.probe)
        else:
            self.unfused[spec.name] = reason
        return network

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"unfused": self.unfused}
