"""Tables that read records alone (and the traces of their sessions, for reductions against Cocktail).

One builder per table, each for one setting (source, zoo, engine, dtype, device). A cell that failed, is infeasible or
was not measured says so. The paper's numbers stand beside ours where it has them.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd

from tabi_bench import names
from tabi_bench.report import paper
from tabi_bench.report.cells import Column, Row, Table, absent, make_table, number, percent, provenance, word
from tabi_bench.report.fields import row
from tabi_bench.report.reading import Results, Run, Session, Setting, by_seed, newest, sessions
from tabi_bench.report.side_by_side import (
    AGAINST,
    EARLY,
    MEAN,
    OUTCOME,
    RULES,
    SCORE,
    SIDE_BY_SIDE,
    SYSTEM,
    TARGET,
    TASK,
    again,
    line,
    note_of_again,
    notes_on,
    replayed_share,
    runs_of,
    seed_lines,
    side_by_side,
    summary_of_again,
)


def main(results: Results, setting: Setting) -> Table | None:
    """INFaaS, Cocktail and Tabi on every task, the paper's numbers beside ours."""
    runs = results.pick(setting, "main_table", "adhoc")
    chosen = newest(sessions(runs))
    lines = side_by_side(chosen)
    shares = {run.record.run_id: replayed_share(results, s) for s in chosen if (run := s.get(names.TABI))}
    for cells in lines:
        cells["oracle_share"] = shares.get(cells.get("run_id", ""))
    columns = [
        percent("oracle_share", "of the oracle's %, replayed", 0, measured=False)
        if column.header == "of the oracle's %"
        else column
        for column in SIDE_BY_SIDE
    ]
    notes = [RULES, *note_of_again(results, setting, runs[0].label if runs else ""), *notes_on(lines)]
    return make_table("main", "Main table", lines, columns, runs_of(chosen), notes)


def all_systems(results: Results, setting: Setting) -> Table | None:
    """The main table with every other system."""
    chosen = newest(sessions(results.pick(setting, "all_systems")))
    lines = side_by_side(chosen)
    notes = [RULES, *note_of_again(results, setting, "all_systems"), *notes_on(lines)]
    return make_table("all_systems", "All systems", lines, SIDE_BY_SIDE, runs_of(chosen), notes)


def paper_targets(results: Results, setting: Setting) -> Table | None:
    """The main table at the paper's own targets, for the tasks where this ladder reaches them."""
    return _beside_main(results, setting, "paper_targets", "At the paper's targets")


def layerless(results: Results, setting: Setting) -> Table | None:
    """The main table with the model without layers in the ladder, which is our extension."""
    return _beside_main(results, setting, "layerless", "With a model without layers")


def _beside_main(results: Results, setting: Setting, label: str, title: str) -> Table | None:
    """Sessions of the main table that were kept apart from it by their label."""
    chosen = newest(sessions(results.pick(setting, label)))
    notes = [RULES, *note_of_again(results, setting, label)]
    return make_table(label, title, side_by_side(chosen), SIDE_BY_SIDE, runs_of(chosen), notes)


def aa(results: Results, setting: Setting) -> Table | None:
    """A/A: what the same plan, served twice in one session, is measured to save."""
    every = again(results, setting)
    labels = dict.fromkeys(cells["label"] for cells in every)
    lines = [{"label": label, **summary_of_again(again(results, setting, label))} for label in labels]
    lines += [{"label": "all", **summary_of_again(every)}] if len(lines) > 1 else []
    columns = [word("label", "preset"), number("sessions", "sessions", 0)]
    columns += [number("zero", "intervals that contain zero", 0)]
    columns += [number("mean_pct", "mean reduction %", 2, sign=True)]
    columns += [number("median_width", "median width, points", 1)]
    note = (
        "The session's reference served a second time, by models of its own: any reduction is noise. About 95 % of the "
        "intervals contain zero if they hold."
    )
    runs = [run for run in results.runs if run.setting == setting and run.record.method == names.AGAIN]
    return make_table("aa", "A/A", lines, columns, runs, [note])


def seeds(results: Results, setting: Setting) -> Table | None:
    """What other seeds of the same sessions gave, and how far apart they lie."""
    candidates = sessions(results.pick(setting, "main_table", "adhoc"))
    lines = seed_lines(candidates)
    columns = [TASK, word("engine", "engine"), number("margin_se", "margin SE", 1, measured=False)]
    columns += [word("pair", "systems")]
    for seed in by_seed(candidates):
        columns += [number(f"{seed} reduction_pct", f"seed {seed}: less %", 1)]
        columns += [percent(f"{seed} returned_early", f"seed {seed}: early %", 0)]
        columns += [percent(f"{seed} difference", f"seed {seed}: score, points")]
        columns += [word(f"{seed} outcome", f"seed {seed}: target")]
    columns += [number("reduction_pct_spread", "less %: spread", 1)]
    columns += [percent("returned_early_spread", "early %: spread", 0), percent("difference_spread", "score: spread")]
    note = (
        "Less: reduction of mean latency against the reference of the same session; score: beside the reference's. "
        "Spread: highest minus lowest over the seeds. A seed draws the training, the two folds and the order of the "
        "queries."
    )
    tasks = {cells["task"] for cells in lines}
    runs = [run for of_seed in by_seed(candidates).values() for run in runs_of(of_seed) if run.record.task in tasks]
    return make_table("seeds", "Spread over seeds", lines, columns, runs, [note])


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
    return make_table(
        "deebert", "Tabi against early exit", lines, columns, runs, note_of_again(results, setting, "deebert")
    )


def three_level(results: Results, setting: Setting) -> Table | None:
    """Three levels beside two; changes are against Tabi of the same session."""
    candidates = newest(sessions(results.pick(setting, "three_level", "all_systems")))
    pair = (names.TABI, names.TABI3)
    chosen = [{m: session[m] for m in pair if m in session} for session in candidates if names.TABI3 in session]
    lines = []
    for session in chosen:
        for method, run in session.items():
            cells = {**line(run, session), "predicted_ms": _predicted(run)}
            cells["returned"] = " / ".join(f"{100 * share:.1f}" for share in run.record.shares)
            if method == names.TABI3 and names.TABI in session:
                cells |= _changes(run, session[names.TABI])
            lines.append(cells)
    columns = [TASK, SYSTEM, SCORE, OUTCOME]
    for key, header in (("mean_ms", "mean"), ("p50", "p50"), ("p99", "p99")):
        columns += [number(key, f"{header} ms", 3), number(f"{key}_change", f"{header} vs Tabi %", 1, sign=True)]
    columns += [word("returned", "returned by level %", measured=True)]
    columns += [number("predicted_ms", "predicted on tune ms", 3)]
    columns += [word("same_plan", "plan")]
    theirs = paper.printed("three_level").iloc[0]
    notes = [
        "Tabi is the pairwise envelope at this target: the best pair that the same search found.",
        f"The paper, {theirs.task}: score {theirs.accuracy_pct} %, mean {theirs.mean_vs_tabi_pct:+} %, median "
        f"{theirs.median_vs_tabi_pct:+} %, p99 {theirs.p99_vs_tabi_pct:+} % against two levels; returned "
        f"{theirs.return_level1_pct} / {theirs.return_level2_pct} / {theirs.return_level3_pct} %.",
        *note_of_again(results, setting, "three_level"),
    ]
    return make_table("three_level", "Two and three levels", lines, columns, runs_of(chosen), notes)


def _predicted(run: Run) -> float | None:
    """Latency that the plan predicts on tune, mean over folds by the rows they serve."""
    if run.plan is None or any("latency_ms" not in fold.predicted for fold in run.plan.folds):
        return None
    served = [len(fold.serves or [0]) for fold in run.plan.folds]
    return float(np.average([fold.predicted["latency_ms"] for fold in run.plan.folds], weights=served))


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
    notes += note_of_again(results, setting, "ablation")
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
    lines = [
        {**cells, "engine_dtype": f"{s.engine}, {s.dtype}"}
        for s, them in by_setting.items()
        for cells in side_by_side(them)
    ]
    lines.sort(key=lambda cells: (cells["task"], cells["engine_dtype"]))
    shown = SIDE_BY_SIDE[SIDE_BY_SIDE.index(SYSTEM) : SIDE_BY_SIDE.index(AGAINST)]
    columns = [TASK, word("engine_dtype", "engine"), *shown, AGAINST]
    notes = ["Each engine is a session of its own: compare reductions, not milliseconds, between engines."]
    notes += [note for s in by_setting for note in note_of_again(results, s, "engines")]
    return make_table("engines", "Engines", lines, columns, runs_of(chain.from_iterable(by_setting.values())), notes)


# --- over settings ----------------------------------------------------------------------------------------------------


LESS = (
    "Less than INFaaS: reduction of mean latency against the fastest single model that meets the same target, same "
    "session, 95 % interval. Early: queries that the first level answered. Score: beside INFaaS's."
)
OF_ORACLE = (
    "Of the oracle's: share of the reduction that routing by labels reaches at Tabi's score, replayed on the profile; "
    "none where the plan is one model."
)
OVER_SEEDS = "Spread over seeds: highest minus lowest reduction, points; all else is of the lowest seed."


def headline(results: Results) -> Table | None:
    """Tabi on every task in one row: the paper's reduction, then ours by engine, from the main table's sessions.

    The engines stand side by side; nothing is computed across their sessions.
    """
    lines: dict[str, Row] = {task: {"task": task} for task in names.TASKS}
    runs: list[Run] = []
    engines = []
    for setting in reversed(results.settings()):
        candidates = sessions(results.pick(setting, "main_table"))
        spreads = {(cells["task"], cells["margin_se"], cells["method"]): cells for cells in seed_lines(candidates)}
        engines += [setting.engine] if candidates else []
        for session in newest(candidates):
            if {names.INFAAS, names.TABI} <= set(session):
                runs += [session[names.TABI], session[names.INFAAS]]
                cells = _headline_cells(results, session, spreads)
                own = lines.setdefault(cells["task"], {"task": cells["task"]})
                own |= {f"{setting.engine} {key}": value for key, value in cells.items()}
                own["paper"] = cells["paper_reduction_vs_infaas_pct"]
    if not runs:
        return None
    data = list(lines.values())
    columns = [TASK, number("paper", "paper: less than INFaaS %", 0, measured=False)]
    columns += [column for engine in engines for column in _headline_columns(engine, data)]
    headers = " ".join(column.header for column in columns)
    notes = [LESS, *([OF_ORACLE] if "oracle" in headers else []), *([OVER_SEEDS] if "seeds" in headers else [])]
    return Table("headline", "Tabi against INFaaS", pd.DataFrame(data), columns, provenance(runs), notes)


def _headline_cells(results: Results, session: Session, spreads: dict[tuple, Row]) -> Row:
    tabi, infaas = line(session[names.TABI], session), row(session[names.INFAAS])
    spread = spreads.get((tabi["task"], tabi["margin_se"], names.TABI), {})
    tail = tabi["p99"] / infaas["p99"] if tabi["p99"] and infaas["p99"] else None
    return tabi | {
        "tail": tail,
        "spread": spread.get("reduction_pct_spread"),
        "oracle": replayed_share(results, session),
    }


def _headline_columns(engine: str, lines: list[Row]) -> list[Column]:
    columns = {
        "reduction_pct": number(f"{engine} reduction_pct", f"{engine}: less than INFaaS %", 1),
        "spread": number(f"{engine} spread", f"{engine}: spread over seeds", 1),
        "returned_early": percent(f"{engine} returned_early", f"{engine}: early %", 0),
        "difference": percent(f"{engine} difference", f"{engine}: score, points"),
        "outcome": word(f"{engine} outcome", f"{engine}: target"),
        "tail": number(f"{engine} tail", f"{engine}: p99 / INFaaS's"),
        "oracle": percent(f"{engine} oracle", f"{engine}: of the oracle's %", 0),
    }
    optional = ("spread", "oracle")
    shown = [key for key in columns if key not in optional or any(not absent(c.get(f"{engine} {key}")) for c in lines)]
    return [columns[key] for key in shown]


def in_words(results: Results) -> list[str]:
    """What the main table shows, in a paragraph per setting that has Tabi beside INFaaS."""
    parts = []
    for setting in reversed(results.settings()):
        chosen = newest(sessions(results.pick(setting, "main_table", "adhoc")))
        lines = [line(s[names.TABI], s) for s in chosen if {names.INFAAS, names.TABI} <= set(s) and s[names.TABI].ok]
        lines = [cells for cells in lines if not absent(cells["reduction_pct"])]
        if lines:
            parts.append(_paragraph(setting, lines))
    return parts


def _paragraph(setting: Setting, lines: list[Row]) -> str:
    saved = [cells["reduction_pct"] for cells in lines]
    known = [cells for cells in lines if not absent(cells["reduction_pct_low"])]
    where = f"Under {setting.engine} on {setting.device} (source {setting.source}, zoo {setting.zoo}; "
    rival = "less time per query than INFaaS, the fastest single model that meets the same target."
    if len(lines) == 1:
        extent = number("reduction_pct", "", 1).render(lines[0])
        return f"{where}{lines[0]['task']}), Tabi takes {extent} % {rival} Its target: {lines[0]['outcome']}."
    extent = f"{min(saved):.0f} to {max(saved):.0f} % (mean {np.mean(saved):.0f} %)"
    above = sum(cells["reduction_pct_low"] > 0 for cells in known)
    intervals = f" {above} of {len(known)} intervals lie above zero." if known else ""
    met, near = (sum(cells["outcome"] == kind for cells in lines) for kind in ("met", "within noise"))
    return (
        f"{where}{len(lines)} tasks), Tabi takes {extent} {rival}{intervals} Its score meets the target on {met} of "
        f"them, is within noise of it on {near} and misses it on {len(lines) - met - near}."
    )


BUILDERS = (main, all_systems, paper_targets, layerless, aa, seeds, three_level, deebert, ablation, engines)
