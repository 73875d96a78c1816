"""What a CUDA graph of a batch records, a forward pass on static buffers of one shape; and its copies in and out.

A batch is padded to a size and a length; or, by engines whose kernels know where each query ends, packed: the tokens of
all queries follow each other, and only the last of them are followed by padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tabi_bench.device import Begun
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.loaded import joined, outputs_of_batch, padded
from tabi_bench.engines.network import Network

LEAST_ROOM = 64  # tokens of the smallest packed graph
SHORT = 64  # packed queries of at most so many tokens have graphs of their own: their attention reads fewer keys
FEWEST = 8  # tokens a query that a packed graph has room for


class BatchStep:
    """A forward pass on static buffers, plain code until it is captured.

    size, length: smaller batches are padded to it.

    There are two buffers on the host: while the device reads one or writes to it, the host may be at the other.
    """

    def __init__(self, network: Network, size: int, length: int, scored: bool, on: str):
        self.network, self.forward = network, network.batch
        self.size, self.length, self.scored = size, length, scored
        self.room = size * length  # tokens that run, padding with them
        start = np.zeros((4, size, length), np.int64)
        start[2, :, : max(1, length // 2)] = 1  # so that warming up runs with padding
        self._allocate(start, on)

    def _allocate(self, start: np.ndarray, on: str) -> None:
        pinned = on.startswith("cuda")
        self.hosts = [torch.zeros(start.shape, dtype=torch.int64, pin_memory=pinned) for _ in range(2)]
        self.device = torch.from_numpy(start).to(on)
        self.results: Sequence[torch.Tensor | None] = ()
        self.outputs: list[list[torch.Tensor | None]] = []  # of both turns
        self.turn = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def __call__(self) -> None:
        self.results = self._results()
        if not self.outputs:  # before it is captured: to pin memory takes a millisecond, and waits for the device
            self.outputs = [[_buffer(result) for result in self.results] for _ in range(2)]

    def _results(self) -> Sequence[torch.Tensor | None]:
        ids, types, keep, content = self.device.unbind(0)
        return self.forward(ids, types if self.network.typed else None, keep, content if self.scored else None)

    def fill(self, encodings: Sequence[Encoding]) -> None:
        """Writes a batch into the buffer whose turn it is."""
        self.hosts[self.turn].numpy()[:] = padded(encodings, self.network.pad, self.size, self.length, self.scored)

    def go(self) -> list[torch.Tensor | None]:
        """Copies in, replays the graph (without one: calls the code) and copies out, without waiting for it."""
        self.device.copy_(self.hosts[self.turn], non_blocking=True)
        (self if self.graph is None else self.graph.replay)()
        outputs = self.outputs[self.turn]
        for buffer, result in zip(outputs, self.results, strict=True):
            if buffer is not None:
                buffer.copy_(result, non_blocking=True)
        return outputs

    def begin(self, encodings: Sequence[Encoding], temperature: float) -> Begun[list[Output]]:
        """One batch. The batch before the last one must be read by now."""
        self.turn = 1 - self.turn
        self.fill(encodings)
        outputs = self.go()

        def result() -> list[Output]:
            logits, *others = (None if one is None else one.numpy()[: len(encodings)].copy() for one in outputs)
            assert logits is not None
            return outputs_of_batch(encodings, temperature, logits, *others)

        return Begun.of(result, self.device.is_cuda)


def _buffer(result: torch.Tensor | None) -> torch.Tensor | None:
    return None if result is None else torch.zeros(result.shape, dtype=torch.float32, pin_memory=result.is_cuda)


class PackedStep(BatchStep):
    """A batch without padding between its queries. room: tokens of all; longest: no query has more.

    The buffer: ids, type ids and places in the query, `room` each, then where each query starts, and the last one ends.
    """

    def __init__(self, network: Network, room: int, longest: int, on: str):
        self.network, self.room, self.longest = network, room, longest
        start = np.zeros(3 * room + room // FEWEST + 1, np.int64)
        start[3 * room + 1 :] = min(room, longest)  # so that warming up runs with one query, and padding
        self._allocate(start, on)

    def _results(self) -> Sequence[torch.Tensor | None]:
        ids, types, places = self.device[: 3 * self.room].view(3, self.room).unbind(0)
        return self.network.packed(ids, types, places, self.device[3 * self.room :], self.longest)

    def fill(self, encodings: Sequence[Encoding]) -> None:
        """See BatchStep."""
        counts = np.array([encoding.n_tokens for encoding in encodings])
        ends = counts.cumsum()
        total, starts = int(ends[-1]), ends - counts
        buffer = self.hosts[self.turn].numpy()
        ids, types, places = buffer[: 3 * self.room].reshape(3, self.room)
        ids[:total], ids[total:] = joined([encoding.row for encoding in encodings]), self.network.pad
        if self.network.typed:
            types[:total], types[total:] = joined([encoding.type_row for encoding in encodings]), 0
        places[:total] = np.arange(total) - np.repeat(starts, counts)
        places[total:] = 0
        buffer[3 * self.room :] = total
        buffer[3 * self.room :][: len(starts)] = starts


def packed_shape(counts: Sequence[int], longest: int) -> tuple[int, int]:
    """Room and longest query of the smallest packed graph that holds queries of these token counts.

    longest: tokens that the model can read. Rooms grow by a quarter of a power of two.
    """
    return _room(max(sum(counts), FEWEST * len(counts))), min(SHORT, longest) if max(counts) <= SHORT else longest


def rooms_up_to(room: int) -> list[int]:
    """All rooms, the largest first."""
    rooms = [room]
    while rooms[-1] > LEAST_ROOM:
        rooms.append(_room(rooms[-1] - rooms[-1] // 5))
    return rooms


def _room(tokens: int) -> int:
    """The next of 64, 80, 96, 112, 128, 160, ... tokens."""
    tokens = max(tokens, LEAST_ROOM)
    quarter = 1 << (tokens - 1).bit_length() - 3
    return -(-tokens // quarter) * quarter
