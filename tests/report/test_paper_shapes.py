"""The paper's models as shapes: their table, from bench files written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tabi_bench.bench.engines import Row
from tabi_bench.report.__main__ import main
from tabi_bench.report.from_files import shapes
from tabi_bench.report.readme import rewritten


@pytest.fixture
def folder(tmp_path):
    """mnli's models under eager at 32 tokens; under compile, two failed."""
    ms = {"bert-small": 1.0, "distilbert": 2.0, "roberta-large": 8.0, "bert-large": 10.0}
    rows = [Row(model, 32, "eager", text_p50=value, engine={"dtype": "float16"}) for model, value in ms.items()]
    rows += [Row("bert-large", 32, "compile", error="RuntimeError: no luck"), Row("minilm-l6", 32, "eager", 9.0)]
    rows += [Row("roberta-large", 32, "compile", error="OutOfMemoryError")]
    device = {"name": "NVIDIA H200", "driver": "580", "power_limit_w": 700.0, "torch": "2.11", "commit": "abc"}
    content = {"device": device | {"day": "2026-12-01"}, "rows": [asdict(row) for row in rows]}
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(content))
    (tmp_path / "training.json").write_text("{}")
    return tmp_path


def test_the_latencies_beside_the_papers(folder):
    (table,) = shapes(folder)
    row = table.text().set_index("model").loc["RoBERTa-large"]
    assert row.tolist() == ["355", "26", "8.00", "3.2"] and len(table.data) == 12
    assert "RuntimeError: no luck: bert-large compile 32." in table.notes
    assert "OutOfMemoryError: roberta-large compile 32." in table.notes
    assert table.provenance.startswith("random weights; float16; device NVIDIA H200; power limit 700 W; driver 580; ")
    assert table.provenance.endswith("torch 2.11; commit abc; 2026-12-01.")


def test_the_report_command_writes_beside_the_bench(folder, capsys):
    main([str(folder)])
    written = {f"nvidia-h200-shapes{end}" for end in (".md", ".csv", ".tex")}
    assert written <= {path.name for path in folder.iterdir()} and "3 files" in capsys.readouterr().out


def test_between_markers(folder):
    text = "<!-- table: shapes . | model, paper: ms -->\n<!-- /table -->\n"
    assert "| RoBERTa-large | 26 |" in rewritten(text, folder)
    assert "*Nothing measured for shapes in none yet.*" in rewritten(
        "<!-- table: shapes none -->\n<!-- /table -->\n", folder
    )
