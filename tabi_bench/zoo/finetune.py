"""Fills a cell of zoo=paper: `python -m tabi_bench.zoo.finetune model=bert-large task=rte source=hub`.

Further arguments are those of `run.py` (source.dir=DIR, seed=1, zoo.recipes.bert-large.epochs=5). The model goes into
the cache, where zoo=paper finds it under the same settings.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from tabi_bench import device as devices
from tabi_bench.cache import cached
from tabi_bench.config import Config, ConfigError, PaperZooConfig, compose_config
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import FROM_FOLDER
from tabi_bench.zoo.custom import download, write_tokenizer
from tabi_bench.zoo.loading import ModelError, final_linear, load_tokenizer, read_weights
from tabi_bench.zoo.paper import recipe, start, tuned_folder
from tabi_bench.zoo.training import Course, encode, train, validation_score

HEADS = ("classifier", "pooler", "pre_classifier")  # what a backbone lacks, by the first part of its name


def fine_tuned(config: PaperZooConfig, model: str, task: Task, cache_dir: Path, seed: int, device: str) -> Path:
    """The folder of `model` fine-tuned on `task`, made unless it is there. Raises ModelError, hub.HubError."""
    folder = tuned_folder(config, model, task, cache_dir, seed)
    origin, steps = start(config, model, task.name), recipe(config, model, task.name)
    metric, checkpoint = task.config.metric, folder.with_name(f"{folder.name}.checkpoint")

    def build(target: Path) -> None:
        source = download(origin["id"], origin["revision"])
        write_tokenizer(source, target / "tokenizer.json")
        tokenizer = load_tokenizer(target, config.max_length)
        network = with_new_head(source, task, seed)
        rows = encode(tokenizer, task.texts("train"), task.labels("train"))
        course = Course(metric, checkpoint, f"{model} on {task.name}")
        result = train(network, rows, steps, seed=seed, device=device, course=course)
        score = validation_score(network, tokenizer, task, device)
        network.to("cpu", torch.float16).save_pretrained(target)
        notes = {"from": origin["id"], "commit": source.name, "metric": metric, "validation_score": score}
        notes |= {"seconds": round(result.seconds, 1), "recipe": asdict(steps)}
        (target / "training.json").write_text(json.dumps(notes, indent=1), encoding="utf-8")

    return cached(folder, build)


def with_new_head(folder: Path, task: Task, seed: int) -> PreTrainedModel:
    """The backbone in `folder`, in float32, under a classification head drawn from `seed`."""
    names = dict(enumerate(task.config.labels))
    heads = {"id2label": names, "label2id": {name: i for i, name in names.items()}} if names else {"num_labels": 1}
    config = AutoConfig.from_pretrained(folder, **heads, **FROM_FOLDER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"config": config, "dtype": torch.float32, "ignore_mismatched_sizes": True}
        network, missing = read_weights(AutoModelForSequenceClassification, folder, **options)
    body = [name for name in missing if not any(part in HEADS for part in name.split("."))]
    if body:
        raise ModelError(f"{folder}: weights are missing ({', '.join(body[:4])}); it is no backbone")
    if task.is_regression:
        torch.nn.init.constant_(final_linear(network).bias, float(task.labels("train").mean()))
    return network


def _composed(arguments: list[str]) -> tuple[str, Config]:
    chosen = [argument for argument in arguments if argument.startswith("model=")]
    if len(chosen) != 1:
        raise ConfigError("which model? model=bert-large; `python -m tabi_bench.zoo.paper` lists them")
    overrides = [argument for argument in arguments if argument not in chosen]
    return chosen[0].removeprefix("model="), compose_config(["zoo=paper", *overrides])


def main(argv: list[str] | None = None) -> None:
    """Fine-tunes one model on one task and says what it scores on validation."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        model, config = _composed(sys.argv[1:] if argv is None else argv)
        if not isinstance(config.zoo, PaperZooConfig):
            raise ConfigError(f"zoo={config.zoo.name}: only zoo=paper has models to fine-tune here")
        task = load_task(config.task, config.source, config.seed)
        device = devices.resolve(config.engine.device)
        folder = fine_tuned(config.zoo, model, task, Path(config.cache_dir).expanduser(), config.seed, device)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    notes = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    print(f"{model} on {task.name}: {notes['metric']} {notes['validation_score']:.4f} on validation, "
          f"{notes['seconds']:.0f} s; {folder}")  # fmt: skip


if __name__ == "__main__":
    main()
