"""One query at a time: the load generator. It knows neither models nor labels.

All systems answer the same queries in the same order, interleaved in blocks (A B C, then C B A, ..., drawn), so that
what the machine does meanwhile falls on all of them alike. The clock runs from raw text to answer on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns

import numpy as np
import pandas as pd

from tabi_bench import device
from tabi_bench.config import SingleStreamConfig
from tabi_bench.progress import progress
from tabi_bench.serving.scenario import Expected, Scenario, Serving, Systems, by_length, distinct
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import Answer, System
from tabi_bench.tasks.base import Query


def served_order(n: int, min_queries: int, seed: int) -> np.ndarray:
    """(M,) rows to serve: whole passes over 0..n-1, each in a seeded order of its own, until M >= min_queries."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(n) for _ in range(max(1, -(-min_queries // n)))])


def turns(names: Sequence[str], block: int, seed: int) -> list[str]:
    """The order of the systems in a block, drawn anew for each: every system follows every other equally often.

    Turns that merely rotate leave most neighbours as they are, so that what one system leaves in the caches would fall
    on the same other one.
    """
    order = np.random.default_rng([seed, block]).permutation(len(names))
    return [names[k] for k in order]


def serve(
    systems: Mapping[str, Sequence[System]], queries: list[Query], scenario: SingleStreamConfig, seed: int, on: str
) -> dict[str, pd.DataFrame]:
    """Serves `queries` to every method; one trace per method, one row per served query (`trace.trace_of`).

    systems: by method, the system that answers each row; on: the device whose energy is counted.
    """
    order = served_order(len(queries), scenario.min_queries, seed)
    _warm_up(systems, queries, scenario.warmup)
    names = list(systems)
    served: dict[str, list[Served]] = {name: [] for name in names}
    bar = progress(total=len(order) * len(names), desc="serving", unit="query")
    with bar, device.old_objects_frozen():
        for number, start in enumerate(range(0, len(order), scenario.block)):
            rows = order[start : start + scenario.block].tolist()
            for name in turns(names, number, seed):
                timed, joules = _serve_block([(systems[name][row].answer, queries[row]) for row in rows], on)
                energy = joules / len(rows)
                served[name] += [Served(number, row, ns, energy, a) for row, (ns, a) in zip(rows, timed, strict=True)]
                bar.update(len(rows))
    return {name: trace_of(served[name]) for name in names}


class SingleStream(Scenario):
    """One query at a time, the next when the last is answered."""

    def serve(self, systems: Systems, queries: list[Query], expected: Expected) -> Serving:
        """See Scenario."""
        return Serving(serve(systems, queries, self.config, self.seed, self.on))


def _warm_up(systems: Mapping[str, Sequence[System]], queries: list[Query], count: int) -> None:
    """Every length comes up before the clock counts: queries spread evenly over the range of text lengths."""
    ordered = by_length(queries)
    picks = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int)
    for system in distinct(systems):
        for pick in picks:
            system.answer(ordered[pick])


def _serve_block(calls: list[tuple], on: str) -> tuple[list[tuple[int, Answer]], float]:
    """(nanoseconds, answer) of each (answer, query), and the joules of the block. Garbage collection waits outside."""
    before = device.joules(on)
    timed = []
    with device.quiet_collector():
        for answer, query in calls:
            start = perf_counter_ns()
            result = answer(query)
            timed.append((perf_counter_ns() - start, result))
    return timed, device.difference(before, device.joules(on))
