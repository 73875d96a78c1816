"""The trace: a row per served query."""

from __future__ import annotations

import numpy as np

from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import Answer


def test_a_trace_by_hand():
    early = Answer(1, 0, stages_ns={"tokenise": 1_000_000, "level1": 2_000_000})
    routed = Answer(2, 1, 9, 6, 1, True, {"tokenise": 1_000_000, "level1": 2_000_000, "level2": 4_000_000})
    served = [Served(0, 5, 3_500_000, 0.5, early), Served(0, 2, 8_000_000, 0.5, routed), Served(1, 5, 1, np.nan, early)]
    trace = trace_of(served)
    assert (
        trace.position.tolist() == [0, 1, 2] and trace.row.tolist() == [5, 2, 5] and trace.block.tolist() == [0, 0, 1]
    )
    assert trace.first_pass.tolist() == [True, True, False] and trace.latency_ms.tolist() == [3.5, 8.0, 1e-6]
    assert trace[["label", "level", "words", "words_kept", "failures", "truncated"]].iloc[1].tolist() == [
        2, 1, 9, 6, 1, True,
    ]  # fmt: skip
    assert trace.stage_level2_ms.tolist() == [0, 4, 0] and trace.stage_level1_ms.tolist() == [2, 2, 2]
    assert trace.joules.tolist()[:2] == [0.5, 0.5] and np.isnan(trace.joules[2])
