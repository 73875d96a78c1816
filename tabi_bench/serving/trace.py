"""What was served, a row per query: the trace."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from tabi_bench.system import Answer

ANSWERED = ("label", "level", "words", "words_kept", "failures", "truncated")


class Served(NamedTuple):
    """One answered query. joules: of its block, spread over its queries; NaN without a counter."""

    block: int
    row: int
    latency_ns: int
    joules: float
    answer: Answer


def trace_of(served: list[Served]) -> pd.DataFrame:
    """One row per served query, in served order.

    Columns: position, row, block, first_pass (the first time that its row is served), latency_ms, label, level, words,
    words_kept, failures, truncated, joules, and a `stage_<name>_ms` per stage.
    """
    blocks, rows, nanoseconds, joules, answers = zip(*served, strict=True)
    stages = sorted({stage for answer in answers for stage in answer.stages_ns})
    columns = {
        "position": np.arange(len(served)),
        "row": rows,
        "block": blocks,
        "first_pass": ~pd.Series(rows).duplicated(),
        "latency_ms": np.array(nanoseconds) / 1e6,
        "joules": joules,
    }
    for name in ANSWERED:
        columns[name] = [getattr(answer, name) for answer in answers]
    for stage in stages:
        columns[f"stage_{stage}_ms"] = [answer.stages_ns.get(stage, 0) / 1e6 for answer in answers]
    return pd.DataFrame(columns)
