"""Tables of other files than records: the ladder of models as it was trained, the paper's models as shapes.

The ladder is made from the files that `python -m tabi_bench.zoo.train --report FILE` wrote: every `training*.json` of a
folder, for instance one of each seed, and one with `--no-distill`. The shapes, with random weights, are made from the
files of `python -m tabi_bench.bench.engines --models paper --results DIR`; beside them stand the paper's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.names import TASKS, place
from tabi_bench.report import paper
from tabi_bench.report.cells import Column, Row, Table, number, word

MAJORITY, ROWS = "majority class, % of rows", "validation rows"
SCORES = (
    "Validation score in percent: accuracy; cola: Matthews correlation, stsb: Pearson correlation, both times 100 (the "
    "same answer to all scores 0 there)."
)


def trained(root: Path | str) -> pd.DataFrame:
    """One row per model in the `training*.json` of `root`, without those that failed; score in percent.

    taught: whether it learnt from the largest model's answers as well as from labels.
    """
    lines = []
    for path in sorted(Path(root).expanduser().glob("training*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        models = [model for model in content.get("models", []) if "error" not in model]
        deepest = max((model["layers"] for model in models), default=0)
        distilled = "distill=false" not in content["work"].get("overrides", [])
        for model in models:
            cells = {"seed": 0, "source": "unknown", "zoo": "minilm", "train_rows": None} | content["work"]
            cells |= {"model": f"{model['layers']} layers", "taught": distilled and model["layers"] < deepest} | model
            lines.append(cells | {"score": 100 * model["validation_score"]})
    return pd.DataFrame(lines).drop_duplicates(["model", "taught", "task", "seed"]) if lines else pd.DataFrame()


def ladder(root: Path | str) -> Table | None:
    """Models x tasks: the median over seeds, with the lowest and the highest; None where no training is known."""
    data = trained(root)
    if data.empty:
        return None
    tasks = sorted(set(data.task), key=lambda task: place(TASKS, task))
    order = data.groupby(["model", "taught"]).score.mean().sort_values(ascending=False).index
    lines = [_line(data[(data.model == model) & (data.taught == taught)], model, taught) for model, taught in order]
    for what, key, factor in ((MAJORITY, "majority_share", 100.0), (ROWS, "validation_rows", 1.0)):
        known = data.dropna(subset=key) if key in data else data[:0]
        lines += [{"model": what} | dict(zip(known.task, factor * known[key], strict=True))] if len(known) else []
    columns = [word("model", "model"), word("taught", "taught by the best"), *map(_score, tasks)]
    title, notes = "The ladder of models", [_ladder_note(data)]
    return Table("ladder", title, pd.DataFrame(lines), columns, _trained_on(data), notes)


def _line(rows: pd.DataFrame, model: str, taught: bool) -> Row:
    cells: Row = {"model": model, "taught": "yes" if taught else "no"}
    for task, of_task in rows.groupby("task").score:
        cells[task] = of_task.median()
        cells |= {f"{task}_low": of_task.min(), f"{task}_high": of_task.max()} if len(of_task) > 1 else {}
    return cells


def _score(task: str) -> Column:
    """A task's column: percent with one digit; rows of a table are counted in whole ones."""
    return Column(task, lambda line: number(task, task, 0 if line["model"] == ROWS else 1).render(line))


def _ladder_note(data: pd.DataFrame) -> str:
    seeds = f" Median over the seeds {_listed(data.seed)} [lowest, highest]." if data.seed.nunique() > 1 else ""
    via_mnli = data.task[data.via_mnli.notna() & data.via_mnli.ne(False)] if "via_mnli" in data else []
    started = f" Started from mnli's models: {_listed(via_mnli)}." if len(via_mnli) else ""
    return SCORES + seeds + started


def _trained_on(data: pd.DataFrame) -> str:
    """Sources, devices and versions, as far as the files tell."""
    parts = [f"source {_listed(data.source)}", f"zoo {_listed(data.zoo)}"]
    parts += [f"at most {_listed(data.train_rows.dropna())} rows of train"] if data.train_rows.notna().any() else []
    parts += [f"trained on {_listed(data.device)}"]
    return "; ".join(parts + ([f"torch {_listed(data.torch.dropna())}"] if "torch" in data else [])) + "."


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(set(map(str, values))))


# --- the paper's models as shapes -------------------------------------------------------------------------------------


SHAPES = (
    "Ours: median from raw text to label, one query at a time, every text of exactly so many tokens (of whole words, "
    "so that tokenising is cheap). Engines of one model and length were measured interleaved. The paper's: printed, on "
    "other hardware, at lengths that it does not print."
)


def shapes(root: Path | str) -> list[Table]:
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
    notes = [SHAPES, *_problems(rows)]
    return Table(f"{stem}-shapes", title, pd.DataFrame(lines), columns, _measured_on(device, rows), notes)


def _measured_on(device: dict[str, Any], rows: list[Row]) -> str:
    dtypes = sorted({row["engine"]["dtype"] for row in rows if row.get("engine", {}).get("dtype")})
    limit = f"power limit {device['power_limit_w']:.0f} W" if device.get("power_limit_w") else None
    versions = [f"{key} {device[key]}" for key in ("driver", "torch", "transformers", "commit") if device.get(key)]
    parts = ["random weights", *dtypes, f"device {device['name']}", limit, *versions, device.get("day")]
    return "; ".join(part for part in parts if part) + "."


def _problems(rows: list[Row]) -> list[str]:
    """A sentence per reason for which rows have no times, and per engine that ran as another one."""
    failed = pd.DataFrame([row for row in rows if row["error"]], columns=["model", "entry", "length", "error"])
    where = failed.model + " " + failed.entry + " " + failed.length.astype(str)
    return [f"{reason.rstrip('.')}: {', '.join(of_it)}." for reason, of_it in where.groupby(failed.error, sort=False)]
