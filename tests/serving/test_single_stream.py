"""The clock and the order of the load generator, with systems that only sleep."""

from __future__ import annotations

import time

import numpy as np

from tabi_bench.config import read_file
from tabi_bench.serving.single_stream import serve, served_order
from tabi_bench.system import Answer
from tabi_bench.tasks.base import Query


class Sleeper:
    """Answers after a fixed time and notes what it was asked."""

    def __init__(self, seconds: float, log: list, name: str):
        self.seconds, self.log, self.name = seconds, log, name

    def answer(self, query: Query) -> Answer:
        self.log.append((self.name, query.id))
        time.sleep(self.seconds)
        return Answer(label=query.id % 2, level=0, stages_ns={"level1": 5})


def session(seconds=(0.001, 0.003), n=8, **scenario):
    log: list = []
    systems = {name: Sleeper(s, log, name) for name, s in zip("AB", seconds, strict=True)}
    queries = [Query(row, ("some text",)) for row in range(n)]
    options = read_file("scenario", "single_stream", **{"min_queries": n, "block": 4, "warmup": 0, **scenario})
    return serve(systems, queries, np.arange(n), options, 0, "cpu"), log


def test_measured_latency_is_the_time_that_the_system_took():
    traces, _ = session()
    assert (traces["A"].latency_ms >= 1).all() and (traces["B"].latency_ms >= 3).all()
    assert traces["A"].latency_ms.min() < 3, "another system's time must not count"


def test_same_queries_same_order_interleaved_in_blocks_with_rotating_turns():
    traces, log = session()
    assert (traces["A"].row == traces["B"].row).all()
    assert "".join(name for name, _ in log) == "AAAABBBB" + "BBBBAAAA"


def test_warm_up_is_not_in_the_trace():
    traces, log = session(warmup=3)
    assert len(log) == 2 * (3 + 8) and len(traces["A"]) == 8


def test_one_full_pass_then_topped_up():
    order = served_order(np.arange(10), 25, seed=3)
    assert len(order) == 25 and sorted(order[:10]) == list(range(10))
    assert set(order[10:]) <= set(range(10))
    traces, _ = session(n=8, min_queries=12)
    assert traces["A"].first_pass.sum() == 8 and len(traces["A"]) == 12


def test_stages_become_columns():
    traces, _ = session()
    assert np.allclose(traces["A"].stage_level1_ms, 5e-6)
