"""`zoo=tiny`: thin BERT-shaped models, trained from scratch on the task's own train split.

Latency follows depth and the size of the weights follows width, so a ladder is narrow and deep. The ladders of the
generated tasks lie in `shipped/`, each named by the content of the rows and the recipe that it was trained with; for
other rows or another recipe a ladder is trained at first use and cached. `python -m tabi_bench.zoo.tiny` ships anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from tqdm import tqdm
from transformers import BertConfig

from tabi_bench.cache import cached, content_key, damage, seal
from tabi_bench.config import SourceConfig, TaskConfig, TinyZooConfig, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import Zoo
from tabi_bench.zoo.loading import ModelError, load_tokenizer, spec_of
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.training import Examples, encode, metric_score, predict, train

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "shipped"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NOTES = "ladder.json"
RECIPE = 1  # raised when the code below changes what is learnt: older ladders are then left alone
PIECES_PER_WORD = 3.5  # word pieces at most, times the distinct words of train: rare words fall in pieces


def load(config: TinyZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The ladder for `task`: shipped, cached, or trained now. Raises ModelError for a damaged shipped ladder."""
    key, folder = ladder_key(config, task, seed), SHIPPED / task.name
    shipped = notes_of(folder)
    if shipped.get("key") == key and set(config.shapes) <= set(shipped["models"]):
        if reason := damage(folder):
            raise ModelError(f"{folder}: {reason}; reinstall tabi-bench, or: python -m tabi_bench.zoo.tiny {task.name}")
    else:
        place = Path(cache_dir).expanduser() / "tiny" / f"{task.name}-{content_key(key, config.shapes)}"
        folder = cached(place, lambda building: build(building, config, task, seed, device))
    notes = notes_of(folder)
    names = [name for name in config.shapes if not config.models or name in config.models]
    specs = [spec_of(folder / name, name, config.max_length) for name in names]
    return Zoo("tiny", tuple(specs), sum(m["train_s"] for m in notes["models"].values()), {"ladder": notes})


def ladder_key(config: TinyZooConfig, task: Task, seed: int) -> str:
    """Names a ladder by what decides its weights: the rows of train, recipe, largest shape (it teaches) and seed."""
    recipe = {k: v for k, v in asdict(config).items() if k not in ("name", "path", "models", "shapes")}
    rows = [task.name, task.texts("train"), task.labels("train").tolist()]
    return content_key(RECIPE, recipe, config.shapes[-1], content_key(*rows), seed)


def notes_of(folder: Path) -> dict:
    """What is known of a ladder: its key, and per model the seconds and the validation score; empty without one."""
    path = folder / NOTES
    return json.loads(path.read_text()) if path.is_file() else {}


def build(folder: Path, config: TinyZooConfig, task: Task, seed: int, device: str) -> None:
    """Trains every shape of the ladder into `folder`, the largest first: the smaller ones learn from its logits too."""
    write_tokenizer([" ".join(row) for row in task.texts("train")], folder / "tokenizer.json", config.vocabulary)
    tokenizer = load_tokenizer(folder, config.max_length)
    rows = encode(tokenizer, task.texts("train"), task.labels("train"))
    held = encode(tokenizer, task.texts("validation"))
    teacher, found = None, {}
    for name in reversed(config.shapes):
        model = new_model(name, config, tokenizer.get_vocab_size(), task, seed)
        steps = replace(config.train, distill=0.0 if teacher is None else config.train.distill)
        title = f"{task.name} {name}"
        cue_s = learn_cues(model, rows, task, config, seed, device, title)
        result = train(
            model,
            rows,
            steps,
            seed=seed,
            device=device,
            teacher_logits=teacher,
            metric=task.config.metric,
            progress=title,
        )
        score = metric_score(task.config.metric, task.labels("validation"), predict(model, held, device))
        log.info("%s: %.4f on validation after %d steps, %.0f s", title, score, result.steps, result.seconds)
        teacher = predict(model, rows, device) if teacher is None else teacher
        found[name] = {"score": round(score, 4), "train_s": round(cue_s + result.seconds, 1), "steps": result.steps}
        model.half().save_pretrained(folder / name)
        shutil.copy(folder / "tokenizer.json", folder / name)
    (folder / "tokenizer.json").unlink()
    notes = {"key": ladder_key(config, task, seed), "task": task.name, "source": task.source, "seed": seed}
    notes |= {"device": device_name(device), "torch": torch.__version__, "models": {n: found[n] for n in config.shapes}}
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n")


def learn_cues(
    model: MeanPoolBert, rows: Examples, task: Task, config: TinyZooConfig, seed: int, device: str, title: str
) -> float:
    """Trains the encoder to name the phrase that decides, where the rows say it (generated ones do); the seconds taken.

    A few dozen phrases tell much more than two labels: without this the deeper models stay at chance on hard rows.
    """
    if not config.cue_epochs or "cue" not in task.train.column_names:
        return 0.0
    cues, numbers = np.unique(np.asarray(task.train["cue"]), return_inverse=True)
    head, model.classifier = model.classifier, nn.Linear(model.config.hidden_size, len(cues))
    steps = replace(config.train, epochs=config.cue_epochs, distill=0.0, patience=0)
    result = train(model, replace(rows, labels=numbers), steps, seed=seed, device=device, progress=f"{title} cues")
    model.classifier = head
    return result.seconds


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def write_tokenizer(texts: list[str], path: Path, vocabulary: int) -> None:
    """A BERT-style WordPiece tokenizer learnt from `texts`, of so many pieces at most; rare words fall in pieces."""
    vocabulary = min(vocabulary, round(PIECES_PER_WORD * len({word for text in texts for word in text.split()})))
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))


def new_model(shape: str, config: TinyZooConfig, vocabulary: int, task: Task, seed: int) -> MeanPoolBert:
    """An untrained model of `shape`, layers x hidden."""
    layers, hidden = map(int, shape.split("x"))
    torch.manual_seed(seed)
    return MeanPoolBert(
        BertConfig(
            vocab_size=vocabulary,
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=config.intermediate * hidden,
            num_attention_heads=max(1, hidden // 16),
            max_position_embeddings=config.max_length,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=task.n_outputs,
            **({} if task.is_regression else {"id2label": dict(enumerate(task.config.labels))}),
        )
    )


# --- shipping ---------------------------------------------------------------------------------------------------------


def ship(task: str, out: Path, device: str, threads: int) -> dict:
    """Trains the ladder of one generated task with the defaults of conf/zoo/tiny.yaml into `out`/task; its notes."""
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = read_file("zoo", "tiny", TinyZooConfig)
    rows = load_task(read_file("task", task, TaskConfig), read_file("source", "generated", SourceConfig), 0)
    building = out / f".{task}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    build(building, config, rows, 0, device)
    seal(building)
    shutil.rmtree(out / task, ignore_errors=True)
    os.replace(building, out / task)
    return notes_of(out / task)


def main(argv: list[str] | None = None) -> None:
    """Trains the ladders that the package ships, several tasks side by side, and prints their validation scores."""
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.zoo.tiny", description=main.__doc__)
    parser.add_argument("tasks", nargs="*", default=None, help="default: all ten")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    from tabi_bench.tasks.grammar import CUES

    tasks, started = options.tasks or list(CUES), time.monotonic()
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = {task: pool.submit(ship, task, options.out, options.device, threads) for task in tasks}
        for task, future in tqdm(pending.items(), unit="task"):
            scores = {name: model["score"] for name, model in future.result()["models"].items()}
            tqdm.write(f"{task:8s} " + "  ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{size / 1e6:.2f} MB in {options.out}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
