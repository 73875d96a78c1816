"""What every scenario is to a session: it serves the queries, and says what became of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench import device
from tabi_bench.config import ScenarioConfig
from tabi_bench.progress import Watched
from tabi_bench.serving.clock import WallClock
from tabi_bench.serving.queues import Limits, Server, Stream
from tabi_bench.system import Item, System
from tabi_bench.tasks.base import Query

Systems = Mapping[str, Sequence[System]]  # by method, the system that answers each row


@dataclass(frozen=True)
class Expected:
    """What the profile predicts for the session's reference: mean milliseconds of a query alone, and of the device's
    time per query as the scenario serves."""

    alone_ms: float
    device_ms: float


@dataclass
class Serving:
    """traces: by method, a row per served query; refused: why a method has none; facts: by method, for the record."""

    traces: dict[str, pd.DataFrame]
    refused: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Scenario(ABC):
    """How queries arrive. on: the device whose energy is counted."""

    def __init__(self, config: ScenarioConfig, seed: int, on: str) -> None:
        self.config: Any = config
        self.seed, self.on = seed, on

    @abstractmethod
    def serve(self, systems: Systems, queries: list[Query], expected: Expected) -> Serving:
        """Serves `queries` to every method. Raises ValueError for settings that the models rule out."""


def serve_stream(calls: Sequence[tuple[System, Query]], due_ns: np.ndarray, limits: Limits, bar: Watched) -> Stream:
    """Serves arriving queries on the wall clock; `bar` sees every batch as a part of its step."""
    server = Server(calls, due_ns, WallClock(), limits)
    bar.within = lambda: server.result.batches
    with device.quiet_collector():
        return server.serve()


def by_length(queries: Sequence[Query]) -> list[Query]:
    """Shortest text first."""
    return sorted(queries, key=lambda query: sum(map(len, query.texts)))


def distinct(systems: Systems) -> list[System]:
    """Each system once: rows of a fold share one."""
    return list({id(system): system for by_row in systems.values() for system in by_row}.values())


def turns(names: Sequence[str], number: int) -> list[str]:
    """The order of the systems in round `number`: each begins in its turn."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def parts(systems: Systems) -> list[np.ndarray]:
    """The rows of each fold, by the systems that answer them; one part where every method has one plan for all.

    A plan that is deployed is alone: were two served at once, their queries would not share batches.
    """
    answered_by = np.array([[id(system) for system in by_row] for by_row in systems.values()]).T
    _, first, part = np.unique(answered_by, axis=0, return_index=True, return_inverse=True)
    return [np.flatnonzero(part.ravel() == number) for number in np.argsort(first)]


def warm_up(systems: Systems, queries: list[Query], max_batch: int, windows: int = 12) -> None:
    """Every stage at every power of two up to `max_batch`, on queries spread over the range of lengths.

    All queries are tokenised before: words that are met for the first time would slow the system that begins.
    """
    ordered = by_length(queries)
    for encode in {encode for system in distinct(systems) for encode in system.encoders}:
        for query in queries:
            encode(query.texts)
    sizes = sorted({min(1 << k, max_batch) for k in range(max_batch.bit_length() + 1)})
    for system in distinct(systems):
        for size in sizes:
            last = max(0, len(ordered) - size)
            for start in sorted({round(last * k / (windows - 1)) for k in range(windows)}):
                for stage in range(system.stages):
                    items = [Item(query) for query in ordered[start : start + size]]
                    for item in items:
                        item.stage = stage
                    system.begin(stage, items).result()
