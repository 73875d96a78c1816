"""A model cut between layers, with an off-ramp at the end of each segment (DeeBERT): one scalar decision per ramp."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from time import perf_counter

import numpy as np
import torch
from torch import nn

from tabi_bench.engines.attention import additive_mask
from tabi_bench.engines.base import Encoding
from tabi_bench.engines.eager import LoadedModel
from tabi_bench.engines.graph import GraphEngine, Inputs, Outputs, out_of_memory
from tabi_bench.engines.network import Network
from tabi_bench.zoo.base import ModelSpec


class Segments:
    """Functions hidden states -> (hidden states, logits), one per segment; the last ends in the model's own head."""

    def __init__(self, network: Network, ramps: dict[int, nn.Module], device: str):
        if network.stages is None:
            family = network.model.config.model_type
            raise ValueError(f"{family} cannot be cut into segments; DeeBERT runs on bert, roberta, distilbert, albert")
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
        """Segment `number` on (1, L, H); keep (1, L). Returns hidden states and logits (K,) float32."""
        first, last = self.cuts[number]
        mask = additive_mask(attention_mask=keep, dtype=hidden.dtype) if padded else None
        for index in range(first, last):
            hidden = self.stages.layer(index, hidden, mask)
        end = self.ramps.get(last, self.stages.head)
        return hidden, end(hidden, keep)[0].float()


class EagerSegments(LoadedModel):
    """Segments called as they are."""

    def __init__(self, spec: ModelSpec, network: Network, ramps: dict[int, nn.Module], device: str):
        super().__init__(spec)
        self.segments, self.device = Segments(network, ramps, device), device
        self.n_segments = len(self.segments.cuts)

    @torch.inference_mode()
    def start(self, encoding: Encoding) -> None:
        """Embeds one query."""
        ids = torch.tensor([encoding.ids], dtype=torch.int64).to(self.device)
        types = torch.tensor([encoding.type_ids], dtype=torch.int64).to(self.device)
        self._keep, self._next = torch.ones_like(ids), 0
        self._hidden = self.segments.stages.embed(ids, types)

    @torch.inference_mode()
    def step(self) -> np.ndarray:
        """Logits (K,) float32 at the end of the next segment."""
        self._hidden, logits = self.segments.run(self._next, self._hidden, self._keep, padded=False)
        self._next += 1
        return logits.cpu().numpy()


class SegmentGraphs:
    """The captured segments of one bucket: each reads the hidden states that the one before it left in place."""

    def __init__(self, segments: Segments, length: int, engine: GraphEngine):
        self.inputs = Inputs(length, engine.device)
        self.outputs = [Outputs() for _ in segments.cuts]
        self.hidden: dict[int, torch.Tensor] = {}
        self.graphs = []
        for number in range(len(segments.cuts)):
            run = engine.prepare(_segment(segments, number))
            self.graphs.append(engine.record(self._step(run, number), engine.pool, engine.stream))

    def _step(self, run: Callable, number: int) -> Callable[[], None]:
        @torch.no_grad()
        def step() -> None:
            if number == 0:
                self.inputs.copy_in()
            ids, types, keep, _ = self.inputs.rows()
            self.hidden[number], logits = run(ids, types, keep, self.hidden.get(number - 1))
            self.outputs[number].copy_out([logits], {"logits": len(logits)})

        return step


def _segment(segments: Segments, number: int) -> Callable:
    def run(ids: torch.Tensor, types: torch.Tensor, keep: torch.Tensor, hidden: torch.Tensor | None) -> tuple:
        if number == 0:
            hidden = segments.stages.embed(ids, types)
        return segments.run(number, hidden, keep, padded=True)

    return run


class GraphSegments(EagerSegments):
    """One graph per segment and bucket, all captured at the first query, the largest bucket first.

    A bucket that does not fit into memory is left out: its queries run at the next one up, or under eager without one.
    """

    def __init__(self, spec: ModelSpec, network: Network, ramps: dict[int, nn.Module], engine: GraphEngine):
        super().__init__(spec, network, ramps, engine.device)
        self.network, self.engine = network, engine
        self._buckets: dict[int, SegmentGraphs] | None = None
        self._current: SegmentGraphs | None = None

    def _capture(self) -> dict[int, SegmentGraphs]:
        start, buckets = perf_counter(), {}
        for length in reversed(self.engine.buckets_of(self.spec)):
            try:
                buckets[length] = SegmentGraphs(self.segments, length, self.engine)
            except Exception as error:  # whatever stops a capture, the model still runs under eager
                if not out_of_memory(error):
                    buckets = {}
                    self.engine.fall_back(self.spec, f"capture of segments: {type(error).__name__}: {error}")
                    break
                self.engine.drop_bucket(self.spec, length)
        else:
            if not buckets:
                self.engine.fall_back(self.spec, "no bucket fits into device memory")
        self.engine.stats["capture_s"] += perf_counter() - start
        return dict(sorted(buckets.items()))

    def start(self, encoding: Encoding) -> None:
        """Writes one query into the static buffer."""
        if self._buckets is None:
            self._buckets = self._capture()
        length = next((length for length in self._buckets if length >= encoding.n_tokens), None)
        if length is None:
            self._current = None
            return super().start(encoding)
        self._current, self._next = self._buckets[length], 0
        self._current.inputs.fill(encoding, self.network, 1.0, content=False)
        self.engine.count(encoding.n_tokens, length)
        return None

    def step(self) -> np.ndarray:
        """Logits (K,) float32 at the end of the next segment: one replay, one synchronisation."""
        if self._current is None:
            return super().step()
        self._current.graphs[self._next].replay()
        torch.cuda.current_stream().synchronize()
        self._next += 1
        return self._current.outputs[self._next - 1].read()["logits"]
