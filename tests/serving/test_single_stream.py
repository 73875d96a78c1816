"""The clock and the order of the load generator, with systems that only sleep."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tabi_bench.config import read_file
from tabi_bench.serving.single_stream import serve, served_order, turns
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


def session(seconds=(0.001, 0.003), n=8, by_row=None, **scenario):
    """Traces, and who was asked what. by_row: the sleepers' names of each row by method; default: one for all rows."""
    log: list = []
    sleepers = {name: Sleeper(s, log, name) for name, s in zip("AB", seconds, strict=True)}
    systems = {
        name: [sleepers[one] for one in names] for name, names in (by_row or {"A": "A" * n, "B": "B" * n}).items()
    }
    queries = [Query(row, ("some text",)) for row in range(n)]
    options = read_file("scenario", "single_stream", **{"min_queries": n, "block": 4, "warmup": 0, **scenario})
    return serve(systems, queries, options, 0, "cpu"), log


def test_measured_latency_is_the_time_that_the_system_took():
    traces, _ = session()
    assert (traces["A"].latency_ms >= 1).all() and (traces["B"].latency_ms >= 3).all()
    assert traces["A"].latency_ms.min() < 3, "another system's time must not count"


def test_same_queries_same_order_interleaved_in_blocks_with_drawn_turns():
    traces, log = session()
    assert (traces["A"].row == traces["B"].row).all()
    expected = "".join(4 * name for block in (0, 1) for name in turns("AB", block, 0))
    assert "".join(name for name, _ in log) == expected
    assert traces["A"].block.tolist() == [0] * 4 + [1] * 4


def test_every_system_follows_every_other_about_equally_often():
    served = [name for block in range(3000) for name in turns("ABCD", block, 7)]
    follows = Counter(pairwise(served))
    within = [count for (one, other), count in follows.items() if one != other]
    assert len(within) == 12 and max(within) < 1.2 * min(within)
    assert turns("ABCD", 5, 7) == turns("ABCD", 5, 7) and sorted(turns("ABCD", 5, 7)) == list("ABCD")


def test_every_row_is_answered_by_the_system_of_its_fold():
    traces, log = session(by_row={"folded": "AABBAABB", "one": "AAAAAAAA"})
    folded = traces["folded"].set_index("row").latency_ms
    assert (folded[[2, 3, 6, 7]] >= 3).all() and folded[[0, 1, 4, 5]].min() < 3
    assert sorted(row for name, row in log if name == "B") == [2, 3, 6, 7]


def test_warm_up_is_not_in_the_trace():
    traces, log = session(warmup=3)
    assert len(log) == 2 * (3 + 8) and len(traces["A"]) == 8


def test_a_system_that_two_methods_share_is_warmed_up_once():
    _, log = session(by_row={"folded": "AABBAABB", "one": "AAAAAAAA"}, warmup=3)
    assert len(log) == 2 * 3 + 2 * 8 and "".join(name for name, _ in log[:6]) == "AAABBB"


@pytest.mark.parametrize(("n", "least", "passes"), [(10, 1, 1), (10, 10, 1), (10, 11, 2), (10, 25, 3), (3, 1000, 334)])
def test_rows_are_served_in_whole_passes(n, least, passes):
    order = served_order(n, least, seed=3)
    assert len(order) == passes * n >= least
    assert (np.sort(order.reshape(passes, n), axis=1) == np.arange(n)).all()


def test_each_pass_has_an_order_of_its_own_that_the_seed_decides():
    first, second = served_order(50, 100, seed=3).reshape(2, 50)
    assert (first != second).any() and (served_order(50, 100, seed=3)[50:] == second).all()
    assert (served_order(50, 50, seed=4) != first).any()


def test_the_first_pass_is_marked():
    traces, _ = session(min_queries=12)
    assert len(traces["A"]) == 16 and traces["A"].first_pass.tolist() == [True] * 8 + [False] * 8
    assert sorted(traces["A"].row[traces["A"].first_pass]) == list(range(8))
