"""`zoo=paper`: the paper's twelve models, one checkpoint per model and task (conf/zoo/paper.yaml).

Nothing about a checkpoint is believed: label order and scale are measured on train, and its score there must reach the
cell's sanity bound. `python -m tabi_bench.zoo.paper` prints which cells there are.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tabi_bench.cache import cached, content_key
from tabi_bench.config import PaperZooConfig, TrainConfig, read_file
from tabi_bench.hub import HubError, fetch
from tabi_bench.names import TASKS
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import ModelSpec, Zoo
from tabi_bench.zoo.custom import described, download
from tabi_bench.zoo.families.shapes import PAPER, write_shape
from tabi_bench.zoo.labels import Finding, checked
from tabi_bench.zoo.loading import ModelError, spec_of
from tabi_bench.zoo.training import changed_recipe

FROM_MNLI = ("rte", "mrpc", "stsb")
RECIPE = 1  # raised when fine-tuning changes what is learnt


def load(config: PaperZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The models of `zoo.models` (all twelve where it is empty) on `task`. Raises ModelError, and hub.HubError."""
    config.check_names(list(PAPER))
    names, origins = config.models or list(PAPER), dict[str, dict]()
    if config.random_weights:
        models = [_shape(name, config, task, cache_dir) for name in names]
    else:
        own = {name: tuned_folder(config, name, task, cache_dir, seed) for name in names}
        _check_cells(config, task, [name for name in names if not own[name].is_dir()])
        models = []
        for name in names:
            stored, origin = _cell(config, name, task, own[name], cache_dir)
            spec, measured = checked(stored, task, cache_dir, seed, device)
            check_bound(name, task.name, measured, cell_of(config, name, task.name).get("at_least"))
            origins[name] = origin | asdict(measured)
            models.append(spec)
    notes: dict[str, Any] = {"random_weights": True} if config.random_weights else {"checkpoints": origins}
    return Zoo(config.name, tuple(sorted(models, key=lambda spec: spec.params)), notes=notes)


def cell_of(config: PaperZooConfig, model: str, task: str) -> dict[str, Any]:
    """What is known of a public checkpoint; empty without one."""
    return config.cells.get(model, {}).get(task, {})


def _shape(name: str, config: PaperZooConfig, task: Task, cache_dir: Path) -> ModelSpec:
    """The model's shape with random weights, stored in half precision."""
    place = Path(cache_dir) / "shapes" / f"{name}-{content_key('shape', name, task.n_outputs)}"
    folder = cached(place, lambda building: write_shape(name, building, task.n_outputs, torch.float16))
    return spec_of(folder, name, config.max_length)


def _check_cells(config: PaperZooConfig, task: Task, names: list[str]) -> None:
    """Names the cells without a checkpoint, and what fills them."""
    if names and task.source == "generated":
        raise ModelError(
            "zoo=paper holds models of the real tasks: use source=hub or source=local, or zoo.random_weights=true for "
            "latency alone"
        )
    missing = [name for name in names if not cell_of(config, name, task.name)]
    if not missing:
        return
    fill = [f"  {command(config, name, task.name, task.source)}" for name in missing]
    there = ",".join(name for name in config.models or PAPER if name not in missing)
    raise ModelError(
        f"zoo=paper has no checkpoint of {', '.join(missing)} for {task.name}; fill these cells:\n"
        + "\n".join(fill)
        + f"\nor leave them out: zoo.models=[{there}]"
    )


def command(config: PaperZooConfig, model: str, task: str, source: str = "hub") -> str:
    """What to type to fill a cell."""
    if model not in config.backbones:
        return f"{model}: cannot be fine-tuned here (it is pruned while it is trained)"
    where = "source=local source.dir=DIR" if source == "local" else f"source={source}"
    return f"python -m tabi_bench.zoo.finetune model={model} task={task} {where}"


def _cell(config: PaperZooConfig, name: str, task: Task, own: Path, cache_dir: Path) -> tuple[ModelSpec, dict]:
    """One model as it lies on disk, and where it is from: fine-tuned here where there is such, else the public one."""
    if own.is_dir():
        return spec_of(own, name, config.max_length), {"from": "fine-tuned here", "commit": own.name}
    cell = cell_of(config, name, task.name)
    source = download(cell["id"], cell.get("revision"))
    return described(source, name, config, task, cache_dir), {"from": cell["id"], "commit": source.name}


def check_bound(name: str, task: str, finding: Finding, bound: float | None) -> None:
    """Refuses a model whose score on the slice of train is below the cell's sanity bound."""
    if bound is not None and finding.score < bound:
        raise ModelError(
            f"{name} on {task}: {finding.score:.3f} on {finding.rows} rows of train, but at least {bound:g} was "
            f"expected (zoo.cells.{name}.{task}.at_least); it is not the model it is taken for, or the data are not"
        )


# --- fine-tuned here --------------------------------------------------------------------------------------------------


def recipe(config: PaperZooConfig, model: str, task: str) -> TrainConfig:
    """How `model` is fine-tuned on `task`."""
    changes = {f"zoo.recipes.{model}": config.recipes.get(model, {}), f"zoo.tasks.{task}": config.tasks.get(task, {})}
    return TrainConfig(**asdict(changed_recipe(config.train, changes)), distill=0.0, distill_temperature=1.0)


def start(config: PaperZooConfig, model: str, task: str) -> dict:
    """{id, revision} that fine-tuning starts from: the backbone, or the mnli cell for small tasks of large models."""
    if model not in config.backbones:
        known = ", ".join(config.backbones)
        raise ModelError(f"{model} has no backbone to fine-tune (zoo.backbones); there are: {known}")
    backbone = config.backbones[model]
    via = backbone.get("via_mnli") and task in FROM_MNLI
    chosen = (cell_of(config, model, "mnli") if via else {}) or backbone
    return {"id": chosen["id"], "revision": chosen.get("revision")}


def tuned_folder(config: PaperZooConfig, model: str, task: Task, cache_dir: Path, seed: int) -> Path:
    """Where the model that is fine-tuned here on `task` lies, named by what it is made from."""
    origin = start(config, model, task.name) if model in config.backbones else None
    key = content_key(RECIPE, task.train_hash, task.config.labels, asdict(recipe(config, model, task.name)), origin,
                      config.max_length, seed)  # fmt: skip
    return Path(cache_dir).expanduser() / "paper" / f"{model}-{task.name}-{key}"


# --- coverage ---------------------------------------------------------------------------------------------------------


def coverage(config: PaperZooConfig) -> pd.DataFrame:
    """Models x tasks: "pinned", "main" (a checkpoint without a commit), "tune" (to be fine-tuned here), "none"."""

    def state(model: str, task: str) -> str:
        if cell := cell_of(config, model, task):
            return "pinned" if cell.get("revision") else "main"
        return "tune" if model in config.backbones else "none"

    return pd.DataFrame({task: {model: state(model, task) for model in PAPER} for task in TASKS})


def describe(config: PaperZooConfig) -> str:
    """The coverage matrix, and the commands that fill what is missing."""
    states = coverage(config)
    filled = int(states.isin(["pinned", "main"]).to_numpy().sum())
    legend = (
        f"{filled} of {states.size} cells have a public checkpoint. pinned: at a commit; main: follows the repository "
        "(--pin prints its commit); tune: to be fine-tuned here; none: cannot be filled here."
    )
    missing = [(model, task) for model in PAPER for task in TASKS if states.loc[model, task] == "tune"]
    return "\n".join([states.to_string(), "", legend, "", *(command(config, *cell) for cell in missing)])


def pins(config: PaperZooConfig) -> tuple[list[str], list[str]]:
    """Today's commit of every cell without one, as settings for the command line; and what could not be found out.

    The settings begin with "+": the cells are a free table, to which the command line adds. Needs the network.
    """
    lines, missing = [], []
    for model, tasks in config.cells.items():
        for task, cell in tasks.items():
            if cell.get("revision"):
                continue
            try:
                commit = fetch(cell["id"], None, ["config.json"]).name
            except HubError as error:
                missing.append(f"{model} on {task}: {error}")
            else:
                lines.append(f"+zoo.cells.{model}.{task}.revision={commit}")
    return lines, missing


def main(argv: list[str] | None = None) -> None:
    """Prints which cells of zoo=paper have a checkpoint, and how to fill the others."""
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.zoo.paper", description=main.__doc__)
    parser.add_argument("--pin", action="store_true", help="print today's commits of the cells that have none")
    arguments = parser.parse_args(argv)
    config = read_file("zoo", "paper")
    if not arguments.pin:
        print(describe(config))
        return
    lines, missing = pins(config)
    print("\n".join(lines))
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
