"""The ladder table: scores of the fine-tuned models by layers and task, with and without distillation, by seed.

It is made from the files that `python -m tabi_bench.zoo.train --report FILE` wrote: every `training*.json` of a
folder, for instance one run as it is, one with `--no-distill` and one with `--seed 1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.names import TASKS, place
from tabi_bench.report.cells import Column, Row, Table, number, word

DISTILLED, ALONE = "distilled", "labels alone"
ROWS, MAJORITY = "validation rows", "majority class, % of rows"
FACTS = (
    "seed",
    "layers",
    "task",
    "kind",
    "score",
    "majority_share",
    "validation_rows",
    "source",
    "device",
    "torch",
    "rows",
    "via_mnli",
)


def trained(root: Path | str) -> pd.DataFrame:
    """One row per model in the `training*.json` of `root`, without those that failed: FACTS, None where unknown.

    kind: whether it learnt from the largest model as well, which itself learns from labels alone in every run.
    """
    lines = []
    for path in sorted(Path(root).expanduser().glob("training*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        work = content["work"]
        distilled = "distill=false" not in work.get("overrides", [])
        common = {"seed": work.get("seed", 0), "source": work.get("source", "unknown"), "device": work.get("device")}
        common["rows"] = work.get("train_rows")
        for model in content.get("models", []):
            if "error" not in model:
                score = {"score": 100 * model["validation_score"], "kind": DISTILLED if distilled else ALONE}
                lines.append(common | {key: model[key] for key in FACTS if model.get(key) is not None} | score)
    data = pd.DataFrame(lines, columns=FACTS)
    data.loc[data.layers == data.layers.max(), "kind"] = ALONE
    return data


def ladder(root: Path | str) -> Table | None:
    """Layers x tasks; None where no training is known."""
    data = trained(root)
    if data.empty:
        return None
    tasks = sorted(set(data.task), key=lambda task: place(TASKS, task))
    lines = [line for layers in sorted(set(data.layers), reverse=True) for line in _depth(data, layers)]
    for what, key, factor in ((MAJORITY, "majority_share", 100.0), (ROWS, "validation_rows", 1.0)):
        known = data.dropna(subset=key)
        lines.append({"layers": None, "what": what} | dict(zip(known.task, factor * known[key], strict=True)))
    lines = [line for line in lines if len(line) > 2]
    columns = [number("layers", "layers", 0), word("what", "score on validation, %"), *map(_score, tasks)]
    return Table("ladder", "The ladder of models", pd.DataFrame(lines), columns, _provenance(data), [_note(data)])


def _score(task: str) -> Column:
    """A task's column: percent with one digit; rows of a table are counted in whole ones."""
    return Column(task, lambda line: number(task, task, 0 if line["what"] == ROWS else 1).render(line))


def _depth(data: pd.DataFrame, layers: int) -> list[Row]:
    """The lines of one depth: each kind under its lowest seed, what distilling gained, spreads over seeds."""
    of_depth = data[data.layers == layers]
    kinds = {kind: of_depth[of_depth.kind == kind] for kind in (DISTILLED, ALONE)}
    first = {kind: dict(zip(*_of_lowest_seed(rows), strict=True)) for kind, rows in kinds.items()}
    gained = {task: first[DISTILLED][task] - first[ALONE][task] for task in first[DISTILLED].keys() & first[ALONE]}
    lines = {**first, "gained by distilling": gained}
    for kind, rows in kinds.items():
        by_task = rows.groupby("task")
        spread = (by_task.score.max() - by_task.score.min())[by_task.seed.nunique() > 1]
        lines[f"{kind}: spread over seeds"] = spread.to_dict()
    return [{"layers": layers, "what": what, **scores} for what, scores in lines.items()]


def _of_lowest_seed(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    lowest = rows[rows.seed == rows.seed.min()]
    return lowest.task, lowest.score


def _note(data: pd.DataFrame) -> str:
    seeds = sorted(set(data.seed))
    via_mnli = set(data.task[data.via_mnli.notna()])
    started = f" Started from mnli's models: {_listed(via_mnli)}." if via_mnli else ""
    spread = f" Spread: highest minus lowest of the seeds {_listed(seeds)}." if len(seeds) > 1 else ""
    return (
        "Accuracy; cola: Matthews correlation, stsb: Pearson correlation, both times 100 (the same answer to all "
        f"scores 0 there). Seed {seeds[0]}.{spread}{started}"
    )


def _provenance(data: pd.DataFrame) -> str:
    """Sources, devices and versions, as far as the files tell."""
    parts = [f"source {_listed(data.source)}", "zoo minilm"]
    parts += [f"at most {_listed(data.rows.dropna())} rows of train"] if data.rows.notna().any() else []
    parts += [f"trained on {_listed(data.device)}"]
    return "; ".join(parts + ([f"torch {_listed(data.torch.dropna())}"] if data.torch.notna().any() else [])) + "."


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(set(map(str, values))))
