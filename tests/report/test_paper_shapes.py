"""The paper's models as shapes: their table and the projection, from bench files written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tabi_bench.bench.engines import NOT_MEASURED, Row
from tabi_bench.report import shapes
from tabi_bench.report.__main__ import main
from tabi_bench.report.readme import rewritten

# Re-route shares implied by the paper's latencies, as fixed before anything was measured.
SHARES = {"sst2": 0.33, "stsb": 0.36, "massive": 0.37, "qqp": 0.42, "clinc": 0.43}
SHARES |= {"mrpc": 0.45, "cola": 0.45, "qnli": 0.53, "mnli": 0.61, "rte": 0.71}


@pytest.fixture
def folder(tmp_path):
    """mnli's models under eager at 32 tokens; under compile, one failed and one was not reached."""
    ms = {"bert-small": 1.0, "distilbert": 2.0, "roberta-large": 8.0, "bert-large": 10.0}
    rows = [Row(model, 32, "eager", text_p50=value, engine={"dtype": "float16"}) for model, value in ms.items()]
    rows += [Row("bert-large", 32, "compile", error="RuntimeError: no luck"), Row("minilm-l6", 32, "eager", 9.0)]
    rows += [Row("roberta-large", 32, "compile", error=NOT_MEASURED)]
    device = {"name": "NVIDIA H200", "driver": "580", "power_limit_w": 700.0, "torch": "2.11", "commit": "abc"}
    content = {"device": device | {"day": "2026-12-01"}, "rows": [asdict(row) for row in rows]}
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(content))
    (tmp_path / "training.json").write_text("{}")
    return tmp_path


def test_the_shares_are_those_that_the_papers_latencies_imply():
    assert {task: shapes.readings(task)[0].share for task in SHARES} == pytest.approx(SHARES, abs=0.0051)


def test_which_models_a_row_stands_for():
    assert shapes.readings("rte")[0].large == "deberta-xlarge", "38.1 ms, printed 38"
    assert shapes.readings("mnli")[0].large == "roberta-large", "25.8 ms, printed 26"
    assert shapes.readings("massive")[0].slowest == "prunebert", "15.4 ms, printed 15"
    assert shapes.projected("mnli", {})["as_near"] is None
    assert shapes.projected("qqp", {})["as_near"] == "bert-large", "25.4 ms lies 1.4 ms off, the nearest 0.6"
    assert "bert-large" not in shapes.unbeaten(), "DeBERTa-base is faster and more accurate"


def test_the_rule_gives_back_the_papers_reductions_on_its_own_latencies():
    """With its pruning, within the four points that whole milliseconds and the choice of a model leave."""
    for task in shapes.TASKS:
        line = shapes.projected(task, shapes.printed_ms())
        assert line["pruned_pct"] == pytest.approx(line["paper_reduction_pct"], abs=4), task


def test_the_projection_by_hand(folder):
    (table,) = shapes.build(folder)["projection"]
    line = table.data.query("engine == 'eager' and task == 'mnli'").iloc[0]
    share = (20.3 - 7) / (0.85 * 25.8)
    assert line.share == pytest.approx(share) and share == pytest.approx(0.6065, abs=1e-4)
    assert (line.infaas_ms, line.cocktail_ms) == (8.0, 10.0)
    assert line.tabi_ms == pytest.approx(2 + 0.60648 * 8, abs=1e-3)
    assert line.reduction_pct == pytest.approx(100 * (1 - 6.8518 / 8), abs=1e-2)
    small = (20.3 - 6) / (0.85 * 25.8)  # with BERT-small, 1 ms
    assert line.reduction_pct_high == pytest.approx(100 * (1 - (1 + 8 * small) / 8), abs=1e-6)
    assert line.reduction_pct_low == line.reduction_pct
    assert line.pruned_pct == pytest.approx(100 * (1 - (2 + 0.85 * 0.60648 * 8) / 8), abs=1e-2)
    assert line.cocktail_pct == pytest.approx(100 * (1 - 6.8518 / 10), abs=1e-2)
    assert all("PROJECTION, not a measurement" in note for note in table.notes)


def test_tasks_whose_models_were_not_measured_say_so(folder):
    (table,) = shapes.build(folder)["projection"]
    text = table.text()
    rte = text[(text.latencies == "eager") & (text.task == "rte")].iloc[0]
    assert rte["INFaaS ms"] == "not measured" and rte["Tabi ms"] == "–" and rte["re-routed %"] == "71"
    (summary,) = shapes.build(folder)["projection_summary"]
    assert summary.text().tasks.tolist() == ["10", "2"], "the paper's own latencies, then mnli and qnli under eager"


def test_the_latencies_beside_the_papers(folder):
    (table,) = shapes.build(folder)["shapes"]
    row = table.text().set_index("model").loc["RoBERTa-large"]
    assert row.tolist() == ["355", "26", "8.00", "3.2"] and len(table.data) == 12
    assert "RuntimeError: no luck: bert-large compile 32." in table.notes
    assert f"{NOT_MEASURED}: roberta-large compile 32." in table.notes
    assert table.provenance.startswith("random weights; float16; device NVIDIA H200; power limit 700 W; driver 580; ")
    assert table.provenance.endswith("torch 2.11; commit abc; 2026-12-01.")


def test_the_report_command_writes_beside_the_bench(folder, capsys):
    assert main([str(folder)]) == 0
    names = {f"nvidia-h200-{name}{end}" for name in shapes.NAMES for end in (".md", ".csv", ".tex")}
    assert names <= {path.name for path in folder.iterdir()}
    assert main([str(folder), "--only", "absent"]) == 1 and "there are shapes" in capsys.readouterr().err


def test_between_markers(folder):
    text = "<!-- table: projection_summary . | latencies, Tabi ms -->\n<!-- /table -->\n"
    assert "| eager | 6.54 |" in rewritten(text, folder), "mnli 6.852, qnli 2 + 0.5294 * 8 = 6.235"
    assert "*Nothing measured for shapes in none yet.*" in rewritten(
        "<!-- table: shapes none -->\n<!-- /table -->\n", folder
    )
