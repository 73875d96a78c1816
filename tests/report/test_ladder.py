"""The ladder table from training files written by hand: with and without distillation, seeds, older files."""

from __future__ import annotations

import json

import pytest

from tabi_bench.report.from_files import ladder
from tabi_bench.report.readme import rewritten


def training(path, scores: dict[tuple[str, int], float], seed: int = 0, overrides=(), facts=True, **work) -> None:
    """scores: by task and layers."""
    known = {"validation_rows": 872, "majority_share": 0.509, "device": "NVIDIA H200", "torch": "2.11.0"}
    rows = [
        {"task": task, "layers": layers, "metric": "accuracy", "validation_score": score, **(known if facts else {})}
        for (task, layers), score in scores.items()
    ]
    rows.append({"task": "rte", "layers": 1, "error": "RuntimeError: no luck"})
    work = {"source": "local", "train_rows": None, "overrides": list(overrides), "seed": seed, "device": "cuda"} | work
    path.write_text(json.dumps({"wall_s": 1.0, "work": work, "models": rows}))


@pytest.fixture
def folder(tmp_path):
    plain = {("sst2", 1): 0.80, ("sst2", 6): 0.90, ("cola", 1): 0.30, ("cola", 6): 0.50}
    training(tmp_path / "training.json", plain, overrides=["path=minilm"])
    alone = {("sst2", 1): 0.77, ("sst2", 6): 0.90, ("cola", 1): 0.32}
    training(tmp_path / "training-alone.json", alone, overrides=["path=minilm", "distill=false"])
    training(tmp_path / "training-seed1.json", {("sst2", 1): 0.785, ("sst2", 6): 0.92, ("cola", 6): 0.5}, seed=1)
    return tmp_path


def lines(table) -> dict[tuple[str, str], list[str]]:
    text = table.text()
    return {(line[0], line[1]): line[2:] for line in text.to_numpy().tolist()}


def test_models_by_tasks(folder):
    table = ladder(folder)
    assert [column.header for column in table.columns] == ["model", "taught by the best", "sst2", "cola"]
    assert lines(table) == {
        ("6 layers", "no"): ["91.0 [90.0, 92.0]", "50.0 [50.0, 50.0]"],
        ("1 layers", "yes"): ["79.2 [78.5, 80.0]", "30.0"],
        ("1 layers", "no"): ["77.0", "32.0"],
        ("majority class, % of rows", "–"): ["50.9", "50.9"],
        ("validation rows", "–"): ["872", "872"],
    }
    assert table.notes[0].endswith("Median over the seeds 0, 1 [lowest, highest].")
    assert table.provenance == "source local; zoo minilm; trained on NVIDIA H200; torch 2.11.0."


def test_models_of_as_many_layers_stand_apart(tmp_path):
    training(tmp_path / "training.json", {("sst2", 6): 0.9}, zoo="encoders")
    path = tmp_path / "training.json"
    content = json.loads(path.read_text())
    first = content["models"][0]
    content["models"] = [first | {"model": "wide-6", "taught": False}, first | {"model": "thin-6", "taught": True}]
    path.write_text(json.dumps(content))
    table = ladder(tmp_path)
    assert list(lines(table))[:2] == [("thin-6", "yes"), ("wide-6", "no")]
    assert table.provenance.startswith("source local; zoo encoders")


def test_a_file_from_before_they_were_written_has_no_majority_class(tmp_path):
    training(tmp_path / "training.json", {("sst2", 1): 0.8, ("sst2", 6): 0.9}, facts=False)
    table = ladder(tmp_path)
    assert lines(table) == {("6 layers", "no"): ["90.0"], ("1 layers", "yes"): ["80.0"]}
    assert table.provenance == "source local; zoo minilm; trained on cuda."


def test_nothing_trained(tmp_path):
    assert ladder(tmp_path) is None


def test_between_markers(folder):
    page = rewritten("<!-- table: ladder . -->\n<!-- /table -->\n", folder)
    assert "| 1 layers | no | 77.0 | 32.0 |" in page
    page = rewritten("<!-- table: ladder none -->\n<!-- /table -->\n", folder)
    assert "*Nothing measured for ladder in none yet.*" in page


def test_what_started_from_mnli_is_told(tmp_path):
    training(tmp_path / "training.json", {("rte", 1): 0.6, ("rte", 6): 0.7, ("mnli", 1): 0.5})
    path = tmp_path / "training.json"
    content = json.loads(path.read_text())
    for row in content["models"]:
        row |= {"via_mnli": {"validation_score": 0.5, "seconds": 1.0}} if row["task"] == "rte" else {}
    path.write_text(json.dumps(content))
    assert ladder(tmp_path).notes[0].endswith("Started from mnli's models: rte.")
