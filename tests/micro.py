"""A zoo of two micro models, trained on the task's own train split in a second or two."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig

from tabi_bench.cache import cached, content_key
from tabi_bench.config import ZooConfig
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import Zoo
from tabi_bench.zoo.loading import load_tokenizer, spec_of
from tabi_bench.zoo.models import MeanPoolBert
from tabi_bench.zoo.training import encode, train
from tests.settings import fine_tuning

SHAPES = {"micro-1x16": (1, 16), "micro-2x32": (2, 32)}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(texts: list[str], path: Path) -> None:
    """A BERT-style WordPiece tokenizer learnt from `texts`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))


def load(config: ZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The registered loader of zoo=micro."""

    texts, labels = task.texts("train"), task.labels("train")

    def build(folder: Path) -> None:
        for name, (layers, hidden) in SHAPES.items():
            path = folder / name
            path.mkdir()
            write_tokenizer([" ".join(row) for row in texts], path / "tokenizer.json")
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
            train(model, encode(tokenizer, texts, labels), steps, seed=seed, device="cpu", metric=task.config.metric)
            model.save_pretrained(path)

    folder = cached(cache_dir / "micro" / content_key(task.name, texts, labels.tolist(), seed), build)
    return Zoo("micro", tuple(spec_of(folder / name, name, 64) for name in SHAPES))
