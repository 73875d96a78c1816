"""Tables from what was measured: one builder per table, each for one setting (source, zoo, engine, dtype, device).

A cell that failed, is infeasible or was not measured says so. The paper's numbers stand beside ours where it has them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain

import numpy as np
import pandas as pd

from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.evaluation.statistics import percentile
from tabi_bench.planning.break_even import break_even as by_pair
from tabi_bench.profiling.profile import Profile
from tabi_bench.report import derived, paper
from tabi_bench.report.cells import NONE, Column, Row, Table, absent, make_table, number, percent, provenance, word
from tabi_bench.report.reading import (
    CASCADES,
    METHODS,
    TASKS,
    Results,
    Run,
    Session,
    Setting,
    by_seed,
    newest,
    reduction,
    row,
    sessions,
)

FEW = 30  # re-routed queries below which no time of theirs is printed
SYSTEM = word("system", "system")
TASK = word("task", "task")
SCORE = percent("score", "score %")
OUTCOME = word("outcome", "outcome", measured=True)
MEAN = number("mean_ms", "mean ms")
EARLY = percent("returned_early", "returned early %")


def _against(line: Row) -> str:
    """The reduction against the session's reference, which is named where it is not INFaaS."""
    other = line.get("reference")
    return number("reduction_pct", "", 1).render(line) + (
        f" vs {other}" if other not in ("infaas", line["method"], None) else ""
    )


AGAINST = Column("vs INFaaS %", lambda line: _against(line) if not absent(line.get("reference")) else NONE)


def _all(found: Iterable[Session]) -> list[Run]:
    return [run for session in found for run in session.values()]


def _read(found: list[tuple[Session, Profile]]) -> list[Run]:
    """The runs behind a table that is derived from profiles."""
    return [run for session, _ in found for run in session.values() if run.record.status == "ok"]


# --- systems side by side ---------------------------------------------------------------------------------------------


def _name(run: Run) -> str:
    """The method, and for ensembles how its latency came about."""
    measured = (run.record.details.get("system") or {}).get("measured")
    return f"{run.record.method} ({measured})" if measured else run.record.method


def line(run: Run, session: Session) -> Row:
    """A record's row, with its reduction against Cocktail of the same session and the paper's numbers."""
    found = {**row(run), "system": _name(run)}
    if run.record.method == found["reference"]:
        found |= dict.fromkeys(("reduction_pct", "reduction_low", "reduction_high", "plain_reduction_pct"))
        found |= dict.fromkeys(("difference", "difference_low", "difference_high"))
    other = session.get("cocktail")
    if (
        other
        and other is not run
        and run.record.method in CASCADES
        and run.record.status == other.record.status == "ok"
    ):
        against = reduction(run, other)
        if against:
            found |= {"cocktail_pct": against.value, "cocktail_pct_low": against.low, "cocktail_pct_high": against.high}
    found |= {"reduction_pct_low": found.pop("reduction_low"), "reduction_pct_high": found.pop("reduction_high")}
    printed = paper.main_cell(run.record.task, run.record.method)
    keys = (
        "target_pct",
        "accuracy_pct",
        "latency_ms",
        "printed_reduction_vs_infaas_pct",
        "printed_reduction_vs_cocktail_pct",
    )
    return {**found, **{f"paper_{key.removeprefix('printed_')}": printed.get(key) for key in keys}}


def _side_by_side(found: list[Session]) -> list[Row]:
    """All rows of some sessions, and a row that says "missing" for a system that a task's sessions lack."""
    lines = [line(run, session) for session in found for run in session.values()]
    methods = {each["method"] for each in lines}
    cells = {(each["task"], each["margin_se"]) for each in lines}
    there = {(each["task"], each["margin_se"], each["method"]) for each in lines}
    for task, margin in cells:
        for method in methods:
            if (task, margin, method) not in there:
                missing = {"task": task, "margin_se": margin, "method": method, "system": method, "status": "missing"}
                lines.append(missing)
    return sorted(lines, key=_order)


def _order(each: Row) -> tuple:
    places = [
        order.index(each[key]) if each[key] in order else len(order)
        for key, order in (("task", TASKS), ("method", METHODS))
    ]
    return (places[0], each["task"], -(each["margin_se"] or 0), places[1], each.get("session_id") or "")


PAPER = [
    number("paper_accuracy_pct", "paper: score %", 1, measured=False),
    number("paper_latency_ms", "paper: ms", 1, measured=False),
    number("paper_reduction_vs_infaas_pct", "paper: vs INFaaS %", 0, measured=False),
    number("paper_reduction_vs_cocktail_pct", "paper: vs Cocktail %", 0, measured=False),
]
ORACLE = percent("oracle_share", "of the oracle's %", measured=False)
SIDE_BY_SIDE = [
    TASK,
    number("margin_se", "margin SE", 1, measured=False),
    SYSTEM,
    SCORE,
    percent("target", "target %"),
    OUTCOME,
    percent("difference", "score vs INFaaS", measured=False),
    MEAN,
    number("p99", "p99 ms"),
    AGAINST,
    number("cocktail_pct", "vs Cocktail %", 1),
    EARLY,
    ORACLE,
    percent("plain_score", "plain rule: score %", measured=False),
    number("plain_reduction_pct", "plain rule: vs INFaaS %", 1, measured=False),
    number("usd_per_1k", "$ / 1k queries", 5),
    number("throughput_qps", "queries / s", 1),
    *PAPER,
]
RULES = (
    "Score: accuracy, for cola Matthews and for stsb Pearson correlation, with 95 % intervals. Reductions are of mean "
    "latency, within one session. Margin SE: standard errors by which the target had to be met on tune; plain rule: a "
    "margin of 0, replayed on the profile. Of the oracle's: share of the reduction that routing by labels reaches."
)


def _unmeasured(lines: list[Row]) -> list[str]:
    absent = [task for task in TASKS if task not in {each["task"] for each in lines}]
    return [f"Not measured: {', '.join(absent)}."] if absent else []


def main(results: Results, setting: Setting) -> Table | None:
    """INFaaS, Cocktail and Tabi on every task, the paper's numbers beside ours."""
    found = newest(sessions(results.pick(setting, "main_table", "adhoc")))
    lines = _side_by_side(found)
    shares = {_id(session): _replayed_share(results, session) for session in found}
    for each in lines:
        each["oracle_replayed"] = shares.get(each.get("session_id")) if each["method"] == "tabi" else None
    replayed = percent("oracle_replayed", "of the oracle's %, replayed", 0, measured=False)
    columns = [replayed if column is ORACLE else column for column in SIDE_BY_SIDE]
    return make_table("main", "Main table", lines, columns, _all(found), [RULES, *_unmeasured(lines)])


def _replayed_share(results: Results, session: Session) -> float | None:
    tabi, infaas = session.get("tabi"), session.get("infaas")
    profile = results.profile(tabi) if tabi else None
    if profile is None or infaas is None or tabi.plan is None or infaas.plan is None:
        return None
    return derived.oracle_share(profile, tabi.plan, infaas.plan)


def all_systems(results: Results, setting: Setting) -> Table | None:
    """The main table with every other system."""
    found = newest(sessions(results.pick(setting, "all_systems")))
    lines = _side_by_side(found)
    return make_table("all_systems", "All systems", lines, SIDE_BY_SIDE, _all(found), [RULES, *_unmeasured(lines)])


def seeds(results: Results, setting: Setting) -> Table | None:
    """What other seeds of the same sessions gave, and how far apart they lie."""
    found = by_seed(sessions(results.pick(setting, "main_table", "adhoc")))
    lines = _seed_lines(found)
    columns = [
        TASK,
        word("engine", "engine"),
        number("margin_se", "margin SE", 1, measured=False),
        word("pair", "systems"),
    ]
    for seed in found:
        columns += [
            number(f"{seed} reduction_pct", f"seed {seed}: less %", 1),
            percent(f"{seed} returned_early", f"seed {seed}: early %", 0),
            percent(f"{seed} difference", f"seed {seed}: score, points"),
            word(f"{seed} outcome", f"seed {seed}: target"),
        ]
    columns += [
        number("reduction_pct_spread", "less %: spread", 1),
        percent("returned_early_spread", "early %: spread", 0),
        percent("difference_spread", "score: spread"),
    ]
    told = {each["task"] for each in lines}
    runs = [run for them in found.values() for run in _all(them) if run.record.task in told]
    return make_table("seeds", "Spread over seeds", lines, columns, runs, [SEEDS])


SEEDS = (
    "Less: reduction of mean latency against the reference of the same session; score: beside the reference's. Spread: "
    "highest minus lowest over the seeds. A seed draws the training, the two folds and the order of the queries."
)
SPREAD = ("reduction_pct", "returned_early", "difference")


def _seed_lines(found: dict[int, list[Session]]) -> list[Row]:
    """One row per task, margin and system that several seeds measured: each seed's numbers, and their spread."""
    lines: dict[tuple, Row] = {}
    for seed, them in found.items():
        for run in sorted(_all(them), key=lambda run: run.time):
            each = row(run)
            if run.record.status != "ok" or each["reference"] in (None, each["method"]):
                continue
            key = (each["task"], each["margin_se"], each["method"])
            own = lines.setdefault(key, {k: each[k] for k in ("task", "margin_se", "method", "engine")})
            own |= {"pair": f"{each['method']} vs {each['reference']}", f"{seed} outcome": each["outcome"]}
            each |= {f"reduction_pct{end}": each[f"reduction{end}"] for end in ("_low", "_high")}
            own |= {f"{seed} {key}{end}": each.get(key + end) for key in SPREAD for end in ("", "_low", "_high")}
    several = [own for own in lines.values() if sum(f"{seed} outcome" in own for seed in found) > 1]
    return sorted(({**own, **_spreads(own, found)} for own in several), key=_order)


def _spreads(own: Row, seeds: Iterable[int]) -> Row:
    known = {key: [own[f"{s} {key}"] for s in seeds if not absent(own.get(f"{s} {key}"))] for key in SPREAD}
    return {f"{key}_spread": max(values) - min(values) if len(values) > 1 else None for key, values in known.items()}


def deebert(results: Results, setting: Setting) -> Table | None:
    """Tabi against DeeBERT's early exit."""
    found = newest(sessions(results.pick(setting, "deebert", "all_systems")))
    found = [session for session in found if "deebert" in session]
    wanted = ("infaas", "tabi", "deebert")
    lines = [each for each in _side_by_side(found) if each["method"] in wanted]
    printed = paper.printed("deebert")
    for each in lines:
        mine = printed[(printed.task == each["task"]) & printed.system.str.startswith(each["method"])]
        each["paper"] = "; ".join(
            f"{p.system}: {p.accuracy_pct:g} %, -{p.latency_reduction_pct} %" for p in mine.itertuples()
        )
    columns = [TASK, SYSTEM, SCORE, percent("target", "target %"), OUTCOME, MEAN, AGAINST, EARLY]
    columns += [Column("paper", lambda each: each.get("paper") or NONE, measured=False)]
    runs = [run for run in _all(found) if run.record.method in wanted]
    return make_table("deebert", "Tabi against early exit", lines, columns, runs)


# --- one table each ---------------------------------------------------------------------------------------------------


def profiled(results: Results, setting: Setting) -> list[tuple[Session, Profile]]:
    """Per task the session that derived tables read, with its profile: with Tabi, the strictest margin."""
    best: dict[str, tuple] = {}
    for session in newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc", "models"))):
        first = next(iter(session.values()))
        profile = results.profile(first)
        rank = ("tabi" in session and session["tabi"].record.status == "ok", first.margin_se or 0.0)
        if profile is not None and (first.record.task not in best or rank > best[first.record.task][0]):
            best[first.record.task] = (rank, session, profile)
    return [(session, profile) for _, session, profile in best.values()]


def models(results: Results, setting: Setting) -> Table | None:
    """Every model of the ladder: parameters, layers, profiled mean latency, score."""
    found, lines = profiled(results, setting), []
    printed = paper.printed("models").set_index(paper.printed("models").model.str.lower())
    for session, profile in found:
        for name, model in profile.models.items():
            value = score(profile.metric, profile.labels, predictions_from(model.logits))
            facts = {
                "params_millions": model.params / 1e6,
                "layers": model.layers,
                "mean_ms": model.mean_ms,
                "score": value,
            }
            theirs = printed.loc[name.lower()] if name.lower() in printed.index else {}
            theirs = {f"paper_{key}": theirs.get(key) for key in ("params_millions", "latency_ms", "accuracy_pct")}
            lines.append({"task": profile.task, "model": name, **facts, **theirs, "session_id": _id(session)})
    columns = [
        TASK,
        word("model", "model"),
        number("params_millions", "params M", 1),
        number("layers", "layers", 0),
        number("mean_ms", "mean ms"),
        SCORE,
        number("paper_params_millions", "paper: params M", 0),
        number("paper_latency_ms", "paper: ms", 0),
        number("paper_accuracy_pct", "paper: score %", 1),
    ]
    note = "Profiled, not served: full text, one query at a time, mean over the validation split."
    return make_table("models", "The ladder of models", lines, columns, _read(found), [note])


def _id(session: Session) -> str:
    return next(iter(session.values())).record.session_id


def three_level(results: Results, setting: Setting) -> Table | None:
    """Three levels beside two; changes are against Tabi of the same session."""
    found = newest(sessions(results.pick(setting, "three_level", "all_systems")))
    found = [{m: session[m] for m in ("tabi", "tabi3") if m in session} for session in found if "tabi3" in session]
    lines = []
    for session in found:
        for method, run in session.items():
            each = {**line(run, session), "predicted_ms": _predicted(run)}
            each["returned"] = " / ".join(f"{100 * share:.1f}" for share in run.record.shares)
            if method == "tabi3" and "tabi" in session:
                each |= _changes(run, session["tabi"])
            lines.append(each)
    columns = [TASK, SYSTEM, SCORE, OUTCOME]
    for key, header in (("mean_ms", "mean"), ("p50", "p50"), ("p99", "p99")):
        columns += [number(key, f"{header} ms"), number(f"{key}_change", f"{header} vs tabi %", 1, sign=True)]
    columns += [word("returned", "returned by level %", measured=True), number("predicted_ms", "predicted on tune ms")]
    theirs = paper.printed("three_level").iloc[0]
    notes = [
        "tabi is the pairwise envelope at this target: the best pair that the same search found.",
        f"The paper, {theirs.task}: score {theirs.accuracy_pct} %, mean {theirs.mean_vs_tabi_pct:+} %, median "
        f"{theirs.median_vs_tabi_pct:+} %, p99 {theirs.p99_vs_tabi_pct:+} % against two levels; returned "
        f"{theirs.return_level1_pct} / {theirs.return_level2_pct} / {theirs.return_level3_pct} %.",
    ]
    return make_table("three_level", "Two and three levels", lines, columns, _all(found), notes)


def _predicted(run: Run) -> float | None:
    """Latency that the plan predicts on tune, mean over folds by the rows they serve."""
    if run.plan is None or any("latency_ms" not in fold.predicted for fold in run.plan.folds):
        return None
    served = [len(fold.serves or [0]) for fold in run.plan.folds]
    return float(np.average([fold.predicted["latency_ms"] for fold in run.plan.folds], weights=served))


def _changes(run: Run, tabi: Run) -> Row:
    """Change in percent of mean, median and p99 against Tabi of the same session."""
    if run.record.session_id != tabi.record.session_id or not tabi.record.latency_ms:
        return {}
    ours, theirs = run.record.latency_ms, tabi.record.latency_ms
    keys = {"mean_ms": "mean", "p50": "p50", "p99": "p99"}
    return {f"{k}_change": 100 * (ours[v] / theirs[v] - 1) for k, v in keys.items() if ours.get(v) and theirs.get(v)}


def pruning(results: Results, setting: Setting) -> Table | None:
    """Pruning scale against words pruned, score and the large model's time, with the controls."""
    found = newest(_with_tabi(results.pick(setting, "pruning")), lambda session: str(session["tabi"].option))
    lines = []
    for session in found:
        run = session["tabi"]
        each = {
            **line(run, session),
            "control": run.option.get("pruning"),
            "alpha": max(run.option.get("alphas") or [0.0]),
        }
        lines.append({**each, **_large(run, session.get("infaas"))})
    lines.sort(key=lambda each: (each["task"], each["control"] != "importance", str(each["control"]), each["alpha"]))
    columns = [
        TASK,
        word("control", "words dropped by"),
        number("alpha", "alpha", 2, measured=False),
        number("rerouted", "queries re-routed", 0),
        percent("words_pruned_share", "words pruned %"),
        SCORE,
        OUTCOME,
        MEAN,
        AGAINST,
        number("large_ms", "large model ms, re-routed"),
        number("large_full_ms", "same queries, full text ms"),
        number("large_faster_pct", "large model faster %", 1),
    ]
    claims = paper.printed("claims").set_index("claim").value
    notes = [f"The paper: {claim}: {value}." for claim, value in claims.items() if "prun" in claim]
    notes.insert(
        0,
        f"Large model: only where at least {FEW} queries were re-routed; beside full text: where INFaaS of the same "
        "session runs the same large model.",
    )
    return make_table("pruning", "Word pruning", lines, columns, [session["tabi"] for session in found], notes)


def _with_tabi(runs: list[Run]) -> list[Session]:
    return [session for session in sessions(runs) if "tabi" in session]


def _large(run: Run, infaas: Run | None) -> Row:
    """How many queries were re-routed; of FEW or more the mean ms of level 2, and of their full text under INFaaS."""
    if run.trace is None or "level" not in run.trace:
        return {}
    on = run.trace.level > 0
    found: Row = {"rerouted": int(on.sum())}
    if "stage_level2_ms" not in run.trace or on.sum() < FEW:
        return found
    found["large_ms"] = float(run.trace.stage_level2_ms[on].mean())
    if infaas is None or infaas.plan is None or infaas.record.session_id != run.record.session_id:
        return found
    larges = [fold.point["models"][-1] for fold in run.plan.folds]
    if larges != [fold.point["model"] for fold in infaas.plan.folds]:
        return found
    full = float(infaas.trace.set_index("position").stage_level1_ms[run.trace.position[on]].mean())
    return {**found, "large_full_ms": full, "large_faster_pct": 100 * (1 - found["large_ms"] / full)}


def ablation(results: Results, setting: Setting) -> Table | None:
    """Tabi whole, and without one part; each against INFaaS of its own session."""
    found = newest(_with_tabi(results.pick(setting, "ablation")), lambda session: str(session["tabi"].option))
    lines = [{**line(s["tabi"], s), "variant": variant(s["tabi"].option)} for s in found]
    order = ["whole", "without calibration", "without pruning", "without ensemble"]
    lines.sort(key=lambda each: (each["task"], order.index(each["variant"]) if each["variant"] in order else 9))
    columns = [TASK, word("variant", "Tabi"), SCORE, OUTCOME, MEAN, AGAINST, EARLY]
    columns += [percent("words_pruned_share", "words pruned %")]
    note = "Each row is a session of its own: compare reductions, not milliseconds, between rows."
    return make_table("ablation", "Ablation", lines, columns, [s["tabi"] for s in found], [note])


def variant(option: Row) -> str:
    """What of Tabi is left out, in words."""
    off = [
        name
        for name, absent in (
            ("calibration", option.get("calibrate") is False),
            ("pruning", not any(option.get("alphas") or [1.0])),
            ("ensemble", option.get("ensembles") == ["large"]),
        )
        if absent
    ]
    return f"without {', '.join(off)}" if off else "whole"


def engines(results: Results, setting: Setting) -> Table | None:
    """The same task under several engines; stands once per source, zoo and device."""
    alike = [
        s for s in results.settings() if (s.source, s.zoo, s.device) == (setting.source, setting.zoo, setting.device)
    ]
    found = {s: newest(sessions(results.pick(s, "engines"))) for s in alike}
    found = {s: them for s, them in found.items() if them}
    if setting != next(iter(found), None):
        return None
    lines = [
        {**each, "engine_dtype": f"{s.engine}, {s.dtype}"} for s, them in found.items() for each in _engine(them, s)
    ]
    lines.sort(key=lambda each: (each["task"], each["engine_dtype"]))
    columns = [TASK, word("engine_dtype", "engine"), *SIDE_BY_SIDE[2:9]]
    note = "Each engine is a session of its own: compare reductions, not milliseconds, between engines."
    return make_table("engines", "Engines", lines, columns, _all(chain.from_iterable(found.values())), [note])


def _engine(found: list[Session], setting: Setting) -> list[Row]:
    return [{**each, "engine": setting.engine, "dtype": setting.dtype} for each in _side_by_side(found)]


def tail(results: Results, setting: Setting) -> Table | None:
    """Percentiles, from the traces."""
    found = newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc")))
    lines = []
    for session in found:
        for run in session.values():
            each = {**line(run, session)}
            lines.append({**each, **_percentiles(run)} if run.trace is not None else each)
    lines.sort(key=_order)
    columns = [TASK, number("margin_se", "margin SE", 1, measured=False), SYSTEM, MEAN]
    columns += [number(p, f"{p} ms") for p in ("p50", "p90", "p95", "p99")]
    columns += [number("n", "queries", 0), number("distinct", "distinct", 0)]
    note = (
        "95 % intervals by a bootstrap of whole blocks, from 40 blocks on; no p99 below 662 queries. The paper calls "
        "Tabi's tail comparable."
    )
    return make_table("tail", "Latency distribution", lines, columns, _all(found), [note])


def _percentiles(run: Run) -> Row:
    ms, rows, blocks = (run.trace[column].to_numpy() for column in ("latency_ms", "row", "block"))
    found: Row = {"n": len(ms), "distinct": len(np.unique(rows))}
    for q in (0.5, 0.9, 0.95, 0.99):
        p, key = percentile(ms, q, blocks, rows), f"p{round(100 * q)}"
        found |= {key: p.value if p.enough else None, f"{key}_low": p.low, f"{key}_high": p.high}
    return found


# --- derived from profiles --------------------------------------------------------------------------------------------


def break_even(results: Results, setting: Setting) -> Table | None:
    """Target against the least predicted latency of every kind of system."""
    found = profiled(results, setting)
    frames = [derived.break_even(profile).assign(task=profile.task, session_id=_id(s)) for s, profile in found]
    if not frames:
        return None
    data = pd.concat(frames, ignore_index=True)
    data["reduction_pct"] = 100 * (1 - data.cascade_ms / data.infaas_ms)
    columns = [
        TASK,
        percent("slack", "below the best model, points", 2),
        percent("target", "target %"),
        number("infaas_ms", "INFaaS ms"),
        word("infaas", "its model"),
        number("cocktail_ms", "Cocktail ms, in parallel"),
        number("cascade_ms", "two levels ms"),
        word("cascade", "its models"),
        number("reduction_pct", "two levels vs INFaaS %", 1),
    ]
    notes = [
        "Predicted from the profile, in-sample, full text, plain rule: what there is to be found, not what was served."
    ]
    notes += [_pays(task, mine) for task, mine in data.groupby("task", sort=False)]
    return make_table("break_even", "Break-even", data.to_dict("records"), columns, _read(found), notes)


def break_even_pairs(results: Results, setting: Setting) -> Table | None:
    """The re-route share above which each pair loses to its large model, and the targets at which it wins."""
    found = profiled(results, setting)
    frames = [by_pair(profile).assign(task=profile.task, session_id=_id(s)) for s, profile in found]
    if not frames:
        return None
    columns = [
        TASK,
        word("small", "small"),
        word("large", "large"),
        percent("share", "loses above, % re-routed"),
        percent("above", "wins above target %", 2),
        percent("upto", "up to target %", 2),
    ]
    notes = ["Predicted from the profile, in-sample, full text, plain rule; no target: another model is always faster."]
    lines = pd.concat(frames, ignore_index=True).to_dict("records")
    return make_table("break_even_pairs", "Break-even by pair", lines, columns, _read(found), notes)


def _pays(task: str, data: pd.DataFrame) -> str:
    """Where the cascade stops paying, in words."""
    if data.cascade_ms.isna().all():
        return f"{task}: no two-level cascade from a stored profile."
    paying = data[data.reduction_pct > 0]
    if paying.empty:
        return f"{task}: the cascade pays at no target above {100 * data.target.min():.1f} %."
    least = paying.slack.min()
    where = "up to the best model's own score" if least == 0 else f"up to {100 * paying.target.max():.1f} %"
    return f"{task}: the cascade pays at targets {where}."


def calibration(results: Results, setting: Setting) -> Table | None:
    """Calibration error of level 1 before and after temperature scaling, on the queries that it was not fitted on."""
    found, lines = profiled(results, setting), []
    for session, profile in found:
        plan = session["tabi"].plan if "tabi" in session else None
        if plan is None:
            continue
        points = [fold.point for fold in plan.folds]
        names = ", ".join(dict.fromkeys(point["models"][0] for point in points))
        each = {
            "task": profile.task,
            "model": names,
            "temperature": " / ".join(f"{p['temperatures'][0]:.2f}" for p in points),
        }
        queries = derived.routed(profile, plan)
        if queries is None:
            fits = [point["agreement"][0]["auroc"] for point in points if point.get("agreement")]
            each |= {"temperature": None, "auroc": float(np.mean(fits)) if fits else None}
        else:
            each |= {key: value for key, value in derived.calibration(queries).items() if key != "bins"}
        lines.append({**each, "session_id": _id(session)})
    columns = [
        TASK,
        word("model", "level 1"),
        word("temperature", "T by fold"),
        percent("ece_before", "ECE before %", 2),
        percent("ece_after", "ECE after %", 2),
        number("auroc", "AUROC", 3),
        number("n", "queries", 0),
    ]
    notes = [
        "15 bins of equal width. AUROC: how well confidence ranks right above wrong answers; for scores, agreement "
        "with the large model on tune (below 0.6, routing is near random)."
    ]
    return make_table("calibration", "Calibration of level 1", lines, columns, _read(found), notes)


def deferral(results: Results, setting: Setting) -> Table | None:
    """Areas under the deferral curves: random <= confidence <= oracle."""
    found, lines = profiled(results, setting), []
    for session, profile in found:
        plan = session["tabi"].plan if "tabi" in session else None
        queries = None if plan is None else derived.routed(profile, plan)
        if queries is None or (queries.levels == 1).any():
            continue
        areas = derived.deferral(queries)["areas"]
        span = areas["oracle"] - areas["random"]
        share = (areas["confidence"] - areas["random"]) / span if span > 0 else None
        lines.append({"task": profile.task, **areas, "of_oracle": share, "session_id": _id(session)})
    there = {each["task"] for each in lines}
    absent = [profile.task for _, profile in found if profile.task not in there]
    columns = [TASK, *(percent(order, f"area, {order} %", 2) for order in ("random", "confidence", "oracle"))]
    columns += [percent("of_oracle", "of the oracle's gain %")]
    notes = ["Area under accuracy against the share re-routed, full text, the plan's ensemble; accuracy also for cola."]
    notes += [f"No curve (one level, scores, or no plan): {', '.join(absent)}."] if absent else []
    return make_table("deferral", "Deferral", lines, columns, _read(found), notes)


# --- the paper --------------------------------------------------------------------------------------------------------


def printed() -> Table:
    """The paper's reductions, recomputed from its own latencies."""
    columns = [
        TASK,
        word("against", "against"),
        number("ours_ms", "Tabi ms", 1),
        number("other_ms", "other ms", 1),
        number("printed_pct", "printed %", 0),
        number("recomputed_pct", "recomputed %", 1),
        word("follows", "follows"),
    ]
    data = paper.reductions().rename(columns={"low_pct": "recomputed_pct_low", "high_pct": "recomputed_pct_high"})
    notes = ["Brackets: what latencies that round to the printed ones allow."]
    line = "The paper's printed numbers; nothing here was measured by tabi-bench."
    return Table("paper", "The paper's printed reductions", data, columns, line, notes)


def headline(results: Results) -> Table:
    """Tabi on every task in one row: the paper's reduction, then ours by engine, from the main table's sessions.

    The engines stand side by side; nothing is computed across their sessions.
    """
    lines: dict[str, Row] = {task: {"task": task} for task in TASKS}
    runs, engines = [], []
    for setting in reversed(results.settings()):
        every = sessions(results.pick(setting, "main_table"))
        spreads = {(each["task"], each["margin_se"], each["method"]): each for each in _seed_lines(by_seed(every))}
        found = newest(every)
        engines += [setting.engine] if found else []
        for session in (s for s in found if {"infaas", "tabi"} <= set(s)):
            tabi, infaas = line(session["tabi"], session), row(session["infaas"])
            own = lines.setdefault(tabi["task"], {"task": tabi["task"]})
            own |= {f"{setting.engine} {key}": value for key, value in tabi.items()}
            own[f"{setting.engine} tail"] = tabi["p99"] / infaas["p99"] if tabi["p99"] and infaas["p99"] else None
            own["paper"] = tabi["paper_reduction_vs_infaas_pct"]
            spread = spreads.get((tabi["task"], tabi["margin_se"], "tabi"), {})
            own[f"{setting.engine} spread"] = spread.get("reduction_pct_spread")
            own[f"{setting.engine} oracle"] = _replayed_share(results, session)
            runs += [session["tabi"], session["infaas"]]
    columns = [TASK, number("paper", "paper: less than INFaaS %", 0, measured=False)]
    spread_out, beside_oracle = (
        [e for e in engines if any(not absent(each.get(f"{e} {key}")) for each in lines.values())]
        for key in ("spread", "oracle")
    )
    for engine in engines:
        columns += [
            number(f"{engine} reduction_pct", f"{engine}: less than INFaaS %", 1),
            *([number(f"{engine} spread", f"{engine}: spread over seeds", 1)] if engine in spread_out else []),
            percent(f"{engine} returned_early", f"{engine}: early %", 0),
            percent(f"{engine} difference", f"{engine}: score, points"),
            word(f"{engine} outcome", f"{engine}: target"),
            number(f"{engine} tail", f"{engine}: p99 / INFaaS's"),
            *([percent(f"{engine} oracle", f"{engine}: of the oracle's %", 0)] if engine in beside_oracle else []),
        ]
    notes = [
        "Less than INFaaS: reduction of mean latency against the fastest single model that meets the same target, same "
        "session, 95 % interval. Early: queries that the first level answered. Score: beside INFaaS's."
    ]
    if beside_oracle:
        notes += [
            "Of the oracle's: share of the reduction that routing by labels reaches at Tabi's score, replayed on the "
            "profile; none where the plan is one model."
        ]
    if spread_out:
        notes += ["Spread over seeds: highest minus lowest reduction, points; all else is of the lowest seed."]
    return Table("headline", "Tabi against INFaaS", pd.DataFrame(lines.values()), columns, provenance(runs), notes)


BUILDERS = (
    main,
    all_systems,
    seeds,
    models,
    three_level,
    deebert,
    pruning,
    ablation,
    engines,
    tail,
    break_even,
    break_even_pairs,
    calibration,
    deferral,
)


class Tables:
    """The tables of one setting by name, each built when it is first asked for: some take seconds."""

    def __init__(self, results: Results, setting: Setting) -> None:
        self._results, self._setting = results, setting
        self._builders = {builder.__name__: builder for builder in BUILDERS}
        self._built: dict[str, Table | None] = {}

    def get(self, name: str) -> Table | None:
        """The table, or None where this setting has nothing for it. Raises KeyError for an unknown name."""
        if name not in self._built:
            self._built[name] = self._builders[name](self._results, self._setting)
        return self._built[name]

    def __getitem__(self, name: str) -> Table:
        table = self.get(name)
        if table is None:
            raise KeyError(f"nothing was measured for {name}")
        return table

    def build(self, only: Collection[str] = ()) -> dict[str, Table]:
        """Every table (or those named in `only`) for which the setting has something."""
        found = {name: self.get(name) for name in self._builders if not only or name in only}
        return {name: table for name, table in found.items() if table is not None}


def build(results: Results, setting: Setting) -> dict[str, Table]:
    """Every table for which this setting has something, by name."""
    return Tables(results, setting).build()
