"""One query at a time: the load generator. It knows neither models nor labels.

All systems answer the same queries in the same order, interleaved in blocks (A B C, then B C A, ...), so that what the
machine does meanwhile falls on all of them alike. The clock runs from raw text to answer on the host.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import perf_counter_ns

import numpy as np
import pandas as pd
from tqdm import tqdm

from tabi_bench import device
from tabi_bench.config import ScenarioConfig
from tabi_bench.system import Answer, System
from tabi_bench.tasks.base import Query

log = logging.getLogger(__name__)


def served_order(rows: np.ndarray, min_queries: int, seed: int) -> np.ndarray:
    """(M,) rows to serve: one full pass in seeded order, then topped up with replacement to `min_queries`."""
    random = np.random.default_rng(seed)
    first = random.permutation(rows)
    return np.concatenate([first, random.choice(rows, max(0, min_queries - len(rows)))])


def serve(
    systems: Mapping[str, System], queries: list[Query], rows: np.ndarray, scenario: ScenarioConfig, seed: int, on: str
) -> dict[str, pd.DataFrame]:
    """Serves `rows` of `queries` to every system; one trace per system, one row per served query.

    Columns: position, row, block, first_pass, latency_ms, label, level, words, words_kept, failures, truncated, joules
    (of the whole block, spread over its queries; NaN without a counter), and a `stage_<name>_ms` per stage.
    """
    order = served_order(rows, scenario.min_queries, seed)
    _warm_up(systems, queries, order, scenario.warmup)
    names = list(systems)
    answered: dict[str, list[tuple]] = {name: [] for name in names}
    bar = tqdm(total=len(order) * len(names), desc="serving", unit="query", disable=None, leave=False)
    with bar, device.old_objects_frozen():
        for number, start in enumerate(range(0, len(order), scenario.block)):
            block = order[start : start + scenario.block]
            batch = [queries[row] for row in block]
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                timed, energy = _serve_block(systems[name], batch, on)
                answered[name] += [(number, energy / len(batch), *pair) for pair in timed]
                bar.update(len(batch))
    return {name: _trace(order, len(rows), answered[name]) for name in names}


def _warm_up(systems: Mapping[str, System], queries: list[Query], order: np.ndarray, count: int) -> None:
    """Every length comes up before the clock counts: queries spread evenly over the range of text lengths."""
    by_length = sorted(order.tolist(), key=lambda row: sum(map(len, queries[row].texts)))
    picks = np.linspace(0, len(by_length) - 1, min(count, len(by_length))).astype(int)
    for system in systems.values():
        for pick in picks:
            system.answer(queries[by_length[pick]])


def _serve_block(system: System, batch: list[Query], on: str) -> tuple[list[tuple[int, Answer]], float]:
    """(nanoseconds, answer) of each query, and the joules of the block. Garbage collection waits outside."""
    answer = system.answer
    before = device.joules(on)
    timed = []
    with device.quiet_collector():
        for query in batch:
            start = perf_counter_ns()
            result = answer(query)
            timed.append((perf_counter_ns() - start, result))
    after = device.joules(on)
    return timed, float("nan") if before is None or after is None else after - before


def _trace(order: np.ndarray, first_pass: int, answered: list[tuple]) -> pd.DataFrame:
    blocks, joules, nanoseconds, answers = zip(*answered, strict=True)
    stages = sorted({stage for answer in answers for stage in answer.stages_ns})
    columns = {
        "position": np.arange(len(order)),
        "row": order,
        "block": blocks,
        "first_pass": np.arange(len(order)) < first_pass,
        "latency_ms": np.array(nanoseconds) / 1e6,
        "joules": joules,
    }
    for name in ("label", "level", "words", "words_kept", "failures", "truncated"):
        columns[name] = [getattr(answer, name) for answer in answers]
    for stage in stages:
        columns[f"stage_{stage}_ms"] = [answer.stages_ns.get(stage, 0) / 1e6 for answer in answers]
    return pd.DataFrame(columns)
