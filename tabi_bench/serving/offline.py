"""All queries are there at once: batches sorted by length, one stage after the other. What counts is throughput."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tabi_bench import device
from tabi_bench.progress import progress
from tabi_bench.serving.load import busy_shares
from tabi_bench.serving.queues import Limits, Stream
from tabi_bench.serving.scenario import Expected, Scenario, Serving, Systems, by_length, serve_stream, turns, warm_up
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import System
from tabi_bench.tasks.base import Query


class Offline(Scenario):
    """A block is a pass over all queries, repeated until `least_seconds` are over. Its time is spread evenly over them:
    latency_ms is the block's time per query, and its inverse the throughput."""

    def serve(self, systems: Systems, queries: list[Query], expected: Expected) -> Serving:
        """See Scenario. Systems take turns, block by block; the first to begin changes."""
        warm_up(systems, queries, self.config.max_batch)
        names = list(systems)
        served: dict[str, list[Served]] = {name: [] for name in names}
        facts: dict[str, dict] = {}
        idle = device.idle_watts(self.on)
        self.bar = progress(total=self.config.passes * len(names) + 1, desc="serving", unit="block")
        with self.bar, device.old_objects_frozen():
            taken = self._pass(systems[names[0]], by_length(queries))[1]
            self.bar.update()
            repeats = max(1, math.ceil(self.config.least_seconds * 1e9 / taken))
            for number in range(self.config.passes):
                for name in turns(names, number):
                    block, busy = self._block(systems[name], queries, number, repeats)
                    self.bar.update()
                    served[name] += block
                    facts[name] = busy | {"idle_w": idle, "passes_a_block": repeats}
        return Serving({name: trace_of(rows) for name, rows in served.items()}, facts=facts)

    def _block(
        self, system_of: Sequence[System], queries: list[Query], number: int, repeats: int
    ) -> tuple[list[Served], dict]:
        """Some passes, one after the other: their mean time and energy, the answers and busy shares of the last."""
        ordered = by_length(queries)
        total, before = 0, device.joules(self.on)
        for _ in range(repeats):
            result, taken = self._pass(system_of, ordered)
            total += taken
        count = repeats * len(ordered)
        joules = device.difference(before, device.joules(self.on)) / count
        block = [
            Served(number, query.id, total // count, joules, answer)
            for query, answer in zip(ordered, result.answered, strict=True)
        ]
        return block, {"max_batch": self.config.max_batch, **busy_shares(result, taken)}

    def _pass(self, system_of: Sequence[System], ordered: list[Query]) -> tuple[Stream, int]:
        """One pass and its nanoseconds."""
        calls = [(system_of[query.id], query) for query in ordered]
        limits = Limits(self.config.max_batch, policy="small_first")
        result = serve_stream(calls, np.zeros(len(calls), np.int64), limits, self.bar)
        return result, int(result.finished_ns.max() - result.started_ns)
