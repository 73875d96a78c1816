"""A record as one flat row: every field with its meaning, which is the data dictionary too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tabi_bench.names import LEVELS

if TYPE_CHECKING:
    from tabi_bench.report.reading import Run

PERCENTILES = ("p50", "p90", "p95", "p99")
Field = tuple[str, "Callable[[Run], Any]"]


def text(meaning: str, key: str) -> Field:
    """A field of the record that is a name."""
    return meaning, lambda run: _name(getattr(run.record, key))


def _name(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def at(meaning: str, *path: str) -> Field:
    """A number in the record's objects, by its keys; None where one is missing."""

    def value(run: Run) -> float | None:
        inner = getattr(run.record, path[0])
        for key in path[1:]:
            inner = (inner or {}).get(key)
        return None if inner is None else float(inner)

    return meaning, value


def of(meaning: str, key: str) -> Field:
    """A property of the run."""
    return meaning, lambda run: getattr(run, key)


def _early(run: Run) -> float | None:
    return run.record.shares[0] if run.record.shares and run.record.method in LEVELS else None


FIELDS: dict[str, Field] = {
    "task": text("name of the task", "task"),
    "method": text("the system, by its name in conf/method", "method"),
    "status": text("ok, failed or infeasible", "status"),
    "error": text("why there are no numbers", "error"),
    "label": ("the preset, or adhoc", lambda run: _name(run.label)),
    "margin_se": of("standard errors by which the target had to be met on the tuning rows", "margin_se"),
    "seed": of("of training, folds and the order of queries", "seed"),
    "metric": ("the task's metric", lambda run: _name(run.record.accuracy.get("metric"))),
    "target": at("score to reach, a fraction", "target", "value"),
    "score": at("score reached, a fraction", "accuracy", "value"),
    "score_low": at("its 95 % interval", "accuracy", "low"),
    "score_high": at("its 95 % interval", "accuracy", "high"),
    "n": at("rows behind the score", "accuracy", "n"),
    "outcome": text("met, within noise or missed", "outcome"),
    "mean_ms": at("mean latency from raw text to answer, ms", "latency_ms", "mean"),
    "mean_ms_low": at("its 95 % interval over blocks", "latency_ms", "mean_low"),
    "mean_ms_high": at("its 95 % interval over blocks", "latency_ms", "mean_high"),
    **{p: at(f"percentile {p[1:]} of latency, ms", "latency_ms", p) for p in PERCENTILES},
    "p99_low": at("its 95 % interval, by a bootstrap of whole blocks", "latency_ms", "p99_low"),
    "p99_high": at("its 95 % interval, by a bootstrap of whole blocks", "latency_ms", "p99_high"),
    "queries": at("queries served, behind the latencies", "latency_ms", "n"),
    "distinct": at("distinct ones among them", "latency_ms", "distinct"),
    "blocks": at("blocks that they were served in", "latency_ms", "blocks"),
    "reference": ("the system that reductions are against", lambda run: _name(run.record.reference.get("method"))),
    "reduction_pct": at(
        "reduction of mean latency against the reference of the session, %", "reference", "reduction_pct"
    ),
    "reduction_pct_low": at("its 95 % interval over blocks", "reference", "reduction_low"),
    "reduction_pct_high": at("its 95 % interval over blocks", "reference", "reduction_high"),
    "difference": at("score minus the reference's, a fraction", "reference", "accuracy_difference", "value"),
    "difference_low": at("its paired 95 % interval", "reference", "accuracy_difference", "low"),
    "difference_high": at("its paired 95 % interval", "reference", "accuracy_difference", "high"),
    "plain_score": at("score under the plain rule (no margin), replayed", "details", "plain_rule", "score"),
    "plain_reduction_pct": at("reduction under the plain rule, replayed, %", "details", "plain_rule", "reduction_pct"),
    "returned_early": ("share of queries that the first of several levels answered", _early),
    "shares": ("share of queries that each level answered", lambda run: list(map(float, run.record.shares))),
    "words_pruned_share": at("share of the words of re-routed queries that pruning removed", "words_pruned_share"),
    "usd_per_1k": at("dollars for 1,000 queries at the configured price", "cost", "usd_per_1k"),
    "joules_per_query": at("energy of one query, where the device counts it", "cost", "joules_per_query"),
    "throughput_qps": at("queries a second, one after the other", "throughput_qps"),
    "search_s": at("planning, once the profile is there, seconds", "offline_s", "search"),
    "source": text("where the rows come from", "source"),
    "zoo": text("where the models come from", "zoo"),
    "engine": text("what runs the models", "engine"),
    "dtype": ("of the models' arithmetic", lambda run: _name(run.setting.dtype)),
    "device": text("what it ran on", "device"),
    "scenario": text("how queries arrive", "scenario"),
    "session_id": text("the session: numbers of different sessions are never divided", "session_id"),
    "run_id": text("the folder of the record", "run_id"),
    "commit": ("of the code that measured it", lambda run: _name(run.record.provenance.get("commit"))),
    "time": ("when it was measured, UTC", lambda run: _name(run.time)),
}


def row(run: Run) -> dict[str, Any]:
    """A record as one flat row; what it lacks is None."""
    return {name: value(run) for name, (_, value) in FIELDS.items()}


def frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One flat row per record: what notebooks and tables start from."""
    return pd.DataFrame([row(run) for run in runs], columns=list(FIELDS))


def write(runs: Iterable[Run], out: Path) -> list[Path]:
    """All records as records.csv and records.parquet, and what their columns mean as records.md."""
    data, out = frame(runs), Path(out)
    paths = [out / f"records.{end}" for end in ("csv", "parquet", "md")]
    flat = data.assign(shares=[" / ".join(f"{share:.4g}" for share in shares) for shares in data.shares])
    flat.to_csv(paths[0], index=False, lineterminator="\n", float_format="%.7g")
    with paths[1].open("wb") as stream:
        data.to_parquet(stream, index=False)
    lines = [f"| `{name}` | {meaning} |" for name, (meaning, _) in FIELDS.items()]
    head = ["# records.csv, records.parquet", "", "One row per record; what a record lacks is empty.", ""]
    paths[2].write_text("\n".join([*head, "| column | meaning |", "|---|---|", *lines, ""]), encoding="utf-8")
    return paths
