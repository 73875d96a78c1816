"""Tables of systems beside each other, from records and traces alone: their columns, rows and notes.

One builder per table, each for one setting (source, zoo, engine, dtype, device). A cell that failed, is infeasible or
was not measured says so. The paper's numbers stand beside ours where it has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import pandas as pd

from tabi_bench import names
from tabi_bench.report import paper
from tabi_bench.report.cells import NONE, Column, Row, Table, absent, make_table, number, percent, word
from tabi_bench.report.fields import row
from tabi_bench.report.reading import Results, Run, Session, Setting, first, newest, reduction, sessions

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


def runs_of(chosen: Iterable[Session]) -> list[Run]:
    """All runs of some sessions."""
    return [run for session in chosen for run in session.values()]


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


def side_by_side(candidates: list[Session]) -> list[Row]:
    """One row per task, margin and system, of its newest session; "missing" where a task lacks one of the systems."""
    oldest_first = sorted(candidates, key=lambda session: first(session).time)
    lines = [line(run, session) for session in oldest_first for run in session.values()]
    lines.sort(key=lambda cells: cells["status"] == "ok")  # the last one of a cell stands: a good one if there is any
    chosen = {(cells["task"], cells["margin_se"], cells["method"]): cells for cells in lines}
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
    if lines:
        alike = pd.DataFrame(lines).groupby(["task", "margin_se"], sort=False, dropna=False)
        for (task, _), count in alike.session_id.nunique()[lambda counts: counts > 1].items():
            notes.append(f"{task}: rows of {count} sessions; compare their reductions, not their milliseconds.")
    return notes


# --- tables of systems ------------------------------------------------------------------------------------------------


def main(results: Results, setting: Setting) -> Table | None:
    """INFaaS, Cocktail and Tabi on every task, the paper's numbers beside ours."""
    return _of_systems("main", "Main table", results.pick(setting, "main_table", "adhoc"), noted=True)


def all_systems(results: Results, setting: Setting) -> Table | None:
    """The main table with every other system."""
    return _of_systems("all_systems", "All systems", results.pick(setting, "all_systems"), noted=True)


def paper_targets(results: Results, setting: Setting) -> Table | None:
    """The main table at the paper's own targets, for the tasks where this ladder reaches them."""
    return _of_systems("paper_targets", "At the paper's targets", results.pick(setting, "paper_targets"))


def layerless(results: Results, setting: Setting) -> Table | None:
    """The main table with the model without layers in the ladder, which is our extension."""
    return _of_systems("layerless", "With a model without layers", results.pick(setting, "layerless"))


def _of_systems(name: str, title: str, runs: list[Run], noted: bool = False) -> Table | None:
    """All systems of the newest of these sessions. noted: tasks that are not there are named."""
    chosen = newest(sessions(runs))
    lines = side_by_side(chosen)
    return make_table(name, title, lines, SIDE_BY_SIDE, runs_of(chosen), notes_on(lines) if noted else [])


def deebert(results: Results, setting: Setting) -> Table | None:
    """Tabi against DeeBERT's early exit."""
    candidates = newest(sessions(results.pick(setting, "deebert", "all_systems")))
    chosen = [session for session in candidates if names.DEEBERT in session]
    wanted = (names.INFAAS, names.TABI, names.DEEBERT)
    lines = [cells for cells in side_by_side(chosen) if cells["method"] in wanted]
    printed = paper.printed("deebert")
    for cells in lines:
        rows = printed[(printed.task == cells["task"]) & printed.system.str.startswith(cells["method"])]
        parts = [f"{p.system}: {p.accuracy_pct:g} %, -{p.latency_reduction_pct} %" for p in rows.itertuples()]
        cells["paper"] = "; ".join(parts) or None
    columns = [TASK, SYSTEM, SCORE, TARGET, OUTCOME, MEAN, AGAINST, EARLY, word("paper", "paper")]
    runs = [run for run in runs_of(chosen) if run.record.method in wanted]
    return make_table("deebert", "Tabi against early exit", lines, columns, runs)


def three_level(results: Results, setting: Setting) -> Table | None:
    """Three levels beside two; changes are against Tabi of the same session."""
    candidates = newest(sessions(results.pick(setting, "three_level", "all_systems")))
    pair = (names.TABI, names.TABI3)
    chosen = [{m: session[m] for m in pair if m in session} for session in candidates if names.TABI3 in session]
    lines = []
    for session in chosen:
        for method, run in session.items():
            cells = line(run, session)
            cells["returned"] = " / ".join(f"{100 * share:.1f}" for share in run.record.shares)
            if method == names.TABI3 and names.TABI in session:
                cells |= _changes(run, session[names.TABI])
            lines.append(cells)
    columns = [TASK, SYSTEM, SCORE, OUTCOME]
    for key, header in (("mean_ms", "mean"), ("p50", "p50"), ("p99", "p99")):
        columns += [number(key, f"{header} ms", 3), number(f"{key}_change", f"{header} vs Tabi %", 1, sign=True)]
    columns += [word("returned", "returned by level %", measured=True)]
    columns += [word("same_plan", "plan")]
    theirs = paper.printed("three_level").iloc[0]
    notes = [
        "Tabi is the pairwise envelope at this target: the best pair that the same search found.",
        f"The paper, {theirs.task}: score {theirs.accuracy_pct} %, mean {theirs.mean_vs_tabi_pct:+} %, median "
        f"{theirs.median_vs_tabi_pct:+} %, p99 {theirs.p99_vs_tabi_pct:+} % against two levels; returned "
        f"{theirs.return_level1_pct} / {theirs.return_level2_pct} / {theirs.return_level3_pct} %.",
    ]
    return make_table("three_level", "Two and three levels", lines, columns, runs_of(chosen), notes)


def _changes(run: Run, tabi: Run) -> Row:
    """Change in percent of mean, median and p99 against Tabi of the same session."""
    ours, theirs = row(run), row(tabi)
    known = [key for key in ("mean_ms", "p50", "p99") if ours[key] and theirs[key]]
    return {f"{key}_change": 100 * (ours[key] / theirs[key] - 1) for key in known}


def ablation(results: Results, setting: Setting) -> Table | None:
    """Tabi whole, and without one part; each against INFaaS of its own session."""
    candidates = [s for s in sessions(results.pick(setting, "ablation")) if names.TABI in s]
    chosen = newest(candidates, lambda session: str(session[names.TABI].option))
    lines = [{**line(s[names.TABI], s), "variant": variant(s[names.TABI].option)} for s in chosen]
    order = ["whole", "without calibration", "without pruning", "without ensemble"]
    lines.sort(key=lambda cells: (names.place(names.TASKS, cells["task"]), names.place(order, cells["variant"])))
    columns = [TASK, word("variant", "Tabi"), SCORE, OUTCOME, MEAN, AGAINST, EARLY]
    columns += [percent("words_pruned_share", "words pruned %")]
    notes = ["Each row is a session of its own: compare reductions, not milliseconds, between rows."]
    return make_table("ablation", "Ablation", lines, columns, [s[names.TABI] for s in chosen], notes)


def variant(option: Row) -> str:
    """What of Tabi is left out, in words."""
    left_out = {
        "calibration": option.get("calibrate") is False,
        "pruning": not any(option.get("alphas") or [1.0]),
        "ensemble": option.get("ensembles") == ["large"],
    }
    parts = [name for name, out in left_out.items() if out]
    return f"without {', '.join(parts)}" if parts else "whole"


def engines(results: Results, setting: Setting) -> Table | None:
    """The same task under several engines; stands once per source, zoo and device."""
    place = (setting.source, setting.zoo, setting.device)
    alike = [s for s in results.settings() if (s.source, s.zoo, s.device) == place]
    by_setting = {s: chosen for s in alike if (chosen := newest(sessions(results.pick(s, "engines"))))}
    if setting != next(iter(by_setting), None):
        return None
    lines = []
    for s, chosen in by_setting.items():
        lines += [{**cells, "engine_dtype": f"{s.engine}, {s.dtype}"} for cells in side_by_side(chosen)]
    lines.sort(key=lambda cells: (cells["task"], cells["engine_dtype"]))
    shown = SIDE_BY_SIDE[SIDE_BY_SIDE.index(SYSTEM) : SIDE_BY_SIDE.index(AGAINST)]
    columns = [TASK, word("engine_dtype", "engine"), *shown, AGAINST]
    notes = ["Each engine is a session of its own: compare reductions, not milliseconds, between engines."]
    table = make_table("engines", "Engines", lines, columns, runs_of(chain.from_iterable(by_setting.values())), notes)
    if table:
        table.data["where"] = table.data.task + ", " + table.data.engine_dtype
    return table


WHOLE = (main, all_systems, paper_targets, layerless)
CHOSEN = (three_level, deebert, ablation, engines)
