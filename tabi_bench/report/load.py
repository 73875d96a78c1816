"""Tables and figures of what was measured under load and offline: goodput, latency against rate, throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

from tabi_bench.names import printed
from tabi_bench.report.cells import Column, Row, Table, make_table, number, percent, provenance
from tabi_bench.report.drawing import Drawing, by_task, look, whiskers
from tabi_bench.report.fields import row
from tabi_bench.report.reading import Results, Run, Setting, newest, sessions
from tabi_bench.report.side_by_side import SYSTEM, TASK, runs_of

if TYPE_CHECKING:
    from tabi_bench.report.tables import Tables

WHO = [TASK, SYSTEM]
TRUSTED_S = 30  # of arrivals in a run that goodput is found by
THOUSANDS = EngFormatter(sep="")  # 50k
SPENT = [number("device_ms", "device ms / query", 3), number("joules", "J / query", 3), number("idle_w", "idle W", 0)]


def _runs(results: Results, setting: Setting, label: str) -> list[Run]:
    """Of the newest session of each task; an overloaded system, which has no latencies, has its rates."""
    return runs_of(newest(sessions(results.pick(setting, label))))


def _facts(run: Run) -> dict[str, Any]:
    return run.record.details.get("load") or {}


def _line(run: Run) -> Row:
    """What the tables show of a run."""
    facts = _facts(run)
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


def load(results: Results, setting: Setting) -> Table | None:
    """Goodput of every system, and its latency at the session's rate."""
    runs = [run for run in _runs(results, setting, "load") if "goodput" in _facts(run)]
    lines = []
    for run in runs:
        facts, goodput = _facts(run), _facts(run)["goodput"]
        passed = [seed["passed"] or 0.0 for seed in goodput["seeds"]]
        cells = _line(run) | {"goodput": goodput["qps"], "goodput_low": min(passed), "goodput_high": max(passed)}
        cells |= {key: facts.get(key) for key in ("rate", "slo_ms")}
        p99 = facts.get("p99") or {}
        lines.append(cells | {"p99": p99.get("value"), "p99_low": p99.get("low"), "p99_high": p99.get("high")})
    columns: list[Column] = [
        *WHO,
        percent("score", "score %", 1),
        number("goodput", "goodput, queries / s [seeds]", 0),
        number("ratio", "x INFaaS", 2),
    ]
    columns += [number("slo_ms", "bound, ms", 2), number("rate", "at rate", 0), number("p99", "p99 ms", 2)]
    columns += [percent("busy_share", "busy %", 0), number("mean_batch", "mean batch", 1), *SPENT]
    seconds = min((_facts(run)["goodput"]["seconds"] for run in runs), default=TRUSTED_S)
    note = (
        "Goodput: the highest rate whose p99 keeps the bound, median over arrival seeds, their range in brackets; it "
        f"held for {seconds:g} s."
    )
    if seconds < TRUSTED_S:
        note += f" Slowly growing queues pass short runs: trust {TRUSTED_S} s and more."
    return make_table("load", "Under load", _ratios(lines, "goodput"), columns, runs, [note])


def offline(results: Results, setting: Setting) -> Table | None:
    """Throughput with all queries there at once."""
    runs = [run for run in _runs(results, setting, "offline") if run.record.status == "ok"]
    columns = [*WHO, percent("score", "score %", 1), number("qps", "queries / s", 0), number("ratio", "x INFaaS", 2)]
    columns += [percent("forward_share", "in forward passes %", 0), number("mean_batch", "mean batch", 1), *SPENT]
    return make_table("offline", "Offline", _ratios([_line(run) for run in runs], "qps"), columns, runs, [])


TABLES = (load, offline)


# --- figures ----------------------------------------------------------------------------------------------------------


def load_curve(tables: Tables) -> Drawing | None:
    """p50 and p99 of every system at the same rates; a rate that overloads a system ends its line, and is marked."""
    runs = [run for run in _runs(tables.results, tables.setting, "load") if _facts(run).get("curve")]
    points = [
        {"task": run.record.task, "system": printed(run.record.method), "slo_ms": _facts(run)["slo_ms"], **point}
        for run in runs
        for point in _facts(run)["curve"]
    ]
    if all(point["overloaded"] for point in points):
        return None

    def plot(panel: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for axes, key in zip(panel, ("p99", "p50"), strict=True):
            for system, line in rows.groupby("system", sort=False):
                color, marker, style = look(str(system))
                axes.plot(line.rate, line[key], marker + style, color=color, label=system, markersize=3)
                over = line.rate[line.overloaded]
                axes.plot(over, [0.95] * len(over), "x", color=color, transform=axes.get_xaxis_transform())
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
            axes.yaxis.set_major_formatter(FuncFormatter("{:g}".format))
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(THOUSANDS)
        panel[0].axhline(rows.slo_ms.iloc[0], color="0.4", linewidth=0.6, label="bound of p99")

    labels = ("queries / s", "p99, ms", "p50, ms")
    note = "A cross marks a rate that overloads the system: its queue grows without bound, and it has no latency."
    kept = {"provenance": provenance(runs), "note": note}
    return by_task("load_curve", "Latency against rate", pd.DataFrame(points), plot, labels, **kept)


def goodput(tables: Tables) -> Drawing | None:
    """Goodput of every system as bars; whiskers are the range over arrival seeds."""
    table = tables.get("load")
    if table is None:
        return None

    def plot(panel: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        axes = panel[0]
        height, reach = whiskers(rows, "goodput")
        axes.bar(rows.system, height, yerr=reach, color=[look(system)[0] for system in rows.system])
        axes.tick_params(axis="x", labelrotation=30)
        axes.yaxis.set_major_formatter(THOUSANDS)

    return by_task("goodput", "Goodput", table.data, plot, ("", "queries / s"), provenance=table.provenance)


def throughput(tables: Tables) -> Drawing | None:
    """Offline throughput against score."""
    table = tables.get("offline")
    if table is None:
        return None

    def plot(panel: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for system, line in rows.groupby("system", sort=False):
            color, marker, _ = look(str(system))
            height, reach = whiskers(line, "score", 100)
            panel[0].errorbar(line.qps, height, reach, fmt=marker, color=color, label=system)
        panel[0].xaxis.set_major_formatter(THOUSANDS)

    labels = ("queries / s", "score, %")
    return by_task("throughput", "Throughput offline", table.data, plot, labels, provenance=table.provenance)


FIGURES = (load_curve, goodput, throughput)
