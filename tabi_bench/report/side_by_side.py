"""Rows that several tables share: systems beside each other, the paper's numbers, seeds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tabi_bench import names
from tabi_bench.report import paper
from tabi_bench.report.cells import NONE, Column, Row, absent, number, percent, word
from tabi_bench.report.fields import frame, row
from tabi_bench.report.reading import Run, Session, by_seed, first, reduction

TASK = word("task", "task")
SYSTEM = word("system", "system")
MARGIN = number("margin_se", "margin SE", 1, measured=False).noted(
    "Margin SE: standard errors by which the target had to be met on tune."
)
SCORE = percent("score", "score %").noted(
    "Score: accuracy, for cola Matthews and for stsb Pearson correlation, with its 95 % interval."
)
TARGET = percent("target", "target %")
OUTCOME = word("outcome", "outcome", measured=True)
MEAN = number("mean_ms", "mean ms", 3)
EARLY = percent("returned_early", "returned early %")


def _against(line: Row) -> str:
    """The reduction against the session's reference, which is named where it is not INFaaS."""
    reference = line.get("reference")
    if reference is None or absent(reference):
        return NONE
    other = "" if reference in (names.INFAAS, line["method"]) else f" vs {names.printed(reference)}"
    return number("reduction_pct", "", 1).render(line) + other


AGAINST = Column("vs INFaaS %", _against).noted(
    "vs: reduction of mean latency within one session, its interval over blocks of queries."
)
PLAIN = "Plain rule: a margin of 0, replayed on the profile."
PAPER = [number("paper_accuracy_pct", "paper: score %", 1, measured=False)]
PAPER += [number("paper_latency_ms", "paper: ms", 1, measured=False)]
PAPER += [number("paper_reduction_vs_infaas_pct", "paper: vs INFaaS %", 0, measured=False)]
PAPER += [number("paper_reduction_vs_cocktail_pct", "paper: vs Cocktail %", 0, measured=False)]
SIDE_BY_SIDE = [TASK, MARGIN, SYSTEM, SCORE, TARGET, OUTCOME]
SIDE_BY_SIDE += [percent("difference", "score vs INFaaS", measured=False), MEAN, number("p99", "p99 ms", 3), AGAINST]
SIDE_BY_SIDE += [number("cocktail_pct", "vs Cocktail %", 1), word("same_plan", "plan"), EARLY]
SIDE_BY_SIDE += [
    percent("oracle_share", "of the oracle's %", measured=False).noted(
        "Of the oracle's: share of the reduction that routing by labels reaches."
    ),
    percent("plain_score", "plain rule: score %", measured=False).noted(PLAIN),
    number("plain_reduction_pct", "plain rule: vs INFaaS %", 1, measured=False).noted(PLAIN),
    number("usd_per_1k", "$ / 1M", 2, factor=1e3).noted("$ / 1M: a million queries, one after the other."),
    number("joules_per_query", "J / query", 3),
    number("throughput_qps", "queries / s", 1),
    *PAPER,
]


def runs_of(sessions: Iterable[Session]) -> list[Run]:
    """All runs of some sessions."""
    return [run for session in sessions for run in session.values()]


def line(run: Run, session: Session) -> Row:
    """A record's row, with its reduction against Cocktail of the same session, its plan and the paper's numbers."""
    method, cocktail = run.record.method, session.get(names.COCKTAIL)
    cells: Row = {**row(run), "system": _name(run), "same_plan": _same_plan(run, session)}
    if method == cells["reference"]:
        keys = ("reduction_pct", "difference")
        cells |= {f"{key}{end}": None for key in keys for end in ("", "_low", "_high")} | {"plain_reduction_pct": None}
    if cocktail and method in names.LEVELS and run.ok and cocktail.ok and (against := reduction(run, cocktail)):
        cells |= {"cocktail_pct": against.value, "cocktail_pct_low": against.low, "cocktail_pct_high": against.high}
    if method == names.TABI:
        cells["oracle_share"] = _oracle_share(run, session.get(names.ORACLE))
    printed = paper.main_cell(run.record.task, method)
    shown = ("accuracy_pct", "latency_ms", "printed_reduction_vs_infaas_pct", "printed_reduction_vs_cocktail_pct")
    return cells | {f"paper_{key.removeprefix('printed_')}": printed.get(key) for key in shown}


def _name(run: Run) -> str:
    """The system, and for ensembles how its latency came about."""
    measured = (run.record.details.get("system") or {}).get("measured")
    return names.printed(run.record.method) + (f" ({measured})" if measured else "")


def _same_plan(run: Run, session: Session) -> str | None:
    """Which system before it in the session serves the very same operating points; None where none does."""
    if run.record.reference.get("same_plan") and run.record.method != run.record.reference["method"]:
        return f"same plan as {names.printed(run.record.reference['method'])}"
    own = _deciding(run)
    for other in session.values():
        if other is run:
            return None
        if own and own == _deciding(other):
            return f"same plan as {_name(other)}"
    return None


def _deciding(run: Run) -> list[Row]:
    """What of each fold's operating point decides an answer: of one model alone, its name."""
    if run.plan is None:
        return []
    points = [fold.point for fold in run.plan.folds]
    return [point if len(point.get("models", ())) != 1 else {"models": point["models"]} for point in points]


def _oracle_share(tabi: Run, oracle: Run | None) -> float | None:
    """As the oracle's record says, or (schema 1) as Tabi's does."""
    of_oracle = (oracle.record.details.get("system") if oracle else None) or {}
    of_tabi: Row = dict(tabi.record.details)
    return of_oracle.get("share", (of_tabi.get("oracle") or {}).get("share"))


def side_by_side(sessions: list[Session]) -> list[Row]:
    """One row per task, margin and system, of its newest session; "missing" where a task lacks one of the systems."""
    chosen: dict[tuple, Row] = {}
    for session in sorted(sessions, key=lambda session: first(session).time):
        for run in session.values():
            cell = (run.record.task, run.margin_se, run.record.method)
            if run.ok or chosen.get(cell, {}).get("status") != "ok":
                chosen[cell] = line(run, session)
    methods = {method for _, _, method in chosen}
    for task, margin in {cell[:2] for cell in chosen}:
        for method in methods:
            blank = {"task": task, "margin_se": margin, "method": method, "system": names.printed(method)}
            chosen.setdefault((task, margin, method), {**blank, "status": "missing"})
    return sorted(chosen.values(), key=in_order)


def in_order(cells: Row) -> tuple:
    """A row's place: the paper's order of tasks, the strictest margin first, the usual order of systems."""
    margin = -(cells["margin_se"] or 0)
    system = names.place(names.SYSTEMS, cells["method"])
    return (names.place(names.TASKS, cells["task"]), margin, system, cells.get("session_id") or "")


def notes_on(lines: list[Row]) -> list[str]:
    """Which tasks are not there, and where a task's rows come from several sessions."""
    absent_tasks = [task for task in names.TASKS if task not in {cells["task"] for cells in lines}]
    notes = [f"Not measured: {', '.join(absent_tasks)}."] if absent_tasks else []
    for task, margin in dict.fromkeys((cells["task"], cells["margin_se"]) for cells in lines):
        alike = [cells for cells in lines if (cells["task"], cells["margin_se"]) == (task, margin)]
        count = len({cells["session_id"] for cells in alike if "session_id" in cells})
        if count > 1:
            notes.append(f"{task}: rows of {count} sessions; compare their reductions, not their milliseconds.")
    return notes


# --- seeds ------------------------------------------------------------------------------------------------------------


def over_seeds(candidates: list[Session]) -> list[Row]:
    """One row per task, margin and system that is measured against a reference, over the seeds of its sessions.

    seeds: which; reduction_pct, difference, returned_early, tail (p99 over the reference's), score, over (score minus
    target): the median, with the lowest and the highest as _low and _high; of one seed its own interval; outcome: of
    each seed, in their order, once if all agree.
    """
    runs = [run for of_seed in by_seed(candidates).values() for run in runs_of(of_seed) if run.ok]
    data = frame(runs).sort_values("time")
    p99 = data.set_index(["session_id", "method"]).p99.to_dict()
    data["tail"] = data.p99 / [p99.get(key, np.nan) for key in zip(data.session_id, data.reference, strict=True)]
    for end in ("", "_low", "_high"):
        data[f"over{end}"] = data[f"score{end}"] - data.target
    data = data[data.reference.notna() & (data.reference != data.method)]
    keys = ["task", "margin_se", "method"]
    newest_of = data.drop_duplicates([*keys, "seed"], keep="last").sort_values("seed")
    lines = [_over(rows) for _, rows in newest_of.groupby(keys, dropna=False)]
    return sorted(lines, key=in_order)


def _over(rows: pd.DataFrame) -> Row:
    cells = rows.iloc[0].to_dict() | {"seeds": ", ".join(map(str, rows.seed))}
    cells["by_seed"] = dict(zip(rows.seed, rows.reduction_pct, strict=True))
    cells["pair"] = f"{names.printed(cells['method'])} vs {names.printed(cells['reference'])}"
    cells["outcome"] = " / ".join(rows.outcome if rows.outcome.nunique() > 1 else rows.outcome[:1])
    if len(rows) > 1:
        for key in ("reduction_pct", "difference", "returned_early", "tail", "score", "over"):
            values = rows[key].astype(float)
            cells |= {key: values.median(), f"{key}_low": values.min(), f"{key}_high": values.max()}
    return cells
