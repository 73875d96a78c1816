"""All queries are there at once: batches sorted by length, one stage after the other. What counts is throughput."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tabi_bench import device
from tabi_bench.progress import progress
from tabi_bench.serving.load import busy_shares
from tabi_bench.serving.queues import Limits
from tabi_bench.serving.scenario import Expected, Scenario, Serving, Systems, by_length, serve_stream, warm_up
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import System
from tabi_bench.tasks.base import Query


class Offline(Scenario):
    """A block is one pass over all queries. Its time is spread evenly over them: latency_ms is the pass's time per
    query, and its inverse the throughput."""

    def serve(self, systems: Systems, queries: list[Query], expected: Expected) -> Serving:
        """See Scenario. Systems take turns, pass by pass; the first to begin changes."""
        warm_up(systems, queries, self.config.max_batch)
        names = list(systems)
        served: dict[str, list[Served]] = {name: [] for name in names}
        facts: dict[str, dict] = {}
        idle = device.idle_watts(self.on)
        self.bar = progress(total=self.config.passes * len(names), desc="serving", unit="pass")
        with self.bar, device.old_objects_frozen():
            for number in range(self.config.passes):
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    block, busy = self._pass(systems[name], queries, number)
                    self.bar.update()
                    served[name] += block
                    facts[name] = busy | {"idle_w": idle}
        return Serving({name: trace_of(rows) for name, rows in served.items()}, facts=facts)

    def _pass(self, system_of: Sequence[System], queries: list[Query], number: int) -> tuple[list[Served], dict]:
        ordered = by_length(queries)
        calls = [(system_of[query.id], query) for query in ordered]
        limits = Limits(self.config.max_batch, policy="small_first")
        before = device.joules(self.on)
        result = serve_stream(calls, np.zeros(len(calls), np.int64), limits, self.bar)
        joules = device.difference(before, device.joules(self.on)) / len(calls)
        taken = int(result.finished_ns.max() - result.started_ns)
        block = [
            Served(number, query.id, taken // len(calls), joules, answer)
            for query, answer in zip(ordered, result.answered, strict=True)
        ]
        return block, {"max_batch": self.config.max_batch, **busy_shares(result, taken)}
