"""The ladder table: scores of the fine-tuned models by layers and task, with and without distillation, by seed.

It is made from the files that `python -m tabi_bench.zoo.train --report FILE` wrote: every `training*.json` of a
folder, for instance one run as it is, one with `--no-distill` and one with `--seed 1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.report.cells import Column, Row, Table, number, word
from tabi_bench.report.reading import TASKS

DISTILLED, ALONE = "distilled", "labels alone"


@dataclass(frozen=True)
class Training:
    """One run of the ladders' training."""

    work: dict[str, Any]
    models: list[Row]  # task, layers, metric, validation_score, ...

    @property
    def seed(self) -> int:
        return self.work.get("seed", 0)

    @property
    def distilled(self) -> bool:
        """Whether the smaller models learnt from the largest as well."""
        return "distill=false" not in self.work.get("overrides", [])

    def scores(self, layers: int) -> Row:
        """Validation scores in percent, by task."""
        mine = [row for row in self.models if row["layers"] == layers]
        return {row["task"]: 100 * row["validation_score"] for row in mine}


def trainings(root: Path | str) -> list[Training]:
    """The runs that `training*.json` in `root` tell of, the lowest seed first, without the models that failed."""
    found = []
    for path in sorted(Path(root).expanduser().glob("training*.json")):
        content = json.loads(path.read_text())
        models = [row for row in content.get("models", []) if "error" not in row]
        found += [Training(content["work"], models)] if models else []
    return sorted(found, key=lambda training: training.seed)


def ladder(root: Path | str) -> Table | None:
    """Layers x tasks; None where no training is known."""
    runs = trainings(root)
    if not runs:
        return None
    layers = sorted({row["layers"] for run in runs for row in run.models})
    lines = [line for count in reversed(layers) for line in _rung(runs, count, count == layers[-1])]
    lines += [_fact(runs, "majority class, % of rows", "majority_share", 100.0)]
    lines += [_fact(runs, "validation rows", "validation_rows")]
    lines = [line for line in lines if len(line) > 2]
    there = {task for line in lines for task in line}
    tasks = [*(task for task in TASKS if task in there), *sorted(there - {*TASKS, "layers", "what"})]
    columns = [number("layers", "layers", 0), word("what", "score on validation, %"), *map(_score, tasks)]
    return Table("ladder", "The ladder of models", pd.DataFrame(lines), columns, _provenance(runs), _notes(runs))


def _score(task: str) -> Column:
    """A task's column: percent with one digit; rows of a table are counted in whole ones."""

    def render(line: Row) -> str:
        return number(task, task, 0 if line["what"] == "validation rows" else 1).render(line)

    return Column(task, render)


def _rung(runs: list[Training], layers: int, largest: bool) -> list[Row]:
    """The lines of one depth. The largest model is the teacher: it learns from the labels in every run."""
    by_kind = {kind: [] for kind in (DISTILLED, ALONE)}
    for run in runs:
        by_kind[DISTILLED if run.distilled and not largest else ALONE].append(run)
    shown = {kind: _first(found, layers) for kind, found in by_kind.items()}
    lines = [{"layers": layers, "what": kind, **scores} for kind, scores in shown.items()]
    both = shown[DISTILLED].keys() & shown[ALONE].keys()
    gained = {task: shown[DISTILLED][task] - shown[ALONE][task] for task in both}
    lines.append({"layers": layers, "what": "gained by distilling", **gained})
    spreads = {kind: _spread(found, layers) for kind, found in by_kind.items()}
    return lines + [{"layers": layers, "what": f"{kind}: spread over seeds", **s} for kind, s in spreads.items()]


def _first(runs: list[Training], layers: int) -> Row:
    """Scores under the lowest seed alone: seeds are never mixed in a line."""
    same = [run for run in runs if run.seed == runs[0].seed]
    return {task: score for run in same for task, score in run.scores(layers).items()}


def _spread(runs: list[Training], layers: int) -> Row:
    """Highest minus lowest score, points, of tasks that were trained under several seeds."""
    by_task: dict[str, dict[int, float]] = {}
    for run in runs:
        for task, score in run.scores(layers).items():
            by_task.setdefault(task, {})[run.seed] = score
    return {task: max(s.values()) - min(s.values()) for task, s in by_task.items() if len(s) > 1}


def _fact(runs: list[Training], what: str, key: str, factor: float = 1.0) -> Row:
    """What the files say of each task's validation split; older ones do not."""
    known = {row["task"]: factor * row[key] for run in runs for row in run.models if row.get(key) is not None}
    return {"layers": None, "what": what, **known}


def _notes(runs: list[Training]) -> list[str]:
    seeds = sorted({run.seed for run in runs})
    note = (
        "Accuracy; cola: Matthews correlation, stsb: Pearson correlation, both times 100 (the same answer to all "
        f"scores 0 there). Seed {seeds[0]}."
    )
    via_mnli = {row["task"] for run in runs for row in run.models if "via_mnli" in row}
    started = f" Started from mnli's models: {_listed(via_mnli)}." if via_mnli else ""
    transfer = {row["task"] for run in runs for row in run.models if "transfer_rows" in row}
    started += f" Smaller models also learnt from queries without labels: {_listed(transfer)}." if transfer else ""
    spread = f" Spread: highest minus lowest of the seeds {_listed(seeds)}." if len(seeds) > 1 else ""
    return [note + spread + started]


def _provenance(runs: list[Training]) -> str:
    """Sources, devices and versions, as far as the files tell."""
    works = [run.work for run in runs]
    rows = [row for run in runs for row in run.models]
    capped = {work["train_rows"] for work in works if work.get("train_rows")}
    parts = [f"source {_listed({work.get('source', 'unknown') for work in works})}", "zoo minilm"]
    parts += [f"at most {_listed(capped)} rows of train"] if capped else []
    devices = {row["device"] for row in rows if row.get("device")} or {work.get("device") for work in works}
    parts += [f"trained on {_listed(devices)}"]
    torch = {row["torch"] for row in rows if row.get("torch")}
    return "; ".join(parts + ([f"torch {_listed(torch)}"] if torch else [])) + "."


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
