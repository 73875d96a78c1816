"""Other tables that read records alone: noise, tails, memory, seeds; and the main result, the engines side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tabi_bench import names
from tabi_bench.evaluation.statistics import BLOCKS, P99_QUERIES
from tabi_bench.report import paper
from tabi_bench.report.cells import NONE, Column, Row, Table, absent, make_table, number, percent, provenance, word
from tabi_bench.report.fields import PERCENTILES, frame
from tabi_bench.report.reading import Results, Run, Session, Setting, by_seed, newest, sessions
from tabi_bench.report.side_by_side import MARGIN, MEAN, OUTCOME, SYSTEM, TASK, in_order, line, runs_of


def aa(results: Results, setting: Setting) -> Table | None:
    """A/A: what the same plan, served twice in one session, is measured to save."""
    runs = [run for run in results.runs if run.setting == setting and run.record.method == names.AGAIN and run.ok]
    data = frame(runs).dropna(subset="reduction_pct_low")
    lines = [_noise(str(label), rows) for label, rows in data.groupby("label", sort=False)]
    lines += [_noise("all", data)] if len(lines) > 1 else []
    columns = [word("label", "preset"), number("sessions", "sessions", 0)]
    columns += [number("zero", "intervals that contain zero", 0)]
    columns += [number("mean_pct", "mean reduction % [lowest, highest]", 2, sign=True)]
    columns += [number("median_width", "median width, points", 1)]
    note = (
        "The session's reference served a second time, by models of its own: any reduction is noise. About 95 % of the "
        "intervals contain zero if they hold."
    )
    return make_table("aa", "A/A", lines, columns, runs, [note])


def _noise(label: str, data: pd.DataFrame) -> Row:
    """Of sessions that served the reference twice: how much its second serving seems to save."""
    saved, low, high = data.reduction_pct, data.reduction_pct_low, data.reduction_pct_high
    cells = {"label": label, "sessions": len(data), "zero": ((low <= 0) & (high >= 0)).sum()}
    cells |= {"mean_pct": saved.mean(), "mean_pct_low": saved.min(), "mean_pct_high": saved.max()}
    return cells | {"median_width": (high - low).median()}


def seeds(results: Results, setting: Setting) -> Table | None:
    """Over the seeds of the same sessions: the median and the range."""
    candidates = sessions(results.pick(setting, "main_table", "adhoc"))
    lines = [cells for cells in over_seeds(candidates) if "," in cells["seeds"]]
    columns = [TASK, MARGIN, word("pair", "systems"), word("seeds", "seeds"), number("reduction_pct", "less %", 1)]
    columns += [percent("returned_early", "early %", 0), percent("difference", "score, points"), OUTCOME]
    columns += [number("tail", "p99 ratio")]
    note = (
        "Median over the seeds [lowest, highest]; outcome: of each seed, where they differ. Less: reduction of mean "
        "latency against the reference of the same session; score: beside the reference's; early: queries that the "
        "first level answered. A seed draws the training, the two folds and the order of the queries."
    )
    tasks = {cells["task"] for cells in lines}
    runs = [run for of_seed in by_seed(candidates).values() for run in runs_of(of_seed) if run.record.task in tasks]
    return make_table("seeds", "Over seeds", lines, columns, runs, [note])


def tail(results: Results, setting: Setting) -> Table | None:
    """Percentiles of latency."""
    chosen = newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc")))
    lines = [line(run, session) for session in chosen for run in session.values()]
    columns = [TASK, MARGIN, SYSTEM, MEAN, *(number(p, f"{p} ms", 3) for p in PERCENTILES)]
    columns += [number(key, key, 0) for key in ("queries", "distinct", "blocks")]
    note = (
        f"Intervals of p99 by a bootstrap of whole blocks, from {BLOCKS} blocks on; no p99 below {P99_QUERIES} "
        "queries. The paper calls Tabi's tail comparable."
    )
    return make_table("tail", "Latency distribution", sorted(lines, key=in_order), columns, runs_of(chosen), [note])


def footprint(results: Results, setting: Setting) -> Table | None:
    """What a system loads and keeps on the device: a cascade beside one model."""
    chosen = newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc")))
    served = [(run, session) for session in chosen for run in session.values() if run.ok and _loads(run)["models"]]
    lines = [{**line(run, session), **_loads(run)} for run, session in served]
    columns = [TASK, SYSTEM, number("models", "models", 0), number("weights_mb", "weights MB", 0)]
    columns += [number("load_s", "load s", 1), MEAN]
    note = (
        "Models that the plans of both halves name, each counted once. Load: from disk to the device, the first time "
        "in the session, without captured graphs; weights: as the engine holds them."
    )
    runs = [run for run, _ in served]
    return make_table("footprint", "Memory and load time", sorted(lines, key=in_order), columns, runs, [note])


def _loads(run: Run) -> Row:
    return {"models": 0, **(run.record.details.get("footprint") or {})}


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


# --- over settings ----------------------------------------------------------------------------------------------------


LESS = (
    "Less than INFaaS: reduction of mean latency against the fastest single model that meets the same target, same "
    "session."
)
ONE_SEED = "In brackets: 95 % intervals."
SEVERAL = "{}, seeds {} ({}): median [lowest, highest]."


def headline(results: Results, shown: str = "") -> Table | None:
    """Tabi on every task in one row: the paper's reduction, then ours by engine, from the main table's sessions.

    The engines stand side by side; nothing is computed across their sessions. The last row is the mean over tasks.
    shown: the headers of some columns; engines of which none is among them are left out.
    """
    lines: dict[str, Row] = {task: {"task": task} for task in names.TASKS}
    runs: list[Run] = []
    columns = [TASK, Column("paper: less % (at score %)", _printed)]
    brackets: dict[tuple[str, str], list[str]] = {}
    for setting, label in by_engine(results, shown).items():
        candidates, of_tabi = tabi_over_seeds(results, setting)
        runs += [session[method] for session in candidates for method in (names.TABI, names.INFAAS)]
        columns += _headline_columns(label) if candidates else []
        for cells in [*of_tabi, *_mean(of_tabi)]:
            own = lines.setdefault(cells["task"], {"task": cells["task"]})
            own |= {f"{label} {key}": value for key, value in cells.items()}
            brackets.setdefault((label, cells["seeds"]), []).append(cells["task"])
    if not runs:
        return None
    several = {key: tasks for key, tasks in brackets.items() if "," in key[1]}
    ranges = [SEVERAL.format(*key, ", ".join(tasks)) for key, tasks in several.items()]
    notes = [" ".join([ONE_SEED] * (len(several) < len(brackets)) + ranges)]
    return Table("headline", "Tabi against INFaaS", pd.DataFrame(lines.values()), columns, provenance(runs), notes)


def tabi_over_seeds(results: Results, setting: Setting) -> tuple[list[Session], list[Row]]:
    """The main table's sessions with Tabi beside INFaaS, and a row of `over_seeds` per task at the strictest margin."""
    candidates = [s for s in sessions(results.pick(setting, "main_table")) if {names.INFAAS, names.TABI} <= set(s)]
    of_tabi = [cells for cells in over_seeds(candidates) if cells["method"] == names.TABI]
    strictest = {cells["task"]: cells for cells in reversed(of_tabi)}  # which comes first
    return candidates, sorted(strictest.values(), key=in_order)


def by_engine(results: Results, shown: str = "") -> dict[Setting, str]:
    """The settings of the main table by their engine, and by what else those of one engine differ in.

    shown: the headers of some columns, LABEL: ...; settings of which none is among them are left out.
    """
    every = [s for s in reversed(results.settings()) if results.pick(s, "main_table")]
    labels = {}
    for setting in every:
        alike = [vars(other) for other in every if other.engine == setting.engine]
        keys = [key for key in Setting.__annotations__ if len({other[key] for other in alike}) > 1]
        labels[setting] = " / ".join([setting.engine, *(str(vars(setting)[key]) for key in keys)])
    return {s: label for s, label in labels.items() if f"{label}: " in shown or not shown}


def _mean(lines: list[Row]) -> list[Row]:
    """The mean reduction over tasks: of one seed with the interval of independent tasks, of several the range."""
    if len(lines) < 2:
        return []
    means = pd.DataFrame([cells["by_seed"] for cells in lines]).dropna(axis=1).mean()
    intervals = pd.DataFrame(lines)[["reduction_pct_low", "reduction_pct_high"]].astype(float)
    half = np.linalg.norm(np.diff(intervals) / 2) / len(lines)
    low, high = (means.min(), means.max()) if len(means) > 1 else (means.median() - half, means.median() + half)
    seeds = ", ".join(map(str, means.index))
    cells = {"task": f"mean of {len(lines)}", "seeds": seeds, "reduction_pct": means.median()}
    return [cells | {"reduction_pct_low": low, "reduction_pct_high": high}]


def _printed(line: Row) -> str:
    cell = paper.main_cell(line["task"], names.TABI)
    if line["task"].startswith("mean"):
        return f"{paper.printed('main_table').printed_reduction_vs_infaas_pct.mean():.0f}"
    return f"{cell['printed_reduction_vs_infaas_pct']:.0f} (at {cell['accuracy_pct']:.1f})" if cell else NONE


def _headline_columns(engine: str) -> list[Column]:
    def against_target(line: Row) -> str:
        score = percent(f"{engine} score", "").render(line).split(" [")[0]
        over = number(f"{engine} over", "", factor=100, digits=1, sign=True).render(line).split(" [")[0]
        return NONE if score == NONE else f"{score} ({over}, {line[f'{engine} outcome']})"

    return [
        number(f"{engine} reduction_pct", f"{engine}: less than INFaaS %", 1).noted(LESS),
        percent(f"{engine} returned_early", f"{engine}: early %", 0).noted("Early: queries that level 1 answered."),
        Column(f"{engine}: score % (over the target)", against_target),
        percent(f"{engine} difference", f"{engine}: score beside INFaaS's (points)"),
        number(f"{engine} tail", f"{engine}: p99 / INFaaS's"),
    ]


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
    data = pd.DataFrame(lines)
    saved, low = data.reduction_pct, data.reduction_pct_low.dropna()
    where = f"Under {setting.engine} on {setting.device} (source {setting.source}, zoo {setting.zoo}; "
    rival = "less time per query than INFaaS, the fastest single model that meets the same target."
    if len(lines) == 1:
        extent = number("reduction_pct", "", 1).render(lines[0])
        return f"{where}{lines[0]['task']}), Tabi takes {extent} % {rival} Its target: {lines[0]['outcome']}."
    extent = f"{saved.min():.0f} to {saved.max():.0f} % (mean {saved.mean():.0f} %)"
    intervals = f" {(low > 0).sum()} of {len(low)} intervals lie above zero." if len(low) else ""
    met, near = ((data.outcome == kind).sum() for kind in ("met", "within noise"))
    return (
        f"{where}{len(lines)} tasks), Tabi takes {extent} {rival}{intervals} Its score meets the target on {met} of "
        f"them, is within noise of it on {near} and misses it on {len(lines) - met - near}."
    )


BUILDERS = (aa, seeds, tail, footprint)
