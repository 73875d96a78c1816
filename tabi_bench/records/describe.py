"""From a session's traces to the fields of its records: scores, latencies, the reference, costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import softmax

from tabi_bench.config import Config
from tabi_bench.evaluation import calibration, metrics, statistics
from tabi_bench.planning.plan_file import models_in
from tabi_bench.planning.plans import Plans
from tabi_bench.profiling.profile import Profile
from tabi_bench.records import record as fields
from tabi_bench.records.record import Record
from tabi_bench.serving.scenario import Serving
from tabi_bench.system import Outcomes, Plan, System
from tabi_bench.tasks.base import Task

PERCENTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Measured:
    """A session once it was served: what its records are made from. served: by method, the reference's first."""

    config: Config
    task: Task
    profile: Profile
    plans: Plans
    served: Serving
    offline_s: dict[str, float]  # train, profile
    zoo_notes: dict[str, Any]
    engine: dict[str, Any]
    warnings: list[str]


def fill(record: Record, measured: Measured, system: type[System], replayed: Outcomes) -> None:
    """Fills a blank record with what its method served. replayed: the same rows, from the profile."""
    config, profile, name = measured.config, measured.profile, record.method
    plan, trace = measured.plans.made[name], measured.served.traces[name]
    answers = first_pass(trace)
    reached = statistics.score_interval(profile.metric, profile.labels, answers, seed=plan.split_seed)
    sizes = [len(profile.rows) if fold.serves is None else len(fold.serves) for fold in plan.folds]
    targets = [fold.target for fold in plan.folds]
    target = float(np.average(targets, weights=sizes))
    record.target = cast(fields.TargetFacts, {"kind": config.target.kind, "value": target, "folds": targets})
    record.accuracy = cast(fields.Accuracy, {"metric": profile.metric, **asdict(reached)})
    record.outcome = statistics.outcome(reached, target)
    record.latency_ms = latencies(trace)
    record.breakdown_ms = breakdown(trace)
    record.shares = shares(trace)
    record.words_pruned_share = words_pruned(trace)
    record.reference = against(measured, name)
    record.cost = cost(trace, config.cost.usd_per_hour)
    record.throughput_qps = 1 / (record.cost["device_seconds_per_1k"] / 1e3)
    record.offline_s = {**measured.offline_s, "search": measured.plans.seconds.get(name, 0.0)}
    record.details = _details(measured, plan, trace, answers)
    record.details["replay"] = agreement(trace, replayed)
    record.details["system"] = system.describe(plan, trace)
    record.details["load"] = measured.served.facts.get(name)
    record.details["plain_rule"] = measured.plans.plain.get(name)
    record.details["footprint"] = footprint(plan, measured.engine)


def _details(measured: Measured, plan: Plan, trace: pd.DataFrame, answers: np.ndarray) -> fields.Details:
    profile, task = measured.profile, measured.task
    return {
        "also": metrics.also(task.config.also, profile.labels, answers),
        "data": task.notes,
        "zoo": {**measured.zoo_notes, "models": [_model(profile, name) for name in profile.names]},
        "engine": measured.engine,
        "plan": [fold.predicted for fold in plan.folds],
        "failures": int(trace.failures.sum()),
        "truncated": int(trace.truncated[trace.first_pass].sum()),
        "harness_us": harness_us(trace),
        "small_level": small_level(task, profile),
    }


def footprint(plan: Plan, engine: dict[str, Any]) -> fields.Footprint:
    """What a system loads and keeps on the device: its models' first loads in this session, and their weights."""
    loads = engine.get("loads", {})
    used = [loads[name] for name in sorted(models_in(plan, loads))]
    return {
        "models": len(used),
        "load_s": sum(m["load_s"] for m in used),
        "weights_mb": sum(m["weights_mb"] for m in used),
    }


def first_pass(trace: pd.DataFrame) -> np.ndarray:
    """(N,) answers by validation row: each row once."""
    first = trace[trace.first_pass].sort_values("row")
    return first.label.to_numpy()


def latencies(trace: pd.DataFrame) -> fields.Latency:
    """Mean and percentiles with their intervals over blocks, of all served queries."""
    ms, rows, blocks = (trace[column].to_numpy() for column in ("latency_ms", "row", "block"))
    mean = statistics.mean_latency(ms, blocks)
    facts: dict[str, Any] = {"mean": mean.value, "mean_low": mean.low, "mean_high": mean.high, "n": len(ms)}
    facts["blocks"] = len(np.unique(blocks))
    for q in PERCENTILES:
        p = statistics.percentile(ms, q, blocks, rows)
        facts[f"p{round(100 * q)}"] = p.value if p.enough else None
    facts |= {"p99_low": p.low, "p99_high": p.high, "distinct": p.distinct}  # of the last one
    return cast(fields.Latency, facts)


def breakdown(trace: pd.DataFrame) -> dict[str, float]:
    """Mean milliseconds per query by stage; `harness`: the rest of the clock."""
    stages = [column for column in trace if column.startswith("stage_")]
    means = {column[len("stage_") : -len("_ms")]: float(trace[column].mean()) for column in stages}
    return {**means, "harness": float(trace.latency_ms.mean() - sum(means.values()))}


def harness_us(trace: pd.DataFrame) -> float | None:
    """Median microseconds beside tokenising and forward passes, on queries that returned at the first level."""
    early = trace[(trace.level == 0) & (trace.failures == 0)]
    inside = [c for c in trace if c.startswith("stage_level") or c in ("stage_tokenise_ms", "stage_wait_ms")]
    return float(1e3 * (early.latency_ms - early[inside].sum(axis=1)).median()) if len(early) else None


def shares(trace: pd.DataFrame) -> list[float]:
    """Share of the queries of the first pass that each level returned."""
    levels = trace.level[trace.first_pass].to_numpy()
    return (np.bincount(levels) / len(levels)).tolist()


def words_pruned(trace: pd.DataFrame) -> float:
    """Share of the words of re-routed queries that pruning removed."""
    routed = trace[trace.first_pass & (trace.level > 0) & (trace.words > 0)]
    return float(1 - routed.words_kept.sum() / routed.words.sum()) if len(routed) else 0.0


def against(measured: Measured, method: str) -> fields.Reference:
    """Score and latency of a method beside the reference's, on the same queries."""
    reference = next(iter(measured.served.traces))
    traces, plans = measured.served.traces, measured.plans.made
    trace, other = traces[method], traces[reference]
    metric, labels, seed = measured.profile.metric, measured.profile.labels, plans[method].split_seed
    ours, theirs = first_pass(trace), first_pass(other)
    own_ms, other_ms = trace.latency_ms.to_numpy(), other.latency_ms.to_numpy()
    reduction = statistics.latency_reduction(own_ms, other_ms, trace.block.to_numpy())
    points = [[fold.point for fold in plans[name].folds] for name in (method, reference)]
    return {
        "method": reference,
        "accuracy_difference": asdict(statistics.score_difference(metric, labels, ours, theirs, seed=seed)),
        "mcnemar_p": None if measured.profile.is_regression else statistics.mcnemar(labels, ours, theirs),
        "latency_ms": float(other.latency_ms.mean()),
        "reduction_pct": reduction.value,
        "reduction_low": reduction.low,
        "reduction_high": reduction.high,
        "same_plan": points[0] == points[1],
    }


def cost(trace: pd.DataFrame, usd_per_hour: float) -> fields.Cost:
    """Device seconds and dollars per 1,000 queries; joules per query where the device counts them."""
    waited = trace.stage_wait_ms.mean() if "stage_wait_ms" in trace else 0.0  # in a queue, where there was one
    seconds = float(trace.latency_ms.mean() - waited)  # ms per query is s per 1,000 queries
    joules = float(trace.joules.mean())
    return {
        "device_seconds_per_1k": seconds,
        "usd_per_1k": seconds * usd_per_hour / 3600,
        "joules_per_query": None if np.isnan(joules) else joules,
    }


def agreement(trace: pd.DataFrame, replayed: Outcomes) -> fields.Agreement:
    """Live answers against replayed ones: equal, and of those that differ, how many lie at no threshold or tie."""
    first = trace[trace.first_pass].sort_values("row")
    live, labels = first.label.to_numpy(), replayed.labels
    alike = np.isclose(live, labels, atol=1e-2 if labels.dtype == float else 0)
    same = (first.level.to_numpy() == replayed.levels) & alike
    return {
        "compared": len(live),
        "equal": int(same.sum()),
        "borderline": int(replayed.borderline.sum()),
        "unexplained": int((~same & ~replayed.borderline).sum()),
        "predicted_ms": float(replayed.latency_ms.mean()),
    }


def _model(profile: Profile, name: str) -> fields.ModelFacts:
    model = profile.models[name]
    value = metrics.score(profile.metric, profile.labels, metrics.predictions_from(model.logits))
    facts: fields.ModelFacts = {"name": name, "params": model.params, "layers": model.layers, "score": value}
    facts |= {"mean_ms": model.mean_ms}
    if model.drift is not None:
        facts["in_batches"] = {size: float(curve(model.tokens).mean()) for size, curve in model.in_batches.items()}
        facts["labels_kept"] = float(np.isfinite(model.drift).mean())
    return facts


def small_level(task: Task, profile: Profile) -> dict[str, Any] | None:
    """The smallest model's confidence: how well it ranks right from wrong, and easy from hard where that is known."""
    if profile.is_regression:
        return None
    model = profile.models[profile.names[0]]
    sure = softmax(model.logits.astype(np.float64), axis=1).max(axis=1)
    right = metrics.predictions_from(model.logits) == profile.labels
    facts = {
        "model": model.name,
        "auroc_right": calibration.auroc(sure, right),
        "ece": calibration.ece(sure, right),
        "reliability": calibration.reliability(sure, right).to_dict("list"),
    }
    if "hard" in task.validation.column_names:
        facts["auroc_easy"] = calibration.auroc(sure, ~np.asarray(task.validation["hard"], bool))
    return facts
