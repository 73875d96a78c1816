"""The table that reads traces: the distribution of latencies."""

from __future__ import annotations

import numpy as np

from tabi_bench.evaluation.statistics import BLOCKS, P99_QUERIES, percentile
from tabi_bench.report.cells import Row, Table, make_table, number
from tabi_bench.report.reading import Results, Run, Setting, newest, sessions
from tabi_bench.report.side_by_side import MARGIN, MEAN, SYSTEM, TASK, in_order, line, runs_of

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def tail(results: Results, setting: Setting) -> Table | None:
    """Percentiles, from the traces."""
    chosen = newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc")))
    lines = [{**line(run, session), **_percentiles(run)} for session in chosen for run in session.values()]
    columns = [TASK, MARGIN, SYSTEM, MEAN, *(number(p, f"{p} ms", 3) for p in QUANTILES)]
    columns += [number("queries", "queries", 0), number("distinct", "distinct", 0), number("blocks", "blocks", 0)]
    note = (
        f"95 % intervals by a bootstrap of whole blocks, from {BLOCKS} blocks on; no p99 below {P99_QUERIES} queries. "
        "The paper calls Tabi's tail comparable."
    )
    return make_table("tail", "Latency distribution", sorted(lines, key=in_order), columns, runs_of(chosen), [note])


def _percentiles(run: Run) -> Row:
    trace = run.whole
    if trace is None:
        return {}
    ms, rows, blocks = (trace[column].to_numpy() for column in ("latency_ms", "row", "block"))
    cells: Row = {"queries": len(ms), "distinct": len(np.unique(rows)), "blocks": len(np.unique(blocks))}
    for key, q in QUANTILES.items():
        p = percentile(ms, q, blocks, rows)
        cells |= {key: p.value if p.enough else None, f"{key}_low": p.low, f"{key}_high": p.high}
    return cells


BUILDERS = (tail,)
