"""Tables from hand-written results: numbers, cells without numbers, the paper beside ours, forms of output."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from report_samples import record, write

from tabi_bench.report.cells import Table
from tabi_bench.report.figures import build
from tabi_bench.report.reading import read
from tabi_bench.report.side_by_side import engines
from tabi_bench.report.tables import Tables


def built(root) -> dict[str, Table]:
    results = read(root)
    (setting,) = results.settings()
    return Tables(results, setting).build()


def cell(table: Table, column: str, **where) -> str:
    text = table.text()
    for key, value in where.items():
        text = text[text[key] == value]
    (actual,) = text[column]
    return actual


def test_the_main_table(results):
    table = built(results)["main"]
    assert cell(table, "mean ms", task="sst2", system="Tabi") == "6.000"
    assert cell(table, "vs INFaaS %", task="sst2", system="Tabi") == "40.0"
    assert cell(table, "vs INFaaS %", task="sst2", system="INFaaS") == "–"
    assert cell(table, "vs Cocktail %", task="sst2", system="Tabi").startswith("25.0 [")
    assert cell(table, "paper: ms", task="sst2", system="Tabi") == "13.2"
    assert table.text().task.tolist() == ["sst2"] * 3 + ["rte"] * 3 + ["cola"] * 3, "the paper's order"


def test_cells_without_numbers_say_why(results):
    table = built(results)["main"]
    assert cell(table, "score %", task="rte", system="Cocktail") == "infeasible"
    assert cell(table, "mean ms", task="rte", system="Cocktail") == "–"
    assert cell(table, "score %", task="cola", system="Tabi") == "failed"
    assert "rte, Cocktail: infeasible: no ensemble of [2] meets the target." in table.notes
    assert "cola, INFaaS, Cocktail, Tabi: failed: RuntimeError: out of memory & luck." in table.notes
    assert "Not measured: mnli, qqp, mrpc, qnli, stsb, massive, clinc." in table.notes


def test_a_system_that_a_task_lacks_is_missing(tmp_path):
    write(tmp_path, record("infaas", "a"), record("cocktail", "a"), record("tabi", "a"))
    rte = [record(m, "b", task="rte", run_id=f"rte-{m}-b") for m in ("infaas", "tabi")]
    write(tmp_path, *rte)
    assert cell(built(tmp_path)["main"], "score %", task="rte", system="Cocktail") == "missing"


def test_a_reference_other_than_infaas_is_named(tmp_path):
    write(tmp_path, record("single", "a"), record("tabi", "a", reference={"method": "single", "reduction_pct": 30.0}))
    assert cell(built(tmp_path)["main"], "vs INFaaS %", system="Tabi") == "30.0 vs single model"


def test_both_margins_stand_side_by_side(tmp_path):
    for margin, session in ((0.5, "a"), (0.0, "b")):
        write(tmp_path, *(record(m, session, margin_se=margin) for m in ("infaas", "tabi")))
    assert built(tmp_path)["main"].text()["margin SE"].tolist() == ["0.5", "0.5", "0.0", "0.0"]


@pytest.mark.parametrize("label", ["paper_targets", "layerless"])
def test_sessions_of_another_label_stand_in_a_table_of_their_own(tmp_path, label):
    write(tmp_path, *(record(m, "a") for m in ("infaas", "tabi")))
    mean = {"mean": 5.0, "p50": 5.0, "p90": 5.0, "p95": 5.0, "p99": 5.0, "n": 120}
    write(tmp_path, *(record(m, "b", label=label, latency_ms=mean) for m in ("infaas", "tabi")))
    tables = built(tmp_path)
    assert cell(tables["main"], "mean ms", system="Tabi") == "6.000"
    assert cell(tables[label], "mean ms", system="Tabi") == "5.000"


def scales(session: str, rerouted: int = 48, **changes):
    """A record of the pruning scales: full text, and two texts that make the large model a third faster."""
    variants = []
    for alpha, control in ((0.0, "importance"), (0.5, "random"), (0.5, "importance")):
        facts = {"alpha": alpha, "control": control, "rerouted": rerouted, "words_pruned": alpha / 2, "score": 0.8}
        numbers = {"ms": 10 - 4 * alpha, "faster_pct": 40 * alpha, "large_ms": 6 - 4 * alpha, "difference": -alpha / 10}
        ends = {f"{key}{end}": value for key, value in numbers.items() for end in ("", "_low", "_high")}
        variants.append(facts | ends | {"score_low": 0.7, "score_high": 0.9})
    details = {"system": {"folds": [{"models": ["small", "large"]}] * 2, "variants": variants}}
    label = changes.pop("label", "pruning")
    one = record("pruning_scales", session, label=label, details=details, run_id=f"{label}-{session}")
    one.config["scenario"] = changes
    return one


def test_pruning_stands_beside_full_text_and_few_queries_say_nothing(tmp_path):
    write(tmp_path, scales("a"))
    table = built(tmp_path)["pruning"]
    assert table.text()["words dropped by"].tolist() == ["full text", "importance", "random"]
    assert cell(table, "their ms", **{"words dropped by": "importance"}) == "8.000 [8.000, 8.000]"
    assert cell(table, "models", **{"words dropped by": "random"}) == "small > large"
    write(tmp_path, scales("a", rerouted=29))
    table = built(tmp_path)["pruning"]
    assert "their ms" not in table.text() and table.text()["queries re-routed"].tolist() == ["29"] * 3


def test_pruning_in_batches_has_a_row_for_every_size(tmp_path):
    write(tmp_path, *(scales(f"b{size}", label="batching", max_batch=size) for size in (128, 8)))
    assert built(tmp_path)["batching"].text()["batch"].tolist() == ["8"] * 3 + ["128"] * 3
    results = read(tmp_path)
    (setting,) = results.settings()
    drawn = build(Tables(results, setting), ["batching"])["batching"]
    assert drawn.data.batch.nunique() == 2 and all(path.stat().st_size for path in drawn.save(tmp_path / "figure"))


def test_ablation_and_three_levels_and_early_exit(tmp_path):
    for session, option in (
        ("a", {}),
        ("b", {"calibrate": False}),
        ("c", {"alphas": [0.0]}),
        ("d", {"ensembles": ["large"]}),
    ):
        write(
            tmp_path,
            record("infaas", session, label="ablation"),
            record("tabi", session, label="ablation", option=option),
        )
    slower = {"latency_ms": {"mean": 7.5, "p50": 5.0, "p99": 12.0}, "shares": [0.5, 0.3, 0.2]}
    three = [record(m, "t", label="three_level", task="mnli", run_id=f"mnli-{m}") for m in ("infaas", "tabi")]
    write(tmp_path, *three, record("tabi3", "t", label="three_level", task="mnli", run_id="mnli-tabi3", **slower))
    write(tmp_path, *(record(m, "e", label="deebert") for m in ("infaas", "tabi", "deebert")))
    actual = built(tmp_path)
    variants = ["whole", "without calibration", "without pruning", "without ensemble"]
    assert actual["ablation"].text()["Tabi"].tolist() == variants
    assert cell(actual["three_level"], "mean vs Tabi %", system="Tabi, three levels") == "+25.0"
    assert cell(actual["three_level"], "returned by level %", system="Tabi, three levels") == "50.0 / 30.0 / 20.0"
    assert "deebert-roberta-large: 95.9 %, -38 %" in cell(actual["deebert"], "paper", system="DeeBERT")


def test_engines_stand_in_one_table_without_ratios_between_them(tmp_path):
    for engine in ("eager", "graph"):
        own = {"engine": engine, "label": "engines"}
        write(tmp_path, *(record(m, engine, run_id=f"sst2-{m}-{engine}", **own) for m in ("infaas", "tabi")))
    results = read(tmp_path)
    actual = [engines(results, setting) for setting in results.settings()]
    assert actual[1] is None
    assert actual[0].text().engine.tolist() == ["eager, float32"] * 2 + ["graph, float32"] * 2


def test_tables_from_profiles(results):
    actual = built(results)
    assert set(actual) == {"main", "models", "tail", "break_even", "calibration"}
    assert cell(actual["models"], "mean ms", task="sst2", model="large") == "10.000"
    assert actual["calibration"].text()["T by fold"].tolist() == ["2.00 / 2.00"] * 2
    assert 0 < float(cell(actual["calibration"], "of the oracle's gain %", task="sst2")) < 100
    assert cell(actual["tail"], "p99 ms", task="sst2", system="Tabi") == "8.000 [7.000, 9.000]"


def test_forms_of_output(results):
    table = built(results)["main"]
    again = pd.read_csv(io.StringIO(table.csv()))
    assert again.mean_ms.dropna().tolist() == [10.0, 8.0, 6.0, 10.0, 6.0]
    assert again.provenance.str.contains("commit abc1234567").all()
    lines = table.markdown().splitlines()
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|")
    assert "demonstration, no evidence about the paper" in lines[-1]
    latex = table.latex()
    assert "\\toprule" in latex and "\\bottomrule" in latex
    assert "out of memory \\& luck" in latex and "score \\%" in latex
