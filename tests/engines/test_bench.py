"""What the bench writes, and its measuring rules. Times themselves are not asserted."""

import json

import numpy as np
import pytest
import torch

from tabi_bench.bench import engines as bench
from tabi_bench.bench.engines import (
    NOT_MEASURED,
    Row,
    compare,
    kept,
    merged,
    parse,
    passes,
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


def test_rows_not_reached_do_not_replace_measured_ones(tmp_path):
    save(tmp_path, FACTS, [Row("a", 16, "eager", text_p50=2.0)])
    save(tmp_path, FACTS, [Row(model, 16, "eager", error=NOT_MEASURED) for model in "ab"])
    rows = json.loads((tmp_path / "nvidia-h200.json").read_text())["rows"]
    assert [(row["model"], row["text_p50"], row["error"]) for row in rows] == [
        ("a", 2.0, None),
        ("b", None, NOT_MEASURED),
    ]


def test_the_papers_twelve_by_one_word():
    arguments = parse(["--models", "paper", "minilm-l6", "--device", "cpu"])
    assert arguments.models == [*PAPER, "minilm-l6"] and len(PAPER) == 12


def test_what_compiles_waits_under_a_time_limit():
    command = ["--device", "cpu", "--entries", "eager", "graph", "compile"]
    assert passes(parse(command)) == [["eager", "graph", "compile"]]
    assert passes(parse([*command, "--minutes", "8"])) == [["eager", "graph"], ["eager", "graph", "compile"]]


def test_a_second_pass_without_times_does_not_undo_the_first():
    first = [Row("a", 16, "eager", text_p50=2.0), Row("a", 16, "compile", error=NOT_MEASURED)]
    lost = [Row("a", 16, name, error="AcceleratorError") for name in ("eager", "compile")]
    assert merged(first, lost) == [first[0], lost[1]]
    again = [Row("a", 16, "eager", text_p50=1.9), Row("a", 16, "compile", text_p50=0.5)]
    assert merged(first, again) == again, "rows of one group are those that were measured together"


def _tiny(monkeypatch, *names):
    for name in names:
        family, changes = PAPER[name]
        small = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
        monkeypatch.setitem(shapes.SHAPES, name, (family, changes | small))


def test_shapes_are_drawn_measured_and_flushed_until_time_is_up(tmp_path, monkeypatch):
    _tiny(monkeypatch, "bert-small", "deberta-small")
    monkeypatch.setattr(bench, "monotonic", iter([0, 1, 2, 3, 4, 5, 100, 101]).__next__)  # the start, a group, entries
    command = ["--models", "bert-small", "deberta-small", "--lengths", "16", "8", "--entries", "eager", "graph"]
    quick = ["--repeats", "10", "--clocks", "text", "--no-compare", "--device", "cpu", "--minutes", "1"]
    bench.main([*command, *quick, "--results", str(tmp_path)])
    (file,) = tmp_path.glob("*.json")
    rows = {(row["model"], row["length"], row["entry"]): row for row in json.loads(file.read_text())["rows"]}
    assert len(rows) == 8
    first = rows["bert-small", 8, "eager"]
    assert first["text_p50"] > 0 and first["forward_p50"] is None and first["labels_equal"] is None
    assert "CUDA graphs need a GPU" in rows["bert-small", 8, "graph"]["error"]
    assert rows["deberta-small", 8, "eager"]["text_p50"] > 0
    assert rows["deberta-small", 8, "graph"]["error"] == NOT_MEASURED, "100 s are more than a minute"
    assert {rows[model, 16, "eager"]["error"] for model in ("bert-small", "deberta-small")} == {NOT_MEASURED}


def test_a_drawn_shape_is_compared_with_itself_in_float32(tmp_path, monkeypatch):
    _tiny(monkeypatch, "roberta-base")
    spec = shape_spec("roberta-base", tmp_path, 16)
    arguments = parse(["--device", "cpu", "--repeats", "10", "--dtype", "bfloat16"])
    (row,) = bench.bench_length(spec, 8, ["eager"], arguments, None, float("inf"))
    assert row.error is None and 0 < row.logits_off < 0.05
