"""Models without layers, compiled and in numpy: microseconds of one query by its length.

    python -m tabi_bench.engines.host_bench

Random weights at MiniLM's size (30,522 pieces, 384 wide); pieces drawn from 2,000, as most words of real texts are
frequent ones. Both ways take turns, block by block; medians of all calls.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig
from transformers.utils import logging

from tabi_bench import device
from tabi_bench.engines.bench import time_all
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.host import HostModel
from tabi_bench.zoo.layerless import layerless
from tabi_bench.zoo.loading import spec_of

SHAPE = {"vocab_size": 30_522, "hidden_size": 384, "num_hidden_layers": 0, "num_attention_heads": 12}
LENGTHS, FREQUENT, QUERIES, MAX_LENGTH = (8, 16, 32, 48, 64, 128), 2000, 100, 128


def random_model(folder: Path, texts: int, labels: int) -> HostModel:
    """The classifier for `texts` texts with weights drawn at random, as served."""
    torch.manual_seed(0)
    layerless(texts)(BertConfig(**SHAPE, num_labels=labels)).save_pretrained(folder)
    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return HostModel(spec_of(folder, folder.name, MAX_LENGTH))


def queries(texts: int, length: int) -> list[Encoding]:
    """Encodings of `length` random pieces, the second text as long as the first."""
    rng = np.random.default_rng(length)
    types = [0] * length if texts == 1 else [0] * (length // 2) + [1] * (length - length // 2)
    return [Encoding((), rng.integers(0, FREQUENT, length).tolist(), types, False, None) for _ in range(QUERIES)]


def measure(model: HostModel, encodings: list[Encoding], repeats: int) -> dict[str, float]:
    """Median microseconds of both ways; of the one that runs where nothing could be compiled."""
    in_turn, other = cycle(encodings), cycle(encodings)
    ways = {"numpy": lambda _: model.in_numpy(next(in_turn))}
    if model.runs == "compiled":
        ways["compiled"] = lambda _: model.forward(next(other))
    return {name: 1e3 * float(np.median(ms)) for name, ms in time_all(ways, repeats).items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tabi_bench.engines.host_bench", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=1000, help="timed calls of each way at each length")
    options = parser.parse_args(argv)
    logging.disable_progress_bar()
    rows = []
    for name, texts, labels in (("convolution, 150 labels", 1, 150), ("decomposable attention, 3 labels", 2, 3)):
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(Path(folder), texts, labels)
        for length in LENGTHS:
            rows.append({"model": name, "pieces": length} | measure(model, queries(texts, length), options.repeats))
    table = pd.DataFrame(rows)
    if "compiled" in table:
        table["compiled / numpy"] = (table.compiled / table.numpy).map("{:.2f}".format)
    print(table.round(1).to_string(index=False))
    print(f"\nmicroseconds, {device.describe('cpu')['name']}, float32, torch {torch.__version__}; {model.runs}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
