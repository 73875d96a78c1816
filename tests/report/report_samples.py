"""Hand-written results: sessions with records, traces, plans and profiles as the program writes them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from tabi_bench.records.record import Record

ROWS = 120
MODELS = {"small": (1_000_000, 1, 2.0), "middle": (3_000_000, 2, 4.0), "large": (9_000_000, 4, 10.0)}


def record(method: str, session: str = "s", **changes) -> Record:
    """A record of a session in which INFaaS takes 10 ms and Tabi 6."""
    mean = {"infaas": 10.0, "cocktail": 8.0}.get(method, 6.0)
    search = {"margin_se": changes.pop("margin_se", 0.5)}
    config = {"label": changes.pop("label", "main_table"), "search": search, "method": changes.pop("option", {})}
    config["seed"] = changes.pop("seed", 0)
    fields = {
        "run_id": f"sst2-{method}-{session}",
        "session_id": session,
        "task": "sst2",
        "source": "generated",
        "zoo": "tiny",
        "engine": "eager",
        "device": "Some(R) CPU @ 2.00GHz, 2 cores",
        "target": {"kind": "relative", "value": 0.9, "folds": [0.9, 0.9]},
        "accuracy": {"metric": "accuracy", "value": 0.925, "low": 0.86, "high": 0.961, "n": ROWS},
        "outcome": "met",
        "latency_ms": {"mean": mean, "p50": mean, "p90": mean, "p95": mean, "p99": mean + 2, "n": ROWS}
        | {"p99_low": mean + 1, "p99_high": mean + 3},
        "breakdown_ms": {"level1": mean - 1, "tokenise": 0.75, "harness": 0.25},
        "shares": [0.6, 0.4] if method == "tabi" else [1.0],
        "reference": {"method": "infaas", "reduction_pct": 100 * (1 - mean / 10)},
        "cost": {"usd_per_1k": mean * 2.5 / 3600, "joules_per_query": None},
        "throughput_qps": 1e3 / mean,
        "provenance": {"dtype": "float32", "commit": "abc1234567", "time": "2026-01-01T00:00:00+00:00"},
    }
    return Record(method=method, config=config, **{**fields, **changes})


def trace(mean_ms: float, routed: float = 0.0) -> pd.DataFrame:
    """ROWS queries whose latencies average to mean_ms; the last share `routed` went on to level 2, half their words."""
    ms = mean_ms + np.linspace(-1, 1, ROWS)
    level = (np.arange(ROWS) >= ROWS * (1 - routed)).astype(int)
    return pd.DataFrame(
        {
            "position": np.arange(ROWS),
            "row": np.arange(ROWS),
            "block": np.arange(ROWS) // 3,
            "first_pass": True,
            "latency_ms": ms,
            "joules": np.nan,
            "label": 0,
            "level": level,
            "words": 10 * level,
            "words_kept": 5 * level,
            "stage_level1_ms": ms if routed == 0 else 2.0,
            "stage_level2_ms": 8.0 * level,
        }
    )


def plan(method: str) -> dict:
    """Two folds; INFaaS runs the large model, Tabi the small and the large one, Cocktail the others."""
    point = {"members": ["small", "middle"]} if method == "cocktail" else {"model": "large"}
    if method == "tabi":
        point = {"models": ["small", "large"], "temperatures": [2.0, 1.0], "weights": [0.8, 0.95], "taus": [0.75]}
        point |= {"alphas": [0.5], "ensemble": "weighted", "confidence": "max", "agreement": []}
    halves = [list(range(0, ROWS, 2)), list(range(1, ROWS, 2))]
    folds = [{"tuned_on": halves[k], "serves": halves[1 - k], "target": 0.9, "point": point} for k in (0, 1)]
    return {"method": method, "task": "sst2", "folds": folds, "split_seed": 0, "fingerprint": {}}


def save_profile(path, task: str = "sst2") -> None:
    """Two labels; the larger a model, the more often right; wrong answers are less sure."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, ROWS)
    arrays = {"labels": labels, "rows": np.arange(ROWS)}
    for (name, (_, _, ms)), share in zip(MODELS.items(), (0.8, 0.88, 0.95), strict=True):
        right = random.random(ROWS) < share
        sure = np.where(right, random.uniform(1, 4, ROWS), random.uniform(0, 2, ROWS))
        answers = np.where(right, labels, 1 - labels)
        arrays[f"{name}/logits"] = np.stack([sure * (answers == 0), sure * (answers == 1)], 1).astype(np.float16)
        arrays[f"{name}/tokens"] = np.full(ROWS, 12, np.uint16)
        arrays[f"{name}/latency_lengths"] = np.array([8, 16])
        arrays[f"{name}/latency_ms"] = np.array([ms, ms])
        arrays[f"{name}/latency_ms_importance"] = np.array([ms, ms])
        arrays[f"{name}/step"] = np.array(False)
    meta = {"task": task, "metric": "accuracy", "models": list(MODELS)}
    meta |= {"params": [m[0] for m in MODELS.values()], "layers": [m[1] for m in MODELS.values()]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)


def write(root, *records: Record, profile: bool = True) -> None:
    """One session below `root`, as the program lays it out."""
    for r in records:
        folder = root / r.config["label"] / r.run_id
        r.save(folder)
        if r.status == "ok":
            trace(r.latency_ms["mean"], 0.4 if r.method == "tabi" else 0.0).to_parquet(folder / "trace.parquet")
            (folder / "plan.json").write_text(json.dumps(plan(r.method)))
        if profile:
            save_profile(root / r.config["label"] / "profiles" / f"{r.session_id}.npz", r.task)


def under_load(goodput, overloaded=False):
    seeds = [{"passed": goodput * factor, "failed": goodput * factor * 1.05} for factor in (0.9, 1.0, 1.1)]
    p99 = {"value": 4.0, "low": 3.0, "high": 5.0}
    facts = {"rate": 700.0, "slo_ms": 10.0, "saturation_qps": 1000.0, "busy_share": 0.7, "forward_share": 0.6}
    facts |= {"mean_batch": 3.0, "goodput": {"qps": goodput, "seeds": seeds, "seconds": 30}}
    point = {"rate": 500.0, "p50": 1.0, "p99": 3.0, "mean": 1.5, "overloaded": False}
    facts["curve"] = [point, {"rate": 2000.0, "overloaded": True}]
    if overloaded:
        return {"load": {key: facts[key] for key in ("rate", "slo_ms", "saturation_qps", "goodput", "curve")}}
    return {"load": facts | {"p99": p99}}


def write_under_load(root) -> None:
    """A session of experiment=load, whose Cocktail is overloaded, and one of experiment=offline."""
    records = [
        record(m, "l", label="load", run_id=f"l-{m}", details=under_load(q))
        for m, q in (("infaas", 800.0), ("tabi", 1200.0))
    ]
    nothing = {"accuracy": {}, "latency_ms": {}, "shares": [], "reference": {}, "cost": {}, "throughput_qps": None}
    slow = {"status": "infeasible", "error": "overloaded at 700 queries a second", "outcome": None, **nothing}
    records.append(record("cocktail", "l", label="load", run_id="l-c", details=under_load(300.0, True), **slow))
    write(root, *records)
    facts = {"load": {"forward_share": 0.8, "busy_share": 0.9, "mean_batch": 60.0}}
    write(root, *(record(m, "o", label="offline", run_id=f"o-{m}", details=facts) for m in ("infaas", "tabi")))
