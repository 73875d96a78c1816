"""The paper's twelve models as shapes with random weights: their latency beside the paper's.

Made from the files of `python -m tabi_bench.bench.engines --models paper --results DIR`, and the paper's numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.report import paper
from tabi_bench.report.cells import Row, Table, number, word

NOTE = (
    "Ours: median from raw text to label, one query at a time, every text of exactly so many tokens (of whole words, "
    "so that tokenising is cheap). Engines of one model and length were measured interleaved. The paper's: printed, on "
    "other hardware, at lengths that it does not print."
)


def build(root: Path | str) -> list[Table]:
    """One table per file of the bench in the folder that holds any of the paper's models."""
    tables = []
    paper_models = set(paper.printed("models").model.str.lower())
    for path in sorted(Path(root).expanduser().glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"device", "rows"} <= content.keys():
            rows = [row for row in content["rows"] if row["model"] in paper_models]
            tables += [_latencies(path.stem, content["device"], rows)] if rows else []
    return tables


def _latencies(stem: str, device: dict[str, Any], rows: list[Row]) -> Table:
    """The paper's latency of each model, ours by engine and length, and how many times the paper's that is less."""
    ms = {(row["model"], row["entry"], row["length"]): row["text_p50"] for row in rows if row["text_p50"] is not None}
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    ways = sorted({way[1:] for way in ms}, key=lambda way: (entries.index(way[0]), way[1]))
    lines = []
    for printed in paper.printed("models").itertuples():
        cells = {"model": printed.model, "params_millions": printed.params_millions, "paper_ms": printed.latency_ms}
        for entry, length in ways:
            ours = ms.get((printed.model.lower(), entry, length))
            cells[f"{entry} {length} ms"] = ours
            cells[f"{entry} {length} ratio"] = printed.latency_ms / ours if ours else None
        lines.append(cells)
    columns = [word("model", "model"), number("params_millions", "params M", 0), number("paper_ms", "paper: ms", 0)]
    for entry, length in ways:
        columns.append(number(f"{entry} {length} ms", f"{entry}, {length} tokens: ms"))
        columns.append(number(f"{entry} {length} ratio", f"{entry}, {length}: paper / ours", 1))
    title = f"The paper's twelve models: latency ({device['name']})"
    notes = [NOTE, *_problems(rows)]
    return Table(f"{stem}-shapes", title, pd.DataFrame(lines), columns, _provenance(device, rows), notes)


def _provenance(device: dict[str, Any], rows: list[Row]) -> str:
    dtypes = sorted({row["engine"]["dtype"] for row in rows if row.get("engine", {}).get("dtype")})
    limit = f"power limit {device['power_limit_w']:.0f} W" if device.get("power_limit_w") else None
    versions = [f"{key} {device[key]}" for key in ("driver", "torch", "transformers", "commit") if device.get(key)]
    parts = ["random weights", *dtypes, f"device {device['name']}", limit, *versions, device.get("day")]
    return "; ".join(part for part in parts if part) + "."


def _problems(rows: list[Row]) -> list[str]:
    """A sentence per reason for which rows have no times, and per engine that ran as another one."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if row["error"]:
            by_reason.setdefault(row["error"], []).append(f"{row['model']} {row['entry']} {row['length']}")
    return [f"{reason.rstrip('.')}: {', '.join(where)}." for reason, where in by_reason.items()]
