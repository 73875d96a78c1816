"""The ladder table: scores of the fine-tuned models by task, over the seeds of their training.

It is made from the files that `python -m tabi_bench.zoo.train --report FILE` wrote: every `training*.json` of a
folder, for instance one of each seed, and one with `--no-distill`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.names import TASKS, place
from tabi_bench.report.cells import Column, Row, Table, number, word

MAJORITY, ROWS = "majority class, % of rows", "validation rows"
RULES = (
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
    return Table("ladder", "The ladder of models", pd.DataFrame(lines), columns, _provenance(data), [_note(data)])


def _line(rows: pd.DataFrame, model: str, taught: bool) -> Row:
    cells: Row = {"model": model, "taught": "yes" if taught else "no"}
    for task, of_task in rows.groupby("task").score:
        cells[task] = of_task.median()
        cells |= {f"{task}_low": of_task.min(), f"{task}_high": of_task.max()} if len(of_task) > 1 else {}
    return cells


def _score(task: str) -> Column:
    """A task's column: percent with one digit; rows of a table are counted in whole ones."""
    return Column(task, lambda line: number(task, task, 0 if line["model"] == ROWS else 1).render(line))


def _note(data: pd.DataFrame) -> str:
    seeds = f" Median over the seeds {_listed(data.seed)} [lowest, highest]." if data.seed.nunique() > 1 else ""
    via_mnli = data.task[data.via_mnli.notna() & data.via_mnli.ne(False)] if "via_mnli" in data else []
    started = f" Started from mnli's models: {_listed(via_mnli)}." if len(via_mnli) else ""
    return RULES + seeds + started


def _provenance(data: pd.DataFrame) -> str:
    """Sources, devices and versions, as far as the files tell."""
    parts = [f"source {_listed(data.source)}", f"zoo {_listed(data.zoo)}"]
    parts += [f"at most {_listed(data.train_rows.dropna())} rows of train"] if data.train_rows.notna().any() else []
    parts += [f"trained on {_listed(data.device)}"]
    return "; ".join(parts + ([f"torch {_listed(data.torch.dropna())}"] if "torch" in data else [])) + "."


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(set(map(str, values))))
