"""What a person reads after a session: what was asked, a row per system, where the records lie."""

from __future__ import annotations

from pathlib import Path

from tabi_bench.config import Config
from tabi_bench.names import printed
from tabi_bench.records.record import Record
from tabi_bench.verdict import verdict

COLUMNS = (
    "system",
    "score % [95 %]",
    "target",
    "levels",
    "words cut",
    "mean ms",
    "p50",
    "p99",
    "$ / 1M",
    "J / query",
    "reduction [95 %]",
)


def heading(records: list[Record]) -> str:
    """Task, source, zoo, engine, device, target; what speaks against the numbers below."""
    first = next((r for r in records if r.status == "ok"), records[0])
    lines = [f"{first.task} from source {first.source}, zoo {first.zoo}, engine {first.engine} on {first.device}"]
    if first.source == "generated":
        lines.append(f"Generated rows: a stand-in with the columns of {first.task}, no evidence about the real task.")
    if first.target:
        kinds = {"relative": "best single model minus slack", "paper": "the paper's"}
        kind = kinds.get(first.target["kind"], "absolute")
        metric, value = first.details["data"].get("metric", first.accuracy["metric"]), 100 * first.target["value"]
        lines.append(f"Target: {metric} {value:.1f} % ({kind}), same for all systems.")
    lines += dict.fromkeys(f"Warning: {warning}" for record in records for warning in record.warnings)
    return "\n".join([*lines, *_contradictions(records)])


def _contradictions(records: list[Record]) -> list[str]:
    """Live answers that are not those of the profile, though they lie at no threshold and between no two labels."""
    counts = {r.method: r.details["replay"] for r in records if "replay" in r.details}
    return [
        f"Warning: {printed(method)}: {count['unexplained']} of {count['compared']} live answers contradict "
        "the profile behind its plan. Something changed in between, or a cache is damaged: move "
        "cache_dir away and measure again."
        for method, count in counts.items()
        if count["unexplained"]
    ]


def rows(records: list[Record]) -> list[list[str]]:
    """One row per system, in the order of COLUMNS."""
    return [_row(record) for record in records]


def _row(r: Record) -> list[str]:
    if r.status != "ok":
        return [printed(r.method), r.status, *[""] * (len(COLUMNS) - 2)]
    a, ms = r.accuracy, r.latency_ms
    return [
        printed(r.method),
        f"{100 * a['value']:.1f} [{100 * a['low']:.1f}, {100 * a['high']:.1f}]",
        r.outcome or "",
        " / ".join(f"{100 * share:.0f} %" for share in r.shares),
        f"{100 * r.words_pruned_share:.0f} %" if len(r.shares) > 1 else "",
        f"{ms['mean']:.3f}",
        f"{ms['p50']:.3f}",
        f"{ms['p99']:.3f}" if ms["p99"] is not None else "too few",
        f"{1e3 * r.cost['usd_per_1k']:.2f}",
        "" if r.cost["joules_per_query"] is None else f"{r.cost['joules_per_query']:.3g}",
        _reduction(r),
    ]


def _reduction(r: Record) -> str:
    ref = r.reference
    if ref["method"] == r.method:
        return "reference"
    interval = "" if ref["reduction_low"] is None else f" [{ref['reduction_low']:.1f}, {ref['reduction_high']:.1f}]"
    return f"{ref['reduction_pct']:.1f} %{interval}"


def where(records: list[Record], config: Config) -> str:
    """Reasons of what has no result, the folder of the records, and whether a cascade pays."""
    lines = [f"{printed(r.method)}: {r.error}" for r in records if r.status != "ok"]
    ok = next((r for r in records if r.status == "ok"), None)
    if ok is not None:
        versus = printed(ok.reference["method"])
        lines.append(f"levels: share of queries answered at level 1 / 2; reduction: of mean latency against {versus}.")
        price = ok.config["cost"]["usd_per_hour"]  # that of the record, which may be an earlier run's
        lines += _under_load(ok)
        lines.append(f"$ / 1M: the device's time for a million queries, at cost.usd_per_hour={price:g}.")
    remarks = [(r.method, remark) for r in records for remark in _load_remarks(r)]
    remarks += [(r.method, remark) for r in records for remark in r.details.get("system", {}).get("remarks", ())]
    lines += [f"{printed(method)}: {remark}" for method, remark in remarks]
    folder = Path(config.results_dir) / config.label
    lines += [f"Record: {folder / r.run_id}" for r in records]
    if sentence := verdict(records):
        lines += ["", sentence]
    return "\n".join(lines)


def _under_load(record: Record) -> list[str]:
    """What the columns mean where queries do not come one after the other."""
    load, size = record.details.get("load") or {}, record.config["scenario"].get("max_batch")
    if record.scenario == "offline":
        return [f"mean ms: time of a pass over its queries, in batches of {size}; p50 and p99 are over passes."]
    if not load:
        return []
    low = f"{load['rate']:.0f} queries a second in batches of at most {size}"
    return [
        f"Latencies are from the scheduled arrival, at {low}; the reference saturates at {load['saturation_qps']:.0f}."
    ]


def _load_remarks(record: Record) -> list[str]:
    """Busy shares, goodput and idle power of a system under load, as far as they were measured."""
    load, remarks = record.details.get("load") or {}, []
    if "busy_share" in load:
        shares = f"{load['busy_share']:.0%} of the time, {load['forward_share']:.0%} in forward passes"
        remarks.append(f"busy {shares}, {load['mean_batch']:.1f} queries a batch")
    if "goodput" in load:
        seconds, bound = load["goodput"]["seconds"], load["slo_ms"]
        qps = load["goodput"]["qps"]
        remarks.append(f"goodput {qps:.0f} a second: p99 within {bound:.2f} ms in runs of {seconds:g} s")
    if load.get("idle_w") is not None:
        remarks.append(f"the idle device draws {load['idle_w']:.0f} W, which is in J / query")
    return remarks
