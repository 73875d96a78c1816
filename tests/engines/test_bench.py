"""What the bench writes, and its measuring rules. Times themselves are not asserted."""

import json

import numpy as np
import torch

from tabi_bench.engines import bench
from tabi_bench.engines.base import Output
from tabi_bench.engines.bench import Row, compare, kept, save, streamed_bytes, time_all

FACTS = {"kind": "cuda", "name": "NVIDIA H200"}


def test_results_replace_rows_measured_together_and_keep_the_rest(tmp_path):
    save(tmp_path, FACTS, [Row("a", 16, "eager", text_p50=2.0), Row("a", 16, "graph"), Row("b", 16, "eager")])
    save(tmp_path, FACTS, [Row("a", 16, "eager", text_p50=1.5, error="no such operator")])
    rows = json.loads((tmp_path / "nvidia-h200.json").read_text())["rows"]
    assert [(row["model"], row["entry"], row["text_p50"]) for row in rows] == [
        ("b", "eager", None),
        ("a", "eager", 1.5),
    ]
    written = (tmp_path / "nvidia-h200.md").read_text()
    assert "| eager | 1.5 | - |" in written and "| no such operator |" in written


def test_calls_are_interleaved_and_the_first_of_a_block_does_not_count():
    called = []
    taken = time_all({name: lambda n, name=name: called.append((name, n)) for name in "ab"}, 2 * bench.BLOCK)
    block = [0, *range(bench.BLOCK)]
    assert called == [(name, n) for _ in range(2) for name in "ab" for n in block]
    assert {name: len(times) for name, times in taken.items()} == dict.fromkeys("ab", 2 * bench.BLOCK)


def test_agreement_with_the_reference():
    one = Output(np.array([1.0, 2.0]), np.array([0.1, 1.0, np.nan]))
    other = Output(np.array([1.0, -2.0]), np.array([1.0, 1.0, np.nan]))
    row = Row("a", 16, "graph")
    compare(row, [one, one], [one, other])
    assert (row.labels_equal, row.logits_off, row.words_alike) == (0.5, 2.0, 5 / 6)
    assert kept(one.importance).tolist() == [False, True, True]


def test_embedding_tables_are_not_streamed():
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(100, 8), "linear": torch.nn.Linear(8, 4)}).half()
    assert streamed_bytes(model) == 2 * (8 * 4 + 4)
