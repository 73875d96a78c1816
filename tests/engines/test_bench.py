"""What the bench writes, and its measuring rules. Times themselves are not asserted."""

import json

import numpy as np
import pytest
import torch

from tabi_bench.bench import engines as bench
from tabi_bench.bench.engines import (
    Row,
    compare,
    kept,
    parse,
    save,
    streamed_bytes,
    time_all,
)
from tabi_bench.engines.base import Output
from tabi_bench.zoo.families import shapes
from tabi_bench.zoo.families.shapes import PAPER, shape_spec

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
    assert (row.logits_close, row.logits_apart) == (0.5, 4.0)
    assert row.logits_norm == pytest.approx((4**2 / (5 + 5)) ** 0.5)
    assert kept(one.importance).tolist() == [False, True, True]


def test_embedding_tables_are_not_streamed():
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(100, 8), "linear": torch.nn.Linear(8, 4)}).half()
    assert streamed_bytes(model) == 2 * (8 * 4 + 4)


def test_the_papers_twelve_by_one_word():
    arguments = parse(["--models", "paper", "minilm-l6", "--device", "cpu"])
    assert arguments.models == [*PAPER, "minilm-l6"] and len(PAPER) == 12


def _tiny(monkeypatch, *names):
    for name in names:
        family, changes = PAPER[name]
        small = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
        monkeypatch.setitem(shapes.SHAPES, name, (family, changes | small))


def test_shapes_are_drawn_and_measured(tmp_path, monkeypatch):
    _tiny(monkeypatch, "bert-small", "deberta-small")
    command = ["--models", "bert-small", "deberta-small", "--lengths", "16", "8", "--entries", "eager", "graph"]
    quick = ["--repeats", "10", "--clocks", "text", "--no-compare", "--device", "cpu"]
    bench.main([*command, *quick, "--results", str(tmp_path)])
    (file,) = tmp_path.glob("*.json")
    rows = {(row["model"], row["length"], row["entry"]): row for row in json.loads(file.read_text())["rows"]}
    assert len(rows) == 8
    first = rows["bert-small", 8, "eager"]
    assert first["text_p50"] > 0 and first["forward_p50"] is None and first["labels_equal"] is None
    assert "CUDA graphs need a GPU" in rows["bert-small", 8, "graph"]["error"]
    assert all(row["text_p50"] > 0 for (_, _, entry), row in rows.items() if entry == "eager")


def test_a_drawn_shape_is_compared_with_itself_in_float32(tmp_path, monkeypatch):
    _tiny(monkeypatch, "roberta-base")
    spec = shape_spec("roberta-base", tmp_path, 16)
    arguments = parse(["--device", "cpu", "--repeats", "10", "--dtype", "bfloat16", "--entries", "eager"])
    (row,) = bench.bench_length(spec, 8, arguments, None)
    assert row.error is None and 0 < row.logits_off < 0.05


def test_batches_are_held_against_the_rate_of_matrix_products(capsys, eager, specs):
    from tabi_bench.bench import batches

    batches.main(["--models", "minilm-l6", "--batch", "1", "2", "--length", "8", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert "TFLOP/s" in lines[0] and [line.split(":")[0] for line in lines[1:]] == [
        "minilm-l6 plain batch 1",
        "minilm-l6 plain batch 2",
    ]
    network = eager.load(specs["bert"]).network  # 2 layers, 32 wide, 64 in the middle
    assert batches.operations(network, 10) == 2 * 10 * 2 * (4 * 32 * 32 + 2 * 32 * 64) + 4 * 2 * 100 * 32
