"""Tables that read traces: the distribution of latencies, and what pruning does to the large model's time."""

from __future__ import annotations

import numpy as np

from tabi_bench import names
from tabi_bench.evaluation.statistics import BLOCKS, P99_QUERIES, percentile
from tabi_bench.report import paper
from tabi_bench.report.cells import Row, Table, make_table, number, percent, word
from tabi_bench.report.reading import Results, Run, Setting, newest, sessions
from tabi_bench.report.side_by_side import (
    AGAINST,
    MARGIN,
    MEAN,
    OUTCOME,
    SCORE,
    SYSTEM,
    TASK,
    in_order,
    line,
    runs_of,
)

FEW = 30  # re-routed queries below which no time of theirs is printed
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


def pruning(results: Results, setting: Setting) -> Table | None:
    """Pruning scale against words pruned, score and the large model's time, with the controls."""
    candidates = [session for session in sessions(results.pick(setting, "pruning")) if names.TABI in session]
    chosen = newest(candidates, lambda session: str(session[names.TABI].option))
    lines = []
    for session in chosen:
        run = session[names.TABI]
        scale = max(run.option.get("alphas") or [0.0])
        cells = {**line(run, session), "control": run.option.get("pruning"), "alpha": scale}
        lines.append(cells | _large(run, session.get(names.INFAAS)))
    lines.sort(key=lambda cells: (cells["task"], names.place(["importance"], str(cells["control"])), cells["alpha"]))
    columns = [TASK, word("control", "words dropped by"), number("alpha", "alpha", 2, measured=False)]
    columns += [number("rerouted", "queries re-routed", 0), percent("words_pruned_share", "words pruned %"), SCORE]
    columns += [OUTCOME, MEAN, AGAINST, number("large_ms", "large model ms, re-routed", 3)]
    columns += [number("large_full_ms", "same queries, full text ms", 3)]
    columns += [number("large_faster_pct", "large model faster %", 1)]
    notes = [
        f"Large model: only where at least {FEW} queries were re-routed; beside full text: where INFaaS of the same "
        "session runs the same large model."
    ]
    claims = paper.printed("claims").set_index("claim").value
    notes += [f"The paper: {claim}: {value}." for claim, value in claims.items() if "prun" in claim]
    return make_table("pruning", "Word pruning", lines, columns, [session[names.TABI] for session in chosen], notes)


def _large(run: Run, infaas: Run | None) -> Row:
    """How many queries were re-routed; of FEW or more the mean ms of level 2, and of their full text under INFaaS."""
    if run.trace is None or "level" not in run.trace:
        return {}
    on = run.trace.level > 0
    cells: Row = {"rerouted": int(on.sum())}
    if "stage_level2_ms" not in run.trace or on.sum() < FEW:
        return cells
    cells["large_ms"] = float(run.trace.stage_level2_ms[on].mean())
    if infaas is None or infaas.trace is None or _last_models(run) != _last_models(infaas):
        return cells
    full = float(infaas.trace.set_index("position").stage_level1_ms[run.trace.position[on]].mean())
    return {**cells, "large_full_ms": full, "large_faster_pct": 100 * (1 - cells["large_ms"] / full)}


def _last_models(run: Run) -> list[str] | Run:
    """By fold; the run itself, which equals nothing else, where its plan was not kept."""
    return run if run.plan is None else [fold.point["models"][-1] for fold in run.plan.folds]


BUILDERS = (tail, pruning)
