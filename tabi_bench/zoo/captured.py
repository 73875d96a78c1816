"""Whole training steps as CUDA graphs: a step of a small model is hundreds of launches, each longer than its work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)
Inputs = dict[str, torch.Tensor]


class CapturedSteps:
    """One graph per shape of the inputs, captured when the shape is met a second time; all share one memory pool.

    `step` computes the loss of its inputs, its gradients, and updates the weights. What a capture refuses runs as
    plain calls from then on.
    """

    def __init__(self, step: Callable[[Inputs], Any]):
        self.step, self.refused = step, False
        self._pool = torch.cuda.graph_pool_handle()
        self._met: set[tuple] = set()
        self._graphs: dict[tuple, tuple[Inputs, torch.cuda.CUDAGraph]] = {}

    def __call__(self, inputs: Inputs) -> None:
        """Runs one step, on the current stream."""
        shape = tuple(inputs["input_ids"].shape)
        met = shape in self._met and not self.refused
        if met and (shape in self._graphs or self._capture(shape, inputs)):
            buffers, graph = self._graphs[shape]
            for name, buffer in buffers.items():
                buffer.copy_(inputs[name])
            graph.replay()
        else:
            self._met.add(shape)
            self.step(inputs)

    def _capture(self, shape: tuple, inputs: Inputs) -> bool:
        """Records a step of this shape, without running it; False where that cannot be done."""
        buffers, graph = {name: value.clone() for name, value in inputs.items()}, torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            stream = torch.cuda.current_stream()
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                self.step(buffers)
        except Exception as error:  # whatever stops a capture, the step still runs as it is
            log.warning("training steps are not captured: %s: %s", type(error).__name__, str(error).partition("\n")[0])
            self.refused = True
            return False
        self._graphs[shape] = buffers, graph
        return True
