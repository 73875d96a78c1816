"""A zoo of two micro models, trained on the task's own train split in a second or two."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig

from tabi_bench.cache import cached, content_key
from tabi_bench.config import ZooConfig
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import Zoo
from tabi_bench.zoo.loading import load_tokenizer, spec_of
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.tiny import write_tokenizer
from tabi_bench.zoo.training import Course, encode, train
from tests.settings import fine_tuning

SHAPES = {"micro-1x16": (1, 16), "micro-2x32": (2, 32)}


def load(config: ZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The registered loader of zoo=micro."""

    texts, labels = task.texts("train"), task.labels("train")

    def build(folder: Path) -> None:
        for name, (layers, hidden) in SHAPES.items():
            path = folder / name
            path.mkdir()
            write_tokenizer([" ".join(row) for row in texts], path / "tokenizer.json", 600)
            torch.manual_seed(seed)
            shape = dict(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=2 * hidden)
            tokenizer = load_tokenizer(path, 64)
            model = MeanPoolBert(
                BertConfig(
                    vocab_size=tokenizer.get_vocab_size(),
                    num_attention_heads=2,
                    max_position_embeddings=64,
                    num_labels=task.n_outputs,
                    **shape,
                )
            )
            steps = fine_tuning(epochs=4, learning_rate=3e-3, batch_size=32, patience=0)
            train(model, encode(tokenizer, texts, labels), steps, seed=seed, course=Course(task.config.metric))
            model.save_pretrained(path)

    folder = cached(cache_dir / "micro" / content_key(task.name, texts, labels.tolist(), seed), build)
    return Zoo("micro", tuple(spec_of(folder / name, name, 64) for name in SHAPES))
