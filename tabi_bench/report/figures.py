"""Figures from what was measured: one builder per figure. They draw what the tables hold: the two never disagree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

from tabi_bench import names
from tabi_bench.evaluation.metrics import score
from tabi_bench.profiling.profile import Profile
from tabi_bench.report import derived, load
from tabi_bench.report.cells import Row, Table, provenance
from tabi_bench.report.drawing import COLUMNS, TWO_COLUMNS, Drawing, by_task, intervals, legend, look, whiskers
from tabi_bench.report.from_profiles import profiled, read_by, routed
from tabi_bench.report.pruning import FULL
from tabi_bench.report.reading import Session, first, newest, sessions
from tabi_bench.report.side_by_side import runs_of
from tabi_bench.report.tables import Tables

QUANTILES = np.unique(np.concatenate([np.linspace(0, 0.98, 50), np.linspace(0.98, 1, 21)]))
FAINT = {"color": "0.4", "linestyle": ":", "linewidth": 0.8}
TABI, INFAAS, ORACLE, RANDOM, COCKTAIL = map(
    names.printed, (names.TABI, names.INFAAS, names.ORACLE, names.RANDOM, names.COCKTAIL)
)


def _ok(table: Table | None) -> pd.DataFrame:
    """The rows of a table that have numbers; of several margins, the strictest."""
    if table is None:
        return pd.DataFrame()
    data = table.data[table.data.get("status", pd.Series("ok", table.data.index)) == "ok"]
    if "margin_se" in data and len(data):
        strictest = data.groupby("task").margin_se.transform("max")
        data = data[data.margin_se.isna() | (data.margin_se == strictest)]
    return data


def _systems(labels: Iterable[str]) -> list[str]:
    """Printed names in their usual order."""
    order = list(names.SYSTEMS.values())
    return sorted(dict.fromkeys(labels), key=lambda label: names.place(order, label.split(" (")[0]))


def _missing(tables: Tables, shown: Iterable[str], why: str, table: Table | None = None) -> str:
    """Which of the setting's tasks a figure lacks, and which systems of its table have no numbers."""
    every = {run.record.task for run in tables.results.runs if run.setting == tables.setting}
    absent = sorted(every - set(shown), key=lambda task: names.place(names.TASKS, task))
    parts = [f"{', '.join(absent)} ({why})"] if absent else []
    if table is not None and "status" in table.data:
        bad = table.data[(table.data.status != "ok") & table.data.task.isin(list(shown))]
        parts += dict.fromkeys(f"{cells.task}: {cells.system} ({cells.status})" for cells in bad.itertuples())
    return f"Not drawn: {'; '.join(parts)}." if parts else ""


# --- systems side by side ---------------------------------------------------------------------------------------------


def _forest(tables: Tables, name: str, row: str = "task", hue: str = "system") -> Drawing | None:
    """Reduction against INFaaS, and score minus target, with intervals; the paper's reductions as open diamonds."""
    table = tables.get(name)
    data = _ok(table)
    if table is None or data.empty or data.reduction_pct.isna().all():
        return None
    drawn = data.assign(row=data[row], hue=data[hue])
    for end in ("", "_low", "_high"):
        drawn[f"margin{end}"] = 100 * (drawn[f"score{end}"].astype(float) - drawn.target.astype(float))
    # Intervals of a Pearson or Matthews correlation are as wide as those of an accuracy: one axis serves all.
    rows = list(dict.fromkeys(drawn.row))
    hues = _systems(drawn.hue) if hue == "system" else list(dict.fromkeys(drawn.hue))
    printed = "paper_reduction_vs_infaas_pct"
    columns = ["row", "hue", *(f"{k}{end}" for k in ("reduction_pct", "margin") for end in ("", "_low", "_high"))]
    columns += [printed]

    def draw() -> Figure:
        figure = Figure(figsize=(TWO_COLUMNS, 0.9 + 0.1 * len(rows) * max(len(hues), 2)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.2, 1])
        intervals(left, drawn[drawn.reduction_pct.notna()], rows, hues, "reduction_pct")
        intervals(right, drawn, rows, hues, "margin")
        theirs = drawn[drawn[printed].notna()]
        if row == "task" and len(theirs):
            at = [rows.index(task) for task in theirs.row]
            left.plot(theirs[printed], at, "D", mfc="none", mec="black", ms=4, label=f"{TABI}, the paper", zorder=5)
        left.set_xlabel("reduction of mean latency against INFaaS, %")
        right.set_xlabel("score minus target, points")
        legend(figure, [right, left])
        return figure

    note = _missing(tables, drawn.task, "failed, infeasible or not in this preset", table)
    return Drawing(name, table.title, drawn[columns], draw, table.provenance, note)


def all_systems(tables: Tables) -> Drawing | None:
    """Score against mean latency of every system, with intervals; the target as a line."""
    table = tables.get("all_systems")
    data = _ok(table)
    if table is None or data.empty:
        return None
    keys = [f"{key}{end}" for key in ("mean_ms", "score") for end in ("", "_low", "_high")]
    drawn = data[["task", "system", "target", *keys]]
    order = _systems(drawn.system)

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for system, row in rows.groupby("system"):
            color, marker, _ = look(system, order.index(system))
            (x, xerr), (y, yerr) = whiskers(row, "mean_ms"), whiskers(row, "score", 100)
            axes[0].errorbar(x, y, yerr, xerr, marker, color=color, elinewidth=0.6, label=system, alpha=0.9)
        axes[0].axhline(100 * rows.target.mean(), **FAINT, label="target")

    kept = {"provenance": table.provenance, "note": _missing(tables, drawn.task, "not in this preset", table)}
    return by_task("all_systems", "All systems", drawn, plot, ("mean ms", "score, %"), height=2.2, **kept)


STAGES = ("tokenise", "level1", "decide", "prune", "level2", "level3", "members", "harness")  # in their order in time


def latency(tables: Tables) -> Drawing | None:
    """Mean latency of INFaaS, Cocktail and Tabi, stacked from its stages, with its interval."""
    table = tables.get("main")
    data = _ok(table)
    runs = {run.record.run_id: run.record for run in tables.results.runs}
    stages = pd.DataFrame([runs[run_id].breakdown_ms for run_id in data.get("run_id", [])], data.index)
    if table is None or stages.empty:
        return None
    order = sorted(stages, key=lambda stage: (stage == "harness", names.place(STAGES, stage)))
    keys = ["task", "system", "mean_ms", "mean_ms_low", "mean_ms_high"]
    drawn = pd.concat([data[keys], stages[order].fillna(0.0)], axis=1)
    colors = [look("", names.place(STAGES, stage)[0])[0] for stage in order]

    systems, tasks = _systems(drawn.system), list(dict.fromkeys(drawn.task))

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        bars = rows.set_index("system").reindex(systems)
        bars[order].plot.barh(stacked=True, ax=axes[0], color=colors, edgecolor="white", linewidth=0.4, legend=False)
        mean, reach = whiskers(bars, "mean_ms")
        axes[0].errorbar(mean, range(len(mean)), xerr=reach, fmt="none", ecolor="black", elinewidth=0.7, capsize=1.5)
        for lacking in np.flatnonzero(np.isnan(mean)):
            axes[0].annotate("none", (0, lacking), (3, 0), textcoords="offset points", va="center", fontsize=6)
        axes[0].set_yticks(range(len(systems)), systems if tasks.index(task) % COLUMNS == 0 else [""] * len(systems))
        axes[0].set_ylabel("")
        axes[0].invert_yaxis()
        axes[0].grid(axis="y", visible=False)

    kept = {"provenance": table.provenance, "note": _missing(tables, drawn.task, "not in this preset", table)}
    return by_task("latency", "Mean latency by stage", drawn, plot, ("mean ms", ""), height=1.3, **kept)


# --- one figure each --------------------------------------------------------------------------------------------------


def models(tables: Tables) -> Drawing | None:
    """The ladder: score against mean latency, and the Pareto front as a line; models off it are hollow."""
    table = tables.get("models")
    if table is None:
        return None
    drawn = table.data[["task", "model", "params_millions", "mean_ms", "score", "front"]]
    order = list(dict.fromkeys(drawn.model))

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        front = rows[rows.front == "yes"].sort_values("mean_ms")
        axes[0].step(front.mean_ms, 100 * front.score, where="post", color="0.6", linewidth=0.6, label="Pareto front")
        for model in rows.itertuples():
            color, marker, _ = look("", order.index(model.model))
            face = color if model.front == "yes" else "white"
            axes[0].plot(model.mean_ms, 100 * model.score, marker, color=color, mfc=face, label=model.model)
        axes[0].margins(0.1, 0.1)

    kept = {"provenance": table.provenance, "note": _missing(tables, drawn.task, "no profile was kept")}
    return by_task("models", "The ladder of models", drawn, plot, ("mean ms", "score, %"), **kept)


def pruning(tables: Tables) -> Drawing | None:
    """Words pruned by scale, and score and time of re-routed queries by words pruned, with the controls."""
    table = tables.get("pruning")
    drawn = _timed(table)
    if table is None or drawn.empty:
        return None

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        full = rows[rows.control == FULL]
        for k, (control, points) in enumerate(rows[rows.control != FULL].groupby("control", sort=True)):
            color, marker, style = look("", k)
            line = {"color": color, "marker": marker, "linestyle": style, "label": control}
            points = pd.concat([full, points])
            words = 100 * points.words_pruned
            axes[0].plot(words, points.alpha, **line)
            for one, key, factor in ((axes[1], "score", 100), (axes[2], "ms", 1)):
                value, reach = whiskers(points, key, factor)
                one.errorbar(words + 0.6 * (k - 1), value, reach, elinewidth=0.6, **line)

    labels = ("words pruned, %", "alpha", "score of re-routed, %", "ms of re-routed")
    note = _missing(tables, drawn.task, "too few re-routed, or not in this preset")
    return by_task("pruning", "Word pruning", drawn, plot, labels, provenance=table.provenance, note=note)


def batching(tables: Tables) -> Drawing | None:
    """How much faster the last level is for pruning, by batch size."""
    table = tables.get("batching")
    drawn = _timed(table)
    if table is None or drawn.empty:
        return None

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for k, (alpha, points) in enumerate(rows[rows.control == "importance"].groupby("alpha")):
            color, marker, style = look("", k)
            line = {"color": color, "marker": marker, "linestyle": style, "label": f"alpha {alpha:g}"}
            value, reach = whiskers(points, "faster_pct")
            axes[0].errorbar(points.batch, value, reach, elinewidth=0.6, **line)
        axes[0].axhline(0, color="0.4", linewidth=0.6)
        sizes = sorted(rows.batch.unique())
        axes[0].set_xscale("log", base=2)
        axes[0].set_xticks(sizes, list(map(str, sizes)))

    labels = ("batch", "faster for pruning, %")
    return by_task("batching", "Pruning by batch size", drawn, plot, labels, provenance=table.provenance)


def _timed(table: Table | None) -> pd.DataFrame:
    """The rows of a table of pruning scales that have times."""
    data = _ok(table)
    return data[data.ms.notna()] if "ms" in data else pd.DataFrame()


def tail(tables: Tables) -> Drawing | None:
    """Share of queries slower than x, per task and system."""
    candidates = newest(sessions(tables.results.pick(tables.setting, "main_table", "all_systems", "adhoc")))
    strict = [session for session in candidates if first(session).margin_se != 0]
    whole = [(run, trace) for run in runs_of(strict) if (trace := run.whole) is not None]
    if not whole:
        return None
    parts = []
    for run, trace in whole:
        curve = {"slower": np.maximum(1 - QUANTILES, 5e-4), "ms": np.quantile(trace.latency_ms, QUANTILES)}
        parts.append(pd.DataFrame(curve).assign(task=run.record.task, system=names.printed(run.record.method)))
    drawn = pd.concat(parts, ignore_index=True)

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        one = axes[0]
        for system, line in rows.groupby("system", sort=False):
            color, _, style = look(system)
            one.plot(line.ms, line.slower, style, color=color, label=system)
        one.set(xscale="log", yscale="log", ylim=(9e-4, 1.2))
        one.set_yticks([1, 0.1, 0.01, 0.001], ["100 %", "10 %", "1 %", "0.1 %"])
        shown = rows[rows.slower > 9e-4].ms
        one.xaxis.set_major_locator(LogLocator(subs=_ticks(shown.max() / shown.min()), numticks=12))
        one.xaxis.set_major_formatter(FuncFormatter("{:g}".format))
        one.minorticks_off()
        one.set_xlim(shown.min() / 1.1, shown.max() * 1.1)

    note = _missing(tables, drawn.task, "no traces were kept")
    kept = {"provenance": provenance(run for run, _ in whole), "note": note}
    return by_task("tail", "Latency distribution", drawn, plot, ("ms", "queries slower"), **kept)


def _ticks(span: float) -> tuple[float, ...]:
    """Numbers of a decade that get a label on a small logarithmic axis whose ends have the ratio `span`."""
    if span > 50:
        return (1,)
    if span > 30:
        return (1, 3)
    return (1, 2, 5) if span > 4 else (1, 1.5, 2, 3, 5, 7)


# --- from profiles and plans ------------------------------------------------------------------------------------------


def _routed(tables: Tables, several: bool = False) -> list[tuple[Session, Profile, pd.DataFrame]]:
    """Sessions whose Tabi has a confidence on profiled outputs (and several levels in both folds), a row per query."""
    parts = []
    for session, profile in profiled(tables.results, tables.setting):
        queries = routed(tables.results, session, profile)
        if queries is not None and (not several or (queries.levels > 1).all()):
            parts.append((session, profile, queries))
    return parts


def _kept(tables: Tables, parts: list[tuple], why: str) -> Row:
    return {"provenance": provenance(read_by(parts)), "note": _missing(tables, [p.task for _, p, _ in parts], why)}


ONE_LEVEL = "one model in a fold, scores, or no profile"


def threshold(tables: Tables) -> Drawing | None:
    """tau against score, predicted latency and re-route share; chosen taus, target and INFaaS as lines."""
    parts = _routed(tables, several=True)
    if not parts:
        return None
    curves = [derived.threshold_curve(p.metric, queries).assign(task=p.task) for _, p, queries in parts]
    drawn = pd.concat(curves, ignore_index=True)
    chosen = {p.task: queries.groupby("fold").tau.first().tolist() for _, p, queries in parts}
    drawn["chosen"] = [" / ".join(f"{tau:.4f}" for tau in chosen[task]) for task in drawn.task]
    targets = {p.task: s[names.TABI].record.target["value"] for s, p, _ in parts}
    alone = {p.task: _alone(routed(tables.results, s, p, names.INFAAS), p.metric) for s, p, _ in parts}

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for one, key, factor in zip(axes, ("score", "mean_ms", "share"), (100, 1, 100), strict=True):
            one.plot(rows.tau, factor * rows[key], color=look(TABI)[0])
            for tau in (tau for tau in chosen[task] if tau <= 1):
                one.axvline(tau, **FAINT, label="chosen for a fold")
            one.set_xlim(min(0.99, rows.tau.min()), 1.005)
        axes[0].axhline(100 * targets[task], color=look(COCKTAIL)[0], linewidth=0.8, label="target")
        for one, value in zip(axes, alone[task], strict=False):
            one.axhline(value, color=look(INFAAS)[0], linestyle="--", linewidth=0.8, label=INFAAS)
        for one in axes[:-1]:
            one.tick_params(labelbottom=False)

    labels = ("threshold tau", "score, %", "mean ms", "re-routed, %")
    kept = _kept(tables, parts, ONE_LEVEL)
    return by_task("threshold", "Threshold, full text", drawn, plot, labels, height=1.0, **kept)


def _alone(queries: pd.DataFrame | None, metric: str) -> list[float]:
    """Score (%) and mean latency (ms) of the first level alone; empty where nothing of it is known."""
    if queries is None:
        return []
    return [100 * score(metric, queries.label, queries.small), float(queries.small_ms.mean())]


def break_even(tables: Tables) -> Drawing | None:
    """Target against the least predicted latency of one model and of two levels."""
    table = tables.get("break_even")
    if table is None:
        return None
    drawn = table.data[["task", "target", "single_ms", "cascade_ms"]]
    kinds = {"single_ms": ("one model", INFAAS), "cascade_ms": ("two levels", TABI)}

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        rows = rows.sort_values("target")
        for key, (name, system) in kinds.items():
            color, marker, style = look(system)
            y = rows[key].astype(float)
            axes[0].plot(100 * rows.target, y, style, marker=marker, ms=2.2, color=color, label=name)
        axes[0].set_ylim(0, 1.1 * np.nanmax(rows[list(kinds)].astype(float)))

    kept = {"provenance": table.provenance, "note": _missing(tables, drawn.task, "no profile was kept")}
    return by_task("break_even", "Break-even", drawn, plot, ("target, %", "predicted mean ms"), **kept)


def calibration(tables: Tables) -> Drawing | None:
    """Reliability diagrams of level 1 before and after temperature scaling."""
    parts = _routed(tables)
    if not parts:
        return None
    fitted = {p.task: derived.calibration(queries) for _, p, queries in parts}
    drawn = pd.concat([fit["bins"].reset_index().assign(task=task) for task, fit in fitted.items()], ignore_index=True)

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        one = axes[0]
        one.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
        for when, system in (("before", COCKTAIL), ("after", TABI)):
            bins, (color, marker, style) = rows[rows.when == when], look(system)
            one.plot(bins.confidence, bins.accuracy, style, color=color, linewidth=0.6)
            sizes, kept = 3 + 60 * bins.n / bins.n.sum(), {"label": f"{when} scaling", "zorder": 3, "clip_on": False}
            one.scatter(bins.confidence, bins.accuracy, sizes, color=color, marker=marker, **kept)
        before, after = (100 * fitted[task][f"ece_{when}"] for when in ("before", "after"))
        one.set_title(f"{task}\nECE {before:.1f} to {after:.1f} %", fontsize=6)
        low = rows.confidence.min()
        one.set_xlim(low - 0.03, 1.02)
        one.set_ylim(min(low, rows.accuracy.min()) - 0.05, 1.04)

    title = "Reliability of level 1 (size: share of queries)"
    kept = _kept(tables, parts, "scores, or no profile")
    return by_task("calibration", title, drawn, plot, ("confidence", "share right"), **kept)


def deferral(tables: Tables) -> Drawing | None:
    """Accuracy against the share handed to the large model, beside random order and the oracle's."""
    parts = _routed(tables, several=True)
    if not parts:
        return None
    frames = []
    for _, profile, queries in parts:
        curves = pd.DataFrame(derived.deferral(queries)).iloc[np.linspace(0, len(queries), 101).astype(int)]
        curves.insert(0, "share", curves.index / len(queries))
        frames.append(curves.assign(task=profile.task))
    drawn = pd.concat(frames, ignore_index=True)
    chosen = {p.task: 100 * sum(s[names.TABI].record.shares[1:]) for s, p, _ in parts}

    def plot(axes: np.ndarray, rows: pd.DataFrame, task: str) -> None:
        for order, system in (("oracle", ORACLE), ("confidence", TABI), ("random", RANDOM)):
            color, _, style = look(system)
            axes[0].plot(100 * rows.share, 100 * rows[order], style, color=color, label=order)
        axes[0].axvline(chosen[task], **FAINT, label="share that Tabi re-routed")

    kept = _kept(tables, parts, ONE_LEVEL)
    return by_task("deferral", "Deferral", drawn, plot, ("re-routed, %", "accuracy, %"), **kept)


# --- under load -------------------------------------------------------------------------------------------------------

THOUSANDS = EngFormatter(sep="")  # 50k


def load_curve(tables: Tables) -> Drawing | None:
    """p50 and p99 of every system at the same rates; a rate that overloads a system ends its line, and is marked."""
    runs = [run for run in load.runs_under(tables.results, tables.setting, "load") if load.facts_of(run).get("curve")]
    points: list[Row] = []
    for run in runs:
        facts, system = load.facts_of(run), names.printed(run.record.method)
        known = {"task": run.record.task, "system": system, "slo_ms": facts["slo_ms"]}
        points += [known | point for point in facts["curve"]]
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
    if table is None or table.data.goodput.isna().all():
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
            place, width = whiskers(line, "qps")
            panel[0].errorbar(place, height, reach, width, fmt=marker, color=color, label=system)
        panel[0].set_xlim(0, 1.05 * rows[["qps", "qps_high"]].max(axis=None))
        panel[0].xaxis.set_major_formatter(THOUSANDS)

    labels = ("queries / s", "score, %")
    return by_task("throughput", "Throughput offline", table.data, plot, labels, provenance=table.provenance)


OWN = (latency, all_systems, models, pruning, batching, tail, threshold, break_even, calibration, deferral)
UNDER_LOAD = (load_curve, goodput, throughput)
BUILDERS: dict[str, Callable[[Tables], Drawing | None]] = {
    "main": partial(_forest, name="main"),
    "deebert": partial(_forest, name="deebert"),
    "ablation": partial(_forest, name="ablation", hue="variant"),
    "engines": partial(_forest, name="engines", row="where"),
    **{builder.__name__: builder for builder in (*OWN, *UNDER_LOAD)},
}


def build(tables: Tables, only: Collection[str] = ()) -> dict[str, Drawing]:
    """Every figure (or those named in `only`) for which this setting has something, by name."""
    wanted = {name: builder for name, builder in BUILDERS.items() if not only or name in only}
    drawings = {name: tables.attempt(name, partial(builder, tables)) for name, builder in wanted.items()}
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}
