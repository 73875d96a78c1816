"""Records, plans and traces by hand, as a session writes them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tabi_bench.cascade.point import Point
from tabi_bench.records.record import Record
from tabi_bench.system import FoldPlan, Plan

KEY = "0123abcd"
SESSION = f"{KEY}-20260101T000000"


def record(**changes) -> Record:
    fields = dict(task="sst2", method="tabi", source="generated", zoo="tiny", engine="eager", device="cpu")
    fields |= dict(run_id="r", session_id=SESSION, latency_ms={"mean": 1.0, "n": 4})
    return Record(**{**fields, **changes})


def plan(method: str = "tabi", task: str = "sst2") -> Plan:
    point = Point.of_one("a").plain()
    folds = [FoldPlan([0, 1], [2, 3], 0.9, point), FoldPlan([2, 3], [0, 1], 0.9, point)]
    return Plan(method, task, folds, 0, {"data": "d"})


def trace(mean_ms: float = 1.0, rows: int = 4) -> pd.DataFrame:
    return pd.DataFrame({"row": np.arange(rows), "latency_ms": mean_ms})
