"""Static buffers between the host and a captured graph: inputs in one copy, outputs in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tabi_bench.engines.encoding import Encoding, numbers
from tabi_bench.engines.network import Network


class Inputs:
    """Pinned host buffer and its device copy: rows ids, type ids, keep, content (each L), and the temperature."""

    def __init__(self, length: int, device: str):
        self.length = length
        self.host = torch.zeros(4 * length + 1, dtype=torch.int64, pin_memory=device.startswith("cuda"))
        self.device = torch.zeros(4 * length + 1, dtype=torch.int64, device=device)
        flat = self.host.numpy()
        self._ids, self._types, self._keep, self._content = flat[:-1].reshape(4, length)
        self._temperature = flat[-1:].view(np.float64)
        self._temperature[0] = 1.0
        self._keep[: max(1, length // 2)] = 1  # so that warming up runs with padding
        self._content[1 : max(1, length // 2)] = 1

    def fill(self, encoding: Encoding, network: Network, temperature: float, content: bool) -> None:
        """Writes one query into the host buffer, padded to the bucket."""
        n = encoding.n_tokens
        self._ids[:n] = numbers(encoding.row)
        self._ids[n:] = network.pad
        self._keep[:n] = 1
        self._keep[n:] = 0
        if network.typed:
            self._types[:n] = numbers(encoding.type_row)
            self._types[n:] = 0
        if content:
            self._content[:n] = encoding.content
            self._content[n:] = 0
        self._temperature[0] = temperature

    def rows(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids, types, keep, content on the device, (1, L) each."""
        return self.device[:-1].view(4, 1, self.length).unbind(0)

    @property
    def temperature(self) -> torch.Tensor:
        """(1,) float64 on the device."""
        return self.device[-1:].view(torch.float64)

    def copy_in(self) -> None:
        self.device.copy_(self.host, non_blocking=True)


class Outputs:
    """Named device vectors, packed into one pinned host buffer by one copy."""

    def __init__(self) -> None:
        self.host: torch.Tensor | None = None
        self.slices: dict[str, slice] = {}

    def copy_out(self, vectors: Sequence[torch.Tensor], sizes: dict[str, int]) -> None:
        """vectors, end to end, are the named parts, end to end."""
        packed = torch.cat(list(vectors)) if len(vectors) > 1 else vectors[0]
        if self.host is None:
            self.host = torch.zeros(len(packed), dtype=torch.float32, pin_memory=packed.is_cuda)
            self._numpy = self.host.numpy()
            ends = np.cumsum(list(sizes.values())).tolist()
            self.slices = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self.host.copy_(packed, non_blocking=True)

    def read(self) -> dict[str, np.ndarray]:
        """The vectors of the last replay, in one copy of the host buffer."""
        packed = self._numpy.copy()
        return {name: packed[part] for name, part in self.slices.items()}


def out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised in the wake of, is the device's out of memory."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
