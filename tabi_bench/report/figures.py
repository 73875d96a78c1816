"""Figures from what was measured: one builder per figure. They draw what the tables hold: the two never disagree."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

from tabi_bench.profiling.profile import Profile
from tabi_bench.report import derived, paper
from tabi_bench.report.cells import Table, provenance
from tabi_bench.report.drawing import COLUMNS, TWO_COLUMNS, Drawing, intervals, label_axes, legend, look, panels
from tabi_bench.report.reading import METHODS, Results, Session, Setting, newest, sessions
from tabi_bench.report.tables import Tables, profiled

log = logging.getLogger(__name__)
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
QUANTILES = np.unique(np.concatenate([np.linspace(0, 0.99, 100), np.linspace(0.99, 1, 21)]))


def _ok(table: Table | None) -> pd.DataFrame:
    """The rows of a table that have numbers; of several margins, the strictest."""
    if table is None:
        return pd.DataFrame()
    data = table.data[table.data.get("status", pd.Series("ok", table.data.index)) == "ok"]
    if "margin_se" in data and len(data):
        strictest = data.groupby("task").margin_se.transform("max")
        data = data[data.margin_se.isna() | (data.margin_se == strictest)]
    return data


def _systems(names: list[str]) -> list[str]:
    """Systems in their usual order."""
    order = {name: place for place, name in enumerate(METHODS)}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name.split(" (")[0], len(order)))


# --- systems side by side ---------------------------------------------------------------------------------------------


def _forest(name: str, title: str, table: Table, data: pd.DataFrame, row: str, hue: str = "system") -> Drawing | None:
    """Reduction against INFaaS, and score minus target, with intervals; the paper's reductions as open diamonds."""
    if data.empty or data.reduction_pct.isna().all():
        return None
    drawn = data.assign(row=data[row], hue=data[hue])
    for end in ("", "_low", "_high"):
        drawn[f"margin{end}"] = 100 * (drawn[f"score{end}"].astype(float) - drawn.target.astype(float))
    # Intervals of a Pearson or Matthews correlation are as wide as those of an accuracy: one axis serves all.
    rows = list(dict.fromkeys(drawn.row))
    hues = _systems(list(drawn.hue)) if hue == "system" else list(dict.fromkeys(drawn.hue))
    keys = ["reduction_pct", "margin"]
    columns = ["row", "hue", *(f"{k}{end}" for k in keys for end in ("", "_low", "_high"))]
    printed = "paper_reduction_vs_infaas_pct"
    columns += [printed] if printed in drawn else []

    def draw() -> Figure:
        figure = Figure(figsize=(TWO_COLUMNS, 0.9 + 0.1 * len(rows) * max(len(hues), 2)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.2, 1])
        intervals(left, drawn[drawn.reduction_pct.notna()], rows, hues, "reduction_pct")
        intervals(right, drawn, rows, hues, "margin")
        if row == "task" and printed in drawn and drawn[printed].notna().any():
            theirs = drawn[drawn[printed].notna()]
            at = [rows.index(each) for each in theirs.row]
            left.plot(theirs[printed], at, "D", mfc="none", mec="black", ms=4, label="tabi, the paper", zorder=5)
        left.set_xlabel("reduction of mean latency against INFaaS, %")
        right.set_xlabel("score minus target, points")
        legend(figure, [right, left])
        return figure

    return Drawing(name, title, drawn[columns], draw, table.provenance)


def main(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Tabi and Cocktail against INFaaS on every task, and the score beside the target."""
    data = _ok(tables.get("main"))
    return _forest("main", "Reductions and scores", tables["main"], data, "task") if len(data) else None


def all_systems(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    data = _ok(tables.get("all_systems"))
    return _forest("all_systems", "All systems", tables["all_systems"], data, "task") if len(data) else None


def deebert(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    data = _ok(tables.get("deebert"))
    return _forest("deebert", "Tabi against early exit", tables["deebert"], data, "task") if len(data) else None


def ablation(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    data = _ok(tables.get("ablation"))
    return _forest("ablation", "Ablation", tables["ablation"], data, "task", "variant") if len(data) else None


def engines(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    data = _ok(tables.get("engines"))
    if data.empty:
        return None
    data = data.assign(where=data.task + ", " + data.engine_dtype)
    return _forest("engines", "Engines", tables["engines"], data, "where")


STAGES = ("tokenise", "level1", "decide", "prune", "level2", "level3", "members", "harness")  # in their order in time


def latency(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Mean latency of INFaaS, Cocktail and Tabi, stacked from its stages."""
    data = _ok(tables.get("main"))
    found = {run.record.run_id: run for run in results.pick(setting, "main_table", "adhoc")}
    stages = [{"task": e.task, "system": e.system, **found[e.run_id].record.breakdown_ms} for e in data.itertuples()]
    drawn = pd.DataFrame(stages)
    if drawn.empty or len(drawn.columns) == 2:
        return None
    others = [c for c in drawn if c not in ("task", "system", *STAGES)]
    names = [c for c in (*STAGES[:-1], *others, STAGES[-1]) if c in drawn]
    drawn = drawn[["task", "system", *names]].fillna(dict.fromkeys(names, 0.0))

    def draw() -> Figure:
        tasks, systems = list(dict.fromkeys(drawn.task)), _systems(list(drawn.system))
        figure, axes = panels(tasks, height=1.3)
        for place, (task, one) in enumerate(zip(tasks, axes[0], strict=True)):
            _stacked(one, drawn[drawn.task == task], names, systems)
            one.set_yticks(range(len(systems)), systems if place % COLUMNS == 0 else [""] * len(systems))
        label_axes(axes, "mean ms", [""])
        legend(figure, axes[0])
        return figure

    return Drawing("latency", "Mean latency by stage", drawn, draw, tables["main"].provenance)


def _stacked(axes: Axes, data: pd.DataFrame, stages: list[str], systems: list[str]) -> None:
    """A bar per system, every system at the same height in all panels; one that the task lacks says so."""
    at = np.array([systems.index(system) for system in data.system])
    left = np.zeros(len(data))
    for stage in stages:
        place = STAGES.index(stage) if stage in STAGES else len(STAGES)
        style = {"color": look("", place)[0], "hatch": HATCHES[place % len(HATCHES)], "edgecolor": "white", "lw": 0.2}
        axes.barh(at, data[stage], left=left, label=stage, **style)
        left += data[stage].to_numpy()
    for missing in set(range(len(systems))) - set(at):
        axes.annotate("none", (0, missing), (3, 0), textcoords="offset points", va="center", fontsize=6, color="0.35")
    axes.set_ylim(len(systems) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


# --- one figure each --------------------------------------------------------------------------------------------------


def models(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """The ladder: score against mean latency."""
    table = tables.get("models")
    if table is None:
        return None
    drawn = table.data[["task", "model", "params_millions", "mean_ms", "score"]]

    def draw() -> Figure:
        tasks, names = list(dict.fromkeys(drawn.task)), list(dict.fromkeys(drawn.model))
        figure, axes = panels(tasks)
        for task, one in zip(tasks, axes[0], strict=True):
            mine = drawn[drawn.task == task]
            line = mine.sort_values("mean_ms")
            one.plot(line.mean_ms, 100 * line.score, color="0.6", linewidth=0.6)
            for each in mine.itertuples():
                color, marker, _ = look("", names.index(each.model))
                one.plot(each.mean_ms, 100 * each.score, marker, color=color, label=each.model)
            one.margins(0.1, 0.1)
        label_axes(axes, "mean ms", ["score, %"])
        legend(figure, axes[0])
        return figure

    return Drawing("models", "The ladder of models", drawn, draw, table.provenance)


def three_level(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Which level returned, and what the third level changes against two."""
    data = _ok(tables.get("three_level"))
    if data.empty:
        return None
    drawn = data.assign(row=data.task + ", " + data.system)
    for level in range(3):
        drawn[f"level{level + 1}"] = [100 * s[level] if len(s) > level else 0.0 for s in drawn.shares]
    changes = ["mean_ms_change", "p50_change", "p99_change"]
    drawn = drawn.reindex(columns=["task", "system", "row", "level1", "level2", "level3", *changes])
    theirs = paper.printed("three_level").iloc[0]
    printed = [theirs.mean_vs_tabi_pct, theirs.median_vs_tabi_pct, theirs.p99_vs_tabi_pct]

    def draw() -> Figure:
        figure = Figure(figsize=(TWO_COLUMNS, 1.1 + 0.22 * len(drawn)), layout="constrained")
        left, right = figure.subplots(1, 2)
        start = np.zeros(len(drawn))
        for k, level in enumerate(("level1", "level2", "level3")):
            shade = ["0.3", "0.6", "0.85"][k]  # grey: the colours are the tasks', on the right
            left.barh(drawn.row, drawn[level], left=start, color=shade, edgecolor="white", label=f"level {k + 1}")
            start += drawn[level].to_numpy()
        left.invert_yaxis()
        left.set_xlabel("queries returned, %")
        left.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=""))
        mine = drawn[drawn.system.str.startswith("tabi3")]
        rows = ["mean", "p50", "p99"]
        for k, each in enumerate(mine.itertuples()):
            values = [getattr(each, change) for change in changes]
            right.plot(
                values,
                np.arange(3) + 0.12 * (k - (len(mine) - 1) / 2),
                look("", k)[1],
                color=look("", k)[0],
                label=each.task,
            )
        right.plot(printed, range(3), "D", mfc="none", mec="black", label=f"{theirs.task}, the paper")
        right.axvline(0, color="0.4", linewidth=0.6)
        right.set_yticks(range(3), rows)
        right.set_ylim(2.5, -0.5)
        right.set_xlabel("three levels against two, change of latency, %")
        legend(figure, [left, right])
        return figure

    return Drawing("three_level", "Two and three levels", drawn, draw, tables["three_level"].provenance)


def pruning(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """alpha against words pruned; words pruned against score and the large model's time, with the controls."""
    data = _ok(tables.get("pruning"))
    if "rerouted" in data:
        data = data[data.rerouted != 0]  # where nothing is re-routed, nothing was pruned
    if data.empty:
        return None
    keys = ["task", "control", "alpha", "words_pruned_share", "score", "score_low", "score_high", "large_ms", "mean_ms"]
    drawn = data.reindex(columns=keys)
    views = [
        ("alpha", "words_pruned_share", 1, 100),
        ("words_pruned_share", "score", 100, 100),
        ("words_pruned_share", "large_ms", 100, 1),
    ]

    def draw() -> Figure:
        tasks = list(dict.fromkeys(drawn.task))
        figure = Figure(figsize=(TWO_COLUMNS, 1.7 * len(tasks) + 0.4), layout="constrained")
        grid = figure.subplots(len(tasks), 3, squeeze=False)
        for task, line in zip(tasks, grid, strict=True):
            for (x, y, by, times), one in zip(views, line, strict=True):
                for k, (control, mine) in enumerate(drawn[drawn.task == task].groupby("control", sort=True)):
                    color, marker, style = look("", k)
                    mine = mine.sort_values("alpha")
                    one.plot(by * mine[x], times * mine[y], style, marker=marker, color=color, label=control)
            line[0].set(xlabel="alpha", ylabel=f"{task}: words pruned, %")
            line[1].set(xlabel="words pruned, %", ylabel="score, %")
            line[2].set(xlabel="words pruned, %", ylabel="large model, ms")
            if drawn[drawn.task == task].large_ms.isna().all():
                line[2].text(0.5, 0.5, "too few re-routed", ha="center", va="center", transform=line[2].transAxes)
                line[2].set(xticks=[], yticks=[])
        legend(figure, grid.flat)
        return figure

    return Drawing("pruning", "Word pruning", drawn, draw, tables["pruning"].provenance)


# --- from traces ------------------------------------------------------------------------------------------------------


def tail(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Share of queries slower than x, per task and system."""
    found = [s for s in newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc"))) if _strict(s)]
    runs = [run for session in found for run in session.values() if run.trace is not None]
    if not runs:
        return None
    parts = []
    for run in runs:
        ms = np.quantile(run.trace.latency_ms, QUANTILES)
        parts.append(
            pd.DataFrame({"task": run.record.task, "system": run.record.method, "slower": 1 - QUANTILES, "ms": ms})
        )
    drawn = pd.concat(parts, ignore_index=True)

    def draw() -> Figure:
        tasks = list(dict.fromkeys(drawn.task))
        figure, axes = panels(tasks)
        for task, one in zip(tasks, axes[0], strict=True):
            for system, mine in drawn[drawn.task == task].groupby("system", sort=False):
                color, _, style = look(system)
                one.plot(mine.ms, np.maximum(mine.slower, 5e-4), style, color=color, label=system)
            one.set(xscale="log", yscale="log", ylim=(9e-4, 1.2))
            one.set_yticks([1, 0.1, 0.01, 0.001], ["100 %", "10 %", "1 %", "0.1 %"])
            shown = drawn[(drawn.task == task) & (drawn.slower > 9e-4)].ms
            one.xaxis.set_major_locator(LogLocator(subs=_ticks(shown.max() / shown.min()), numticks=12))
            one.xaxis.set_major_formatter(FuncFormatter("{:g}".format))
            one.minorticks_off()
            one.set_xlim(shown.min() / 1.1, shown.max() * 1.1)
        label_axes(axes, "ms", ["queries slower"])
        legend(figure, axes[0])
        return figure

    return Drawing("tail", "Latency distribution", drawn, draw, provenance(runs))


def _ticks(span: float) -> tuple[float, ...]:
    """Numbers of a decade that get a label on a small logarithmic axis whose ends have the ratio `span`."""
    if span > 50:
        return (1,)
    if span > 30:
        return (1, 3)
    return (1, 2, 5) if span > 4 else (1, 1.5, 2, 3, 5, 7)


def _strict(session: Session) -> bool:
    return next(iter(session.values())).margin_se != 0


# --- from profiles and plans ------------------------------------------------------------------------------------------


def _routed(results: Results, setting: Setting) -> list[tuple[Session, Profile, pd.DataFrame]]:
    """Sessions whose Tabi has a confidence on profiled outputs, with one row per query."""
    found = []
    for session, profile in profiled(results, setting):
        plan = session["tabi"].plan if "tabi" in session else None
        queries = None if plan is None else derived.routed(profile, plan)
        if queries is not None:
            found.append((session, profile, queries))
    return found


def _provenance(found: list[tuple]) -> str:
    return provenance(run for session, *_ in found for run in session.values() if run.record.status == "ok")


def threshold(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """tau against score, predicted latency and re-route share; the chosen tau of each fold as a line."""
    found = [each for each in _routed(results, setting) if (each[2].levels > 1).all()]
    if not found:
        return None
    curves = [derived.threshold_curve(p.metric, queries).assign(task=p.task) for _, p, queries in found]
    drawn = pd.concat(curves, ignore_index=True)
    chosen = {p.task: [fold.point["taus"][0] for fold in s["tabi"].plan.folds] for s, p, _ in found}
    drawn["chosen"] = [" / ".join(f"{tau:.4f}" for tau in chosen[task]) for task in drawn.task]

    def draw() -> Figure:
        figure, axes = panels(list(chosen), rows=3, height=1.0)
        for task, column in zip(chosen, axes.T, strict=True):
            mine = drawn[drawn.task == task]
            for one, key, factor in zip(column, ("score", "mean_ms", "share"), (100, 1, 100), strict=True):
                one.plot(mine.tau, factor * mine[key], color=look("tabi")[0])
                for tau in chosen[task]:
                    if tau <= 1:
                        one.axvline(tau, color="0.4", linestyle=":", linewidth=0.8, label="chosen for a fold")
                one.set_xlim(min(0.99, mine.tau.min()), 1.005)
            for one in column[:-1]:
                one.tick_params(labelbottom=False)
        label_axes(axes, "threshold tau", ["score, %", "mean ms", "re-routed, %"])
        legend(figure, axes.flat)
        return figure

    title = "Threshold, full text"
    return Drawing("threshold", title, drawn, draw, _provenance(found))


def break_even(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Target against the least predicted latency of every kind of system."""
    table = tables.get("break_even")
    if table is None:
        return None
    drawn = table.data[["task", "target", "infaas_ms", "cocktail_ms", "cascade_ms"]]
    kinds = {
        "infaas_ms": ("INFaaS", "infaas"),
        "cocktail_ms": ("Cocktail, in parallel", "cocktail"),
        "cascade_ms": ("two levels", "tabi"),
    }

    def draw() -> Figure:
        tasks = list(dict.fromkeys(drawn.task))
        figure, axes = panels(tasks)
        for task, one in zip(tasks, axes[0], strict=True):
            mine = drawn[drawn.task == task].sort_values("target")
            for key, (name, system) in kinds.items():
                color, marker, style = look(system)
                one.plot(
                    100 * mine.target, mine[key].astype(float), style, marker=marker, ms=2.2, color=color, label=name
                )
            one.set_ylim(0, 1.1 * np.nanmax(mine[list(kinds)].astype(float)))
        label_axes(axes, "target, %", ["predicted mean ms"])
        legend(figure, axes[0])
        return figure

    return Drawing("break_even", "Break-even", drawn, draw, table.provenance)


def calibration(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Reliability diagrams of level 1 before and after temperature scaling."""
    found = _routed(results, setting)
    if not found:
        return None
    parts, errors = [], {}
    for _, profile, queries in found:
        fitted = derived.calibration(queries)
        errors[profile.task] = (fitted["ece_before"], fitted["ece_after"])
        parts.append(fitted["bins"].rename_axis(["when", "bin"]).reset_index().assign(task=profile.task))
    drawn = pd.concat(parts, ignore_index=True)

    def draw() -> Figure:
        figure, axes = panels(list(errors))
        for task, one in zip(errors, axes[0], strict=True):
            one.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
            for when, name in (("before", "cocktail"), ("after", "tabi")):
                mine = drawn[(drawn.task == task) & (drawn.when == when) & (drawn.n > 0)]
                color, marker, style = look(name)
                one.plot(mine.confidence, mine.accuracy, style, color=color, linewidth=0.6)
                one.scatter(
                    mine.confidence,
                    mine.accuracy,
                    3 + 60 * mine.n / mine.n.sum(),
                    color=color,
                    marker=marker,
                    label=f"{when} scaling",
                    zorder=3,
                    clip_on=False,
                )
            before, after = (100 * error for error in errors[task])
            one.set_title(f"{task}\nECE {before:.1f} to {after:.1f} %", fontsize=6)
            low = drawn[(drawn.task == task) & (drawn.n > 0)].confidence.min()
            one.set_xlim(low - 0.03, 1.02)
            one.set_ylim(min(low, drawn[(drawn.task == task) & (drawn.n > 0)].accuracy.min()) - 0.05, 1.04)
        label_axes(axes, "confidence", ["share right"])
        legend(figure, axes[0])
        return figure

    return Drawing("calibration", "Reliability of level 1 (size: share of queries)", drawn, draw, _provenance(found))


def deferral(results: Results, setting: Setting, tables: Tables) -> Drawing | None:
    """Accuracy against the share handed to the large model, beside random order and the oracle's."""
    found = [each for each in _routed(results, setting) if (each[2].levels > 1).all()]
    if not found:
        return None
    parts = []
    for _, profile, queries in found:
        curves = derived.deferral(queries)["curves"]
        at = np.unique(np.linspace(0, len(queries), 201).astype(int))
        share = at / len(queries)
        parts += [
            pd.DataFrame({"task": profile.task, "order": o, "share": share, "accuracy": c[at]})
            for o, c in curves.items()
        ]
    drawn = pd.concat(parts, ignore_index=True)
    chosen = {p.task: s["tabi"].record.shares[1:] for s, p, _ in found}

    def draw() -> Figure:
        figure, axes = panels(list(chosen))
        for task, one in zip(chosen, axes[0], strict=True):
            for order, name in (("oracle", "oracle"), ("confidence", "tabi"), ("random", "random")):
                mine = drawn[(drawn.task == task) & (drawn.order == order)]
                color, _, style = look(name)
                one.plot(100 * mine.share, 100 * mine.accuracy, style, color=color, label=order)
            style = {"color": "0.4", "linestyle": ":", "linewidth": 0.8}
            one.axvline(100 * sum(chosen[task]), label="share that Tabi re-routed", **style)
        label_axes(axes, "re-routed, %", ["accuracy, %"])
        legend(figure, axes[0])
        return figure

    return Drawing("deferral", "Deferral", drawn, draw, _provenance(found))


Builder = Callable[[Results, Setting, Tables], Drawing | None]
BUILDERS: tuple[Builder, ...] = (
    main,
    latency,
    all_systems,
    models,
    three_level,
    deebert,
    pruning,
    ablation,
    engines,
    tail,
    threshold,
    break_even,
    calibration,
    deferral,
)


def build(results: Results, setting: Setting, tables: Tables, only: Collection[str] = ()) -> dict[str, Drawing]:
    """Every figure (or those named in `only`) for which this setting has something, by name."""
    found = (builder(results, setting, tables) for builder in BUILDERS if not only or builder.__name__ in only)
    return {drawing.name: drawing for drawing in found if drawing is not None}
