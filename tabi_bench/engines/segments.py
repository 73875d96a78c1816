"""A model cut between layers, with an off-ramp at the end of each segment (DeeBERT): one scalar decision per ramp."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from tabi_bench.engines.encoding import Encoders, Encoding
from tabi_bench.engines.loaded import LoadedModel, padded
from tabi_bench.engines.network import Network
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.families import cuttable


class Segments:
    """Functions hidden states -> (hidden states, logits), one per segment; the last ends in the model's own head."""

    def __init__(self, network: Network, ramps: dict[int, nn.Module], device: str):
        if network.stages is None:
            family = network.model.config.model_type
            raise ValueError(f"{family} cannot be cut into segments; early exit runs on {', '.join(cuttable())}")
        self.stages = network.stages
        wrong = [layer for layer in ramps if not 0 < layer < self.stages.layers]
        if wrong:
            raise ValueError(
                f"ramps after layers {wrong}: a model of {self.stages.layers} layers has 1..{self.stages.layers - 1}"
            )
        dtype = next(network.parameters()).dtype
        self.ramps = {layer: deepcopy(ramps[layer]).to(device, dtype).eval() for layer in sorted(ramps)}
        ends = [*self.ramps, self.stages.layers]
        self.cuts = list(zip([0, *ends[:-1]], ends, strict=True))

    def run(
        self, number: int, hidden: torch.Tensor, keep: torch.Tensor, padded: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment `number` on (B, L, H); keep (B, L). Returns hidden states and logits (B, K) float32."""
        first, last = self.cuts[number]
        mask = self.stages.mask(hidden, keep if padded else None)
        for index in range(first, last):
            hidden = self.stages.layer(index, hidden, mask)
        end = self.ramps.get(last, self.stages.head)
        return hidden, end(hidden, keep).float()


class EagerSegments(LoadedModel):
    """Segments called as they are."""

    def __init__(self, spec: ModelSpec, encoders: Encoders, network: Network, ramps: dict[int, nn.Module], device: str):
        super().__init__(spec, encoders)
        self.segments, self.device, self.pad = Segments(network, ramps, device), device, network.pad
        self.n_segments = len(self.segments.cuts)

    @torch.inference_mode()
    def start(self, encoding: Encoding) -> None:
        """Embeds one query."""
        self._embed([encoding])

    def step(self) -> np.ndarray:
        """Logits (K,) float32 at the end of the next segment."""
        return self.step_batch()[0]

    @torch.inference_mode()
    def start_batch(self, encodings: Sequence[Encoding]) -> None:
        """Embeds a batch, padded to its longest query."""
        self._embed(encodings)

    def _embed(self, encodings: Sequence[Encoding]) -> None:
        tokens = [encoding.n_tokens for encoding in encodings]
        rows = padded(encodings, self.pad, len(encodings), max(tokens), False)
        ids, types, self._keep, _ = torch.from_numpy(rows).to(self.device)
        self._padded, self._next = min(tokens) < max(tokens), 0
        self._hidden = self.segments.stages.embed(ids, types)

    @torch.inference_mode()
    def step_batch(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Logits (n, K) float32 at the end of the next segment, of `rows` (n,) of those of the last one; None: all."""
        if rows is not None:
            at = torch.from_numpy(rows).to(self.device)
            self._hidden, self._keep = self._hidden[at], self._keep[at]
        self._hidden, logits = self.segments.run(self._next, self._hidden, self._keep, self._padded)
        self._next += 1
        return logits.cpu().numpy()
