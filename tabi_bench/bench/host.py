"""Models without layers, compiled and in numpy: microseconds of one query by its length.

    python -m tabi_bench.bench.host

Random weights at MiniLM's size (30,522 pieces, 384 wide); pieces drawn from 2,000, as most words of real texts are
frequent ones. Both ways take turns, block by block; medians of all calls. "hot" calls follow each other; before each
"displaced" one, some megabytes are read, as what lies between two calls in serving leaves little in the nearer caches.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig
from transformers.utils import logging

from tabi_bench import device
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoders, Encoding
from tabi_bench.engines.host import HostModel
from tabi_bench.zoo.layerless import layerless
from tabi_bench.zoo.loading import spec_of

SHAPE = {"vocab_size": 30_522, "hidden_size": 384, "num_hidden_layers": 0, "num_attention_heads": 12}
LENGTHS, FREQUENT, QUERIES, MAX_LENGTH = (8, 16, 32, 48, 64, 128), 2000, 100, 128
OTHER_DATA = np.ones(1 << 20)  # 8 MB
BLOCK = 20  # calls of one way in a row


def random_model(folder: Path, texts: int, labels: int) -> HostModel:
    """The classifier for `texts` texts with weights drawn at random, as served."""
    torch.manual_seed(0)
    layerless(texts)(BertConfig(**SHAPE, num_labels=labels)).save_pretrained(folder)
    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return HostModel(spec_of(folder, folder.name, MAX_LENGTH), Encoders())


def queries(texts: int, length: int) -> list[Encoding]:
    """Encodings of `length` random pieces, the second text as long as the first."""
    rng = np.random.default_rng(length)
    types = [0] * length if texts == 1 else [0] * (length // 2) + [1] * (length - length // 2)
    return [Encoding((), rng.integers(0, FREQUENT, length).tolist(), types, False, None) for _ in range(QUERIES)]


def measure(model: HostModel, encodings: list[Encoding], repeats: int) -> dict[str, float]:
    """Median microseconds of both ways, hot and displaced; of the one that runs where nothing could be compiled."""
    in_turn = {"numpy": (model.in_numpy, cycle(encodings))}
    if model.runs == "compiled":
        in_turn["compiled"] = (model.forward, cycle(encodings))
    taken: dict[tuple[str, bool], list[float]] = {
        (name, displaced): [] for displaced in (False, True) for name in in_turn
    }
    with device.quiet_collector():
        for _ in range(max(1, repeats // BLOCK)):
            for (name, displaced), seconds in taken.items():
                call, queries = in_turn[name]
                call(next(queries))
                seconds += [_time(call, next(queries), displaced) for _ in range(BLOCK)]
    kinds = {False: "hot", True: "displaced"}
    return {f"{name} {kinds[displaced]}": 1e6 * np.median(s) for (name, displaced), s in taken.items()}


def _time(call: Callable[[Encoding], Output], encoding: Encoding, displaced: bool) -> float:
    if displaced:
        OTHER_DATA.sum()
    start = perf_counter()
    call(encoding)
    return perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.bench.host", description=__doc__.splitlines()[0])
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
    for kind in ("hot", "displaced") if model.runs == "compiled" else ():
        table[f"ratio {kind}"] = (table[f"compiled {kind}"] / table[f"numpy {kind}"]).map("{:.2f}".format)
    print(table.round(1).to_string(index=False))
    print(f"\nmicroseconds, {device.describe('cpu')['name']}, torch {torch.__version__}; {model.runs}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
