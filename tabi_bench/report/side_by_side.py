"""Rows that several tables share: systems beside each other, the paper's numbers, A/A, seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from tabi_bench import names
from tabi_bench.report import derived, paper
from tabi_bench.report.cells import NONE, Column, Row, absent, number, percent, word
from tabi_bench.report.fields import row
from tabi_bench.report.reading import Results, Run, Session, Setting, by_seed, first, reduction

T = TypeVar("T")
TASK = word("task", "task")
SYSTEM = word("system", "system")
MARGIN = number("margin_se", "margin SE", 1, measured=False)
SCORE = percent("score", "score %")
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


AGAINST = Column("vs INFaaS %", _against)
PAPER = [number("paper_accuracy_pct", "paper: score %", 1, measured=False)]
PAPER += [number("paper_latency_ms", "paper: ms", 1, measured=False)]
PAPER += [number("paper_reduction_vs_infaas_pct", "paper: vs INFaaS %", 0, measured=False)]
PAPER += [number("paper_reduction_vs_cocktail_pct", "paper: vs Cocktail %", 0, measured=False)]
SIDE_BY_SIDE = [TASK, MARGIN, SYSTEM, SCORE, TARGET, OUTCOME]
SIDE_BY_SIDE += [percent("difference", "score vs INFaaS", measured=False), MEAN, number("p99", "p99 ms", 3), AGAINST]
SIDE_BY_SIDE += [number("cocktail_pct", "vs Cocktail %", 1), word("same_plan", "plan"), EARLY]
SIDE_BY_SIDE += [percent("oracle_share", "of the oracle's %", measured=False)]
SIDE_BY_SIDE += [percent("plain_score", "plain rule: score %", measured=False)]
SIDE_BY_SIDE += [number("plain_reduction_pct", "plain rule: vs INFaaS %", 1, measured=False)]
SIDE_BY_SIDE += [number("usd_per_1k", "$ / 1M", 2, factor=1e3), number("joules_per_query", "J / query", 3)]
SIDE_BY_SIDE += [number("throughput_qps", "queries / s", 1), *PAPER]
RULES = (
    "Score: accuracy, for cola Matthews and for stsb Pearson correlation, with 95 % intervals. Reductions are of mean "
    "latency, within one session, with intervals over its blocks. Margin SE: standard errors by which the target had "
    "to be met on tune; plain rule: a margin of 0, replayed on the profile. $ / 1M: a million queries, one after the "
    "other. Of the oracle's: share of the reduction that routing by labels reaches."
)


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
    measured = (run.details.get("system") or {}).get("measured")
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
    of_oracle = (oracle.details.get("system") if oracle else None) or {}
    return of_oracle.get("share", (tabi.details.get("oracle") or {}).get("share"))


def replayed_share(results: Results, session: Session) -> float | None:
    """Tabi's share of the oracle's reduction, replayed on the session's profile."""
    if not {names.TABI, names.INFAAS} <= set(session):
        return None
    tabi, infaas = session[names.TABI], session[names.INFAAS]
    profile = results.profile(tabi)
    if profile is None or tabi.plan is None or infaas.plan is None:
        return None
    return derivable(results, tabi, derived.oracle_share, profile, tabi.plan, infaas.plan)


def derivable(results: Results, run: Run, derive: Callable[..., T], *arguments: Any) -> T | None:
    """What `derive` makes of a run's plan and its session's profile; None where the two do not fit, which is noted."""
    try:
        return derive(*arguments)
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        results.problems.note(run.folder / "plan.json", error)
        return None


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


# --- A/A --------------------------------------------------------------------------------------------------------------


def again(results: Results, setting: Setting, label: str | None = None) -> list[Row]:
    """Reductions of the reference served a second time: one row per run of a setting (and preset), in its order."""
    runs = [run for run in results.runs if run.setting == setting and run.record.method == names.AGAIN and run.ok]
    lines = [row(run) for run in runs if label in (None, run.label)]
    return [cells for cells in lines if cells["reduction_pct_low"] is not None]


def summary_of_again(lines: list[Row]) -> Row:
    """Over rows of `again`: sessions, zero (how many intervals contain it), mean_pct, median_width (points)."""
    low, high, mean = (np.array([cells[f"reduction_pct{end}"] for cells in lines]) for end in ("_low", "_high", ""))
    zero = int(((low <= 0) & (high >= 0)).sum())
    return {"sessions": len(lines), "zero": zero, "mean_pct": mean.mean(), "median_width": float(np.median(high - low))}


def note_of_again(results: Results, setting: Setting, label: str) -> list[str]:
    """A/A in one sentence, for the page of a preset."""
    lines = again(results, setting, label)
    if not lines:
        return []
    s = summary_of_again(lines)
    contain = f"{s['zero']} of {s['sessions']} intervals contain zero"
    return [
        f"A/A (the reference served twice): {contain}, mean {s['mean_pct']:+.2f} %, median width "
        f"{s['median_width']:.1f} points."
    ]


# --- seeds ------------------------------------------------------------------------------------------------------------

SPREAD = ("reduction_pct", "returned_early", "difference")


def seed_lines(sessions: list[Session]) -> list[Row]:
    """One row per task, margin and system that several seeds measured: each seed's numbers, and their spread."""
    seeds = by_seed(sessions)
    lines: dict[tuple, Row] = {}
    for seed, of_seed in seeds.items():
        for run in sorted(runs_of(of_seed), key=lambda run: run.time):
            cells = row(run)
            if not run.ok or cells["reference"] in (None, cells["method"]):
                continue
            own = lines.setdefault((cells["task"], cells["margin_se"], cells["method"]), {})
            own |= {key: cells[key] for key in ("task", "margin_se", "method", "engine")}
            own["pair"] = f"{names.printed(cells['method'])} vs {names.printed(cells['reference'])}"
            own |= {
                f"{seed} {key}{end}": cells[key + end]
                for key in ("reduction_pct", "difference")
                for end in ("", "_low", "_high")
            }
            own |= {f"{seed} {key}": cells[key] for key in ("returned_early", "outcome")}
    several = [own for own in lines.values() if sum(f"{seed} outcome" in own for seed in seeds) > 1]
    for own in several:
        for key in SPREAD:
            values = [own[f"{seed} {key}"] for seed in seeds if not absent(own.get(f"{seed} {key}"))]
            own[f"{key}_spread"] = max(values) - min(values) if len(values) > 1 else None
    return sorted(several, key=in_order)
