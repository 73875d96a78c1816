"""A model cut between layers, each segment a CUDA graph per bucket."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tabi_bench.engines.buffers import Inputs, Outputs, out_of_memory
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.network import Network
from tabi_bench.engines.segments import EagerSegments, Segments
from tabi_bench.zoo.base import ModelSpec

if TYPE_CHECKING:
    from tabi_bench.engines.graph import GraphEngine


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
            self.outputs[number].copy_out([logits[0]], {"logits": logits.shape[1]})

        return step


def _segment(segments: Segments, number: int) -> Callable:
    def run(ids: torch.Tensor, types: torch.Tensor, keep: torch.Tensor, hidden: torch.Tensor | None) -> tuple:
        if number == 0:
            hidden = segments.stages.embed(ids, types)
        return segments.run(number, hidden, keep, padded=True)

    return run


class GraphSegments(EagerSegments):
    """One graph per segment and bucket, all captured at the first query, the largest bucket first; batches run eagerly.

    A bucket that does not fit into memory is left out: its queries run at the next one up, or under eager without one.
    """

    def __init__(self, spec: ModelSpec, network: Network, ramps: dict[int, nn.Module], engine: GraphEngine):
        super().__init__(spec, engine.encoders, network, ramps, engine.device)
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
