"""`zoo=tiny`: thin BERT-shaped models, trained from scratch on the task's own train split.

Latency follows depth and the size of the weights follows width, so a ladder is narrow and deep. The ladders of the
generated tasks lie in `shipped/`, each named by the content of the rows and the recipe that it was trained with; for
other rows or another recipe a ladder is trained at first use and cached. `python -m tabi_bench.zoo.tiny` ships anew.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import BertConfig, PreTrainedModel

from tabi_bench.cache import cached, content_key, damage
from tabi_bench.config import TinyZooConfig, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import Zoo
from tabi_bench.zoo.loading import ModelError, load_tokenizer, spec_of
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.training import Course, Examples, encode, predict, split_slice, train, validation_score

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "shipped"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NOTES = "ladder.json"
RECIPE = 3  # raised when the code below changes what is learnt: older ladders are then left alone
TOKENS_PER_WORD = 3.5  # tokens at most, times the distinct words of train: rare words are split into several


def load(config: TinyZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The ladder for `task`: shipped, cached, or trained now. Raises ModelError for a damaged shipped ladder."""
    key, folder = ladder_key(config, task, seed), SHIPPED / task.name
    shipped = notes_of(folder)
    if shipped.get("key") == key and set(config.shapes) <= set(shipped["models"]):
        if reason := damage(folder):
            raise ModelError(f"{folder}: {reason}; reinstall tabi-bench, or: python -m tabi_bench.zoo.tiny {task.name}")
    else:
        place = Path(cache_dir).expanduser() / "tiny" / f"{task.name}-{content_key(key, config.shapes)}"
        with one_thread():
            folder = cached(place, lambda building: build(building, config, task, seed, device))
    notes = notes_of(folder)
    specs = [spec_of(folder / name, name, config.max_length) for name in config.shapes]
    return Zoo("tiny", tuple(specs), sum(m["train_s"] for m in notes["models"].values()), {"ladder": notes})


def ladder_key(config: TinyZooConfig, task: Task, seed: int) -> str:
    """Names a ladder by what decides its weights: the rows of train, recipe, largest shape (it teaches) and seed."""
    recipe = {k: v for k, v in asdict(config).items() if k not in ("name", "code", "models", "shapes")}
    rows = [task.name, task.texts("train"), task.labels("train").tolist()]
    return content_key(RECIPE, recipe, config.shapes[-1], content_key(*rows), seed)


def notes_of(folder: Path) -> dict:
    """What is known of a ladder: its key, and per model the seconds and the validation score; empty without one."""
    path = folder / NOTES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def build(folder: Path, config: TinyZooConfig, task: Task, seed: int, device: str) -> None:
    """Trains every shape of the ladder into `folder`, the largest first: the others learn from its logits too."""
    write_tokenizer([" ".join(row) for row in task.texts("train")], folder / "tokenizer.json", config.vocabulary)
    tokenizer = load_tokenizer(folder, config.max_length)
    rows = encode(tokenizer, task.texts("train"), task.labels("train"))
    done: dict[str, dict] = {}
    for name in reversed(config.shapes):
        model = new_model(name, config, tokenizer.get_vocab_size(), task, seed)
        done[name] = learn(model, rows, task, config, seed, device)
        done[name]["score"] = score = round(validation_score(model, tokenizer, task, device), 4)
        took = done[name]["steps"], done[name]["train_s"]
        log.info("%s %s: %.4f on validation after %d steps, %.0f s", task.name, name, score, *took)
        if rows.teacher is None:
            rows = replace(rows, teacher=predict(model, rows, device))
        model.half().save_pretrained(folder / name)
        shutil.copy(folder / "tokenizer.json", folder / name)
    (folder / "tokenizer.json").unlink()
    notes = {"key": ladder_key(config, task, seed), "task": task.name, "source": task.source, "seed": seed}
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    notes |= {"device": name, "torch": torch.__version__, "models": {shape: done[shape] for shape in config.shapes}}
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def learn(model: PreTrainedModel, rows: Examples, task: Task, config: TinyZooConfig, seed: int, device: str) -> dict:
    """Trains `model` on the cues of hard rows, where rows name them, and on the labels; what it took.

    A few dozen cues tell much more than two labels: without them the deeper models stay at chance on hard rows. In easy
    rows every cue is as good as the other, so they only slow it down.
    """
    steps = config.train
    parts = {"labels": (rows, replace(steps, distill=0.0 if rows.teacher is None else steps.distill))}
    if config.cue_steps and "cue" in task.train.column_names:
        cues, numbers = np.unique(np.asarray(task.train["cue"][:]), return_inverse=True)
        # what the labels' slice holds out must not be learnt here either
        seen, _ = split_slice(task.labels("train"), seed)
        hard = replace(rows, labels=numbers, teacher=None).take(seen[np.asarray(task.train["hard"][:])[seen]])
        recipe = replace(steps, epochs=config.cue_steps, max_steps=config.cue_steps, distill=0.0)
        parts = {"cues": (hard, recipe)} | parts
    head = model.classifier
    notes: dict[str, Any] = {"train_s": 0.0, "steps": 0, "slice": {}}
    for part, (examples, recipe) in parts.items():
        model.classifier = head if part == "labels" else nn.Linear(model.config.hidden_size, len(cues))
        metric = task.config.metric if part == "labels" else "accuracy"
        title = f"{task.name} {model.config.num_hidden_layers}x{model.config.hidden_size} {part}"
        result = train(model, examples, recipe, seed=seed, device=device, course=Course(metric, title=title))
        notes["slice"][part] = round(result.score, 4)
        notes["train_s"] = round(notes["train_s"] + result.seconds, 1)
        notes["steps"] += result.steps
    return notes


@contextmanager
def one_thread() -> Iterator[None]:
    """Thin models gain nothing from more, and on busy cores threads that wait for each other take 100 times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_tokenizer(texts: list[str], path: Path, vocabulary: int) -> None:
    """A BERT-style WordPiece tokenizer learnt from `texts`, of so many tokens at most; rare words are split.

    The trainer breaks ties by the ids of tokens, and numbers characters within words in the order of a hash table,
    another one each time: so they are handed to it in order, as if they were special, and the same texts always give
    the same vocabulary.
    """
    vocabulary = min(vocabulary, round(TOKENS_PER_WORD * len({word for text in texts for word in text.split()})))
    learnt = _wordpiece({})
    plain = map(learnt.normalizer.normalize_str, texts)
    words = (word for text in plain for word, _ in learnt.pre_tokenizer.pre_tokenize_str(text))
    within = sorted({character for word in words for character in word[1:]})
    special = [*SPECIAL, *(f"##{character}" for character in within)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    learnt.train_from_iterator(texts, trainer)
    tokenizer = _wordpiece(learnt.get_vocab())
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def new_model(shape: str, config: TinyZooConfig, vocabulary: int, task: Task, seed: int) -> PreTrainedModel:
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


def ship(task: str) -> dict:
    """Trains the ladder of one generated task, as conf/zoo/tiny.yaml says, into the package; its notes."""
    rows = load_task(read_file("task", task), read_file("source", "generated"), 0)
    with TemporaryDirectory() as place, one_thread():
        made = cached(Path(place) / task, lambda building: build(building, read_file("zoo", "tiny"), rows, 0, "cpu"))
        shutil.rmtree(SHIPPED / task, ignore_errors=True)
        shutil.copytree(made, SHIPPED / task)
    return notes_of(SHIPPED / task)


def main() -> None:
    """Trains the ladders that the package ships, of all tasks or of those named, and prints their validation scores."""
    from tabi_bench.tasks.grammar import CUES

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for task in sys.argv[1:] or CUES:
        scores = {name: model["score"] for name, model in ship(task)["models"].items()}
        print(f"{task:8s} " + "  ".join(f"{name} {score:.4f}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
