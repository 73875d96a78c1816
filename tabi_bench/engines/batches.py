"""What a CUDA graph of a batch records, at one size and length: copy in, forward pass, copy out, on static buffers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tabi_bench import device
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.loaded import outputs_of_batch, padded
from tabi_bench.engines.network import Network


class BatchStep:
    """Plain code until it is captured. size, length: of the static batch; smaller ones are padded to it."""

    def __init__(self, network: Network, size: int, length: int, scored: bool, on: str):
        self.network, self.forward = network, network.batch
        self.size, self.length, self.scored = size, length, scored
        pinned = on.startswith("cuda")
        self.host = torch.zeros(4, size, length, dtype=torch.int64, pin_memory=pinned)
        self.host[2, :, : max(1, length // 2)] = 1  # so that warming up runs with padding
        self.device = torch.zeros_like(self.host, device=on)
        self.outputs: list[torch.Tensor | None] = []
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def __call__(self) -> None:
        self.device.copy_(self.host, non_blocking=True)
        ids, types, keep, content = self.device.unbind(0)
        types = types if self.network.typed else None
        results = self.forward(ids, types, keep, content if self.scored else None)
        if not self.outputs:
            self.outputs = [
                None if result is None else torch.zeros(result.shape, dtype=torch.float32, pin_memory=result.is_cuda)
                for result in results
            ]
        for buffer, result in zip(self.outputs, results, strict=True):
            if buffer is not None:
                buffer.copy_(result, non_blocking=True)

    def run(self, encodings: Sequence[Encoding], temperature: float) -> list[Output]:
        """Fills the buffers, replays the graph (without one: calls the code) and waits for it."""
        self.host.numpy()[:] = padded(encodings, self.network.pad, self.size, self.length, self.scored)
        (self if self.graph is None else self.graph.replay)()
        if self.device.is_cuda:
            device.wait_for(torch.cuda.current_stream().record_event())
        logits, *others = (
            None if buffer is None else buffer.numpy()[: len(encodings)].copy() for buffer in self.outputs
        )
        assert logits is not None
        return outputs_of_batch(encodings, temperature, logits, *others)
