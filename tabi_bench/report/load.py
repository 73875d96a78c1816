"""Tables of what was measured under load and offline: goodput, latency at a rate, throughput."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from tabi_bench.names import printed
from tabi_bench.report.cells import Column, Row, Table, make_table, number, percent
from tabi_bench.report.fields import row
from tabi_bench.report.reading import Results, Run, Setting, newest, sessions
from tabi_bench.report.side_by_side import SYSTEM, TASK, runs_of

WHO = [TASK, SYSTEM]
TRUSTED_S = 30  # of arrivals in a run that goodput is found by
SPENT = [number("device_ms", "device ms / query", 3), number("joules", "J / query", 3), number("idle_w", "idle W", 0)]


def runs_under(results: Results, setting: Setting, label: str) -> list[Run]:
    """Of the newest session of each task; an overloaded system, which has no latencies, has its rates."""
    return runs_of(newest(sessions(results.pick(setting, label))))


def facts_of(run: Run) -> dict[str, Any]:
    return run.record.details.get("load") or {}


def _line(run: Run) -> Row:
    """What the tables show of a run."""
    facts = facts_of(run)
    cells: Row = {**row(run), "system": printed(run.record.method), "qps": run.record.throughput_qps}
    cells |= {"device_ms": run.record.cost.get("device_seconds_per_1k"), "joules": cells["joules_per_query"]}
    return cells | {key: facts.get(key) for key in ("busy_share", "forward_share", "mean_batch", "idle_w")}


def _ratios(lines: list[Row], key: str) -> list[Row]:
    """Adds `ratio`: to the first system of the task, the reference."""
    first: dict[str, float] = {}
    for line in lines:
        value = line[key] or np.nan
        line["ratio"] = value / first.setdefault(line["task"], value)
    return lines


def _goodput(facts: dict[str, Any]) -> Row:
    """Of one run, with its range over arrival seeds; nothing where it was not asked for."""
    if "goodput" not in facts:
        return {"goodput": np.nan}
    passed = [seed["passed"] or 0.0 for seed in facts["goodput"]["seeds"]]
    return {"goodput": facts["goodput"]["qps"], "goodput_low": min(passed), "goodput_high": max(passed)}


def load(results: Results, setting: Setting) -> Table | None:
    """Latency of every system at the session's rate, and its goodput where that was asked for."""
    runs = [run for run in runs_under(results, setting, "load") if facts_of(run)]
    lines = []
    for run in runs:
        facts = facts_of(run)
        cells = _line(run) | _goodput(facts) | {key: facts.get(key) for key in ("rate", "slo_ms")}
        if "goodput" in facts:
            cells["status"] = "ok"  # overloaded at the session's rate, which a note says, it still has a goodput
        p99 = facts.get("p99") or {}
        lines.append(cells | {"p99": p99.get("value"), "p99_low": p99.get("low"), "p99_high": p99.get("high")})
    columns: list[Column] = [
        *WHO,
        percent("score", "score %", 1),
        number("goodput", "goodput / s [seeds]", 0),
        number("ratio", "x INFaaS", 2),
    ]
    columns += [number("slo_ms", "bound ms", 2), number("rate", "at rate", 0), number("p99", "p99 ms", 2)]
    columns += [percent("busy_share", "busy %", 0), number("mean_batch", "mean batch", 1), *SPENT]
    return make_table("load", "Under load", _ratios(lines, "goodput"), columns, runs, _notes(runs))


def _notes(runs: list[Run]) -> list[str]:
    """How far goodput can be trusted."""
    lengths = [facts_of(run)["goodput"]["seconds"] for run in runs if "goodput" in facts_of(run)]
    if not lengths:
        return ["At the rate: means over runs, with 95 % intervals. No goodput was asked for."]
    seconds = min(lengths)
    note = (
        "Goodput: the highest rate whose p99 keeps the bound, median over arrival seeds, their range in brackets; it "
        f"held for {seconds:g} s."
    )
    if seconds < TRUSTED_S:
        note += f" Slowly growing queues pass short runs: trust {TRUSTED_S} s and more."
    return [note]


def offline(results: Results, setting: Setting) -> Table | None:
    """Throughput with all queries there at once, with the interval over its blocks."""
    runs = [run for run in runs_under(results, setting, "offline") if run.record.status == "ok"]
    ends = {"qps_low": "mean_high", "qps_high": "mean_low"}
    lines = [
        _line(run) | {end: 1e3 / cast(float, run.record.latency_ms.get(key) or np.nan) for end, key in ends.items()}
        for run in runs
    ]
    columns = [*WHO, percent("score", "score %", 1), number("qps", "queries / s", 0), number("ratio", "x INFaaS", 2)]
    columns += [percent("forward_share", "in forward passes %", 0), number("mean_batch", "mean batch", 1), *SPENT]
    return make_table("offline", "Offline", _ratios(lines, "qps"), columns, runs, [])


TABLES = (load, offline)
