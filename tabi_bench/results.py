"""From a session's traces to the fields of its records: scores, latencies, the reference, costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabi_bench.account import of_cascade
from tabi_bench.config import CascadeConfig
from tabi_bench.evaluation import calibration, metrics, statistics
from tabi_bench.evaluation.targets import predictions_of
from tabi_bench.profiling.profile import Profile
from tabi_bench.records import Record
from tabi_bench.system import Outcomes, Plan, System

if TYPE_CHECKING:
    from tabi_bench.experiment import Session

PERCENTILES = (0.5, 0.9, 0.95, 0.99)


def describe_result(
    record: Record,
    session: Session,
    profile: Profile,
    plan: Plan,
    system: System,
    traces: dict[str, pd.DataFrame],
    reference: str,
    replayed: Outcomes,
) -> None:
    """Fills `record` from the traces of its session. `reference`: the system that reductions are against."""
    trace, labels = traces[record.method], profile.labels
    said = first_pass(trace)
    reached = statistics.score_interval(profile.metric, labels, said, seed=plan.split_seed)
    target = float(np.average([f.target for f in plan.folds], weights=[_served(f, profile) for f in plan.folds]))
    record.target = {"kind": session.config.target.kind, "value": target, "folds": [f.target for f in plan.folds]}
    record.accuracy = {"metric": profile.metric, **asdict(reached)}
    record.outcome = statistics.outcome(reached, target)
    record.latency_ms = latencies(trace)
    record.breakdown_ms = breakdown(trace)
    record.shares = shares(trace)
    record.words_pruned_share = words_pruned(trace)
    record.reference = against(trace, traces[reference], reference, profile.metric, labels, plan.split_seed)
    record.cost = cost(trace, session.config.cost.usd_per_hour)
    record.throughput_qps = 1e3 / record.latency_ms["mean"]
    search = session.offline_s.get(f"search {record.method}", 0.0)
    record.offline_s = {"train": session.offline_s["train"], "profile": session.offline_s["profile"], "search": search}
    record.details = {
        "also": metrics.also(session.config.task.also, labels, said),
        "data": session.task.notes,
        "zoo": {"models": [_model(profile, name) for name in profile.names], **session.zoo.notes},
        "engine": session.engine.describe(),
        "plan": [fold.predicted for fold in plan.folds],
        "system": dict(system.describe()),
        "failures": int(trace.failures.sum()),
        "truncated": int(trace.truncated[trace.first_pass].sum()),
        "replay": agreement(trace, replayed),
        "harness_us": harness_us(trace),
        "small_level": small_level(session, profile),
    }
    if isinstance(session.options[record.method], CascadeConfig):
        record.details |= of_cascade(profile, plan, replayed)


def first_pass(trace: pd.DataFrame) -> np.ndarray:
    """(N,) answers by validation row: each row once."""
    first = trace[trace.first_pass].sort_values("row")
    return first.label.to_numpy()


def _served(fold: Any, profile: Profile) -> int:
    return len(fold.serves) if fold.serves is not None else len(profile.rows)


def latencies(trace: pd.DataFrame) -> dict[str, Any]:
    """Mean and percentiles with their intervals, over all served queries."""
    ms, rows, blocks = (trace[column].to_numpy() for column in ("latency_ms", "row", "block"))
    mean = statistics.mean_latency(ms, blocks)
    found = {"mean": mean.value, "mean_low": mean.low, "mean_high": mean.high, "n": mean.n}
    found["blocks"] = len(np.unique(blocks))
    for q in PERCENTILES:
        p = statistics.percentile(ms, q, blocks, rows)
        found[f"p{round(100 * q)}"] = p.value if p.enough else None
        if q == 0.99:
            found |= {"p99_low": p.low, "p99_high": p.high, "distinct": p.distinct}
    return found


def breakdown(trace: pd.DataFrame) -> dict[str, float]:
    """Mean milliseconds per query by stage; `harness`: the rest of the clock."""
    stages = [column for column in trace if column.startswith("stage_")]
    means = {column[len("stage_") : -len("_ms")]: float(trace[column].mean()) for column in stages}
    return {**means, "harness": float(trace.latency_ms.mean() - sum(means.values()))}


def harness_us(trace: pd.DataFrame) -> float | None:
    """Median microseconds beside tokenising and forward passes, on queries that returned at the first level."""
    early = trace[(trace.level == 0) & (trace.failures == 0)]
    inside = [c for c in trace if c.startswith("stage_level") or c == "stage_tokenise_ms"]
    return float(1e3 * (early.latency_ms - early[inside].sum(axis=1)).median()) if len(early) else None


def shares(trace: pd.DataFrame) -> list[float]:
    """Share of the queries of the first pass that each level returned."""
    levels = trace.level[trace.first_pass].to_numpy()
    return (np.bincount(levels) / len(levels)).tolist()


def words_pruned(trace: pd.DataFrame) -> float:
    """Share of the words of re-routed queries that pruning removed."""
    routed = trace[trace.first_pass & (trace.level > 0) & (trace.words > 0)]
    return float(1 - routed.words_kept.sum() / routed.words.sum()) if len(routed) else 0.0


def against(
    trace: pd.DataFrame, other: pd.DataFrame, method: str, metric: str, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Score and latency beside the reference's, on the same queries."""
    ours, theirs = first_pass(trace), first_pass(other)
    difference = statistics.score_difference(metric, labels, ours, theirs, seed=seed)
    reduction = statistics.latency_reduction(
        trace.latency_ms.to_numpy(), other.latency_ms.to_numpy(), trace.block.to_numpy()
    )
    return {
        "method": method,
        "accuracy_difference": asdict(difference),
        "mcnemar_p": statistics.mcnemar(labels, ours, theirs) if not metrics.metric_of(metric).regression else None,
        "latency_ms": float(other.latency_ms.mean()),
        "reduction_pct": reduction.value,
        "reduction_low": reduction.low,
        "reduction_high": reduction.high,
    }


def beside_oracle(found: dict[str, Record]) -> None:
    """Tabi's share of the reduction that the oracle's routing reached, into the details of both. found: by method."""
    if not {"tabi", "oracle"} <= set(found):
        return
    tabi, oracle = found["tabi"], found["oracle"]
    reached, routed = (record.reference["reduction_pct"] for record in (tabi, oracle))
    system = oracle.details["system"]
    note = "routing alone reaches Tabi's score"
    if not system["reached"]:
        note = "routing alone does not reach Tabi's score: the rest comes from its ensemble"
    elif reached > routed:
        note = "Tabi is faster than routing alone at its score: pruning or the ensemble outdo it"
    line = {"score": system["score_to_reach"], "reached": system["reached"], "tabi_reduction_pct": reached}
    line |= {"oracle_reduction_pct": routed, "share": reached / routed if routed > 0 else None, "note": note}
    tabi.details["oracle"] = oracle.details["oracle"] = line


def time_saved(found: dict[str, Record]) -> None:
    """DeeBERT's measured saving of time beside the expected one. found: by method.

    The whole model was profiled but not served: its time is scaled as serving slowed down the session's reference.
    """
    if "deebert" not in found:
        return
    early, system = found["deebert"], found["deebert"].details["system"]
    reference = found[early.reference["method"]]
    drift = reference.latency_ms["mean"] / reference.details["replay"]["predicted_ms"]
    system["saving_pct"]["time_measured"] = 100 * (1 - early.latency_ms["mean"] / (drift * system["full_ms"]))


def cost(trace: pd.DataFrame, usd_per_hour: float) -> dict[str, float | None]:
    """Device seconds and dollars per 1,000 queries; joules per query where the device counts them."""
    seconds = float(trace.latency_ms.mean())  # ms per query is s per 1,000 queries
    joules = float(trace.joules.mean())
    return {
        "device_seconds_per_1k": seconds,
        "usd_per_1k": seconds * usd_per_hour / 3600,
        "joules_per_query": None if np.isnan(joules) else joules,
    }


def agreement(trace: pd.DataFrame, replayed: Outcomes) -> dict[str, Any]:
    """Live answers against replayed ones: equal, and of those that differ, how many lie at no threshold or tie."""
    first = trace[trace.first_pass].sort_values("row")
    live, said = first.label.to_numpy(), replayed.labels
    same = (first.level.to_numpy() == replayed.levels) & np.isclose(live, said, atol=1e-2 if said.dtype == float else 0)
    return {
        "compared": len(live),
        "equal": int(same.sum()),
        "borderline": int(replayed.borderline.sum()),
        "unexplained": int((~same & ~replayed.borderline).sum()),
        "predicted_ms": float(replayed.latency_ms.mean()),
    }


def replayed_result(profile: Profile, said: Outcomes, reference: dict[str, float] | None) -> dict[str, float]:
    """Score, mean latency (ms) and its reduction (%) against the reference's, of replayed answers."""
    latency = float(said.latency_ms.mean())
    base = reference["latency_ms"] if reference else latency
    return {
        "score": metrics.score(profile.metric, profile.labels, said.labels),
        "latency_ms": latency,
        "reduction_pct": 100 * (1 - latency / base),
        "shares": (np.bincount(said.levels) / len(said.levels)).tolist(),
    }


def _model(profile: Profile, name: str) -> dict[str, Any]:
    model = profile.models[name]
    value = metrics.score(profile.metric, profile.labels, predictions_of(model.logits))
    return {"name": name, "params": model.params, "layers": model.layers, "score": value, "mean_ms": model.mean_ms}


def small_level(session: Session, profile: Profile) -> dict[str, Any] | None:
    """The smallest model's confidence: how well it ranks right from wrong, and easy from hard where that is known."""
    model = profile.models[profile.names[0]]
    if profile.is_regression:
        return None
    from scipy.special import softmax

    sure = softmax(model.logits.astype(np.float64), axis=1).max(axis=1)
    right = predictions_of(model.logits) == profile.labels
    found = {
        "model": model.name,
        "auroc_right": calibration.auroc(sure, right),
        "ece": calibration.ece(sure, right),
        "reliability": calibration.reliability(sure, right).to_dict("list"),
    }
    if "hard" in session.task.validation.column_names:
        found["auroc_easy"] = calibration.auroc(sure, ~np.asarray(session.task.validation["hard"], bool))
    return found
