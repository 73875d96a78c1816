"""zoo=paper: the list of cells, checkpoints from a small hub, what is missing, filling it, and the bare shapes."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

from tabi_bench.config import ConfigError, PaperZooConfig, read_file
from tabi_bench.zoo import paper
from tabi_bench.zoo.families import shapes
from tabi_bench.zoo.families.shapes import PAPER
from tabi_bench.zoo.finetune import fine_tuned, main
from tabi_bench.zoo.loading import ModelError
from tabi_bench.zoo.paper import TASKS, coverage, describe, load, recipe, start
from tabi_bench.zoo.paper import main as main_of_paper
from tests.engines.micro_models import write_model
from tests.zoo.test_folders import DAMAGE
from tests.zoo.toys import permuted


@pytest.fixture
def listed() -> PaperZooConfig:
    return read_file("zoo", "paper")


@pytest.fixture
def config(hub, tmp_path, model, albert) -> PaperZooConfig:
    """Two cells and one backbone on the small hub."""
    hub.add_folder("a/small", permuted(model, tmp_path / "small", (2, 1, 0)).path)
    hub.add_folder("b/albert", albert.path)
    write_model(tmp_path / "bare", "bert", initializer_range=0.05)
    hub.add_folder("c/bare", tmp_path / "bare")
    cells = {"bert-small": {"mnli": {"id": "a/small"}}, "albert": {"mnli": {"id": "b/albert", "at_least": 0.9}}}
    whole = read_file("zoo", "paper", max_length=24, models=["bert-small", "albert"])
    train = replace(whole.train, epochs=8, learning_rate=3e-3)
    return replace(whole, cells=cells, backbones={"bert-base": {"id": "c/bare"}}, train=train, recipes={}, tasks={})


def test_the_list_is_whole(listed):
    assert set(listed.cells) == set(PAPER) and set(listed.backbones) == set(PAPER) - {"prunebert"}
    for tasks in listed.cells.values():
        assert set(tasks) <= set(TASKS)
        for cell in tasks.values():
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", cell["id"]) and 0.5 < cell["at_least"] < 1
            assert set(cell) <= {"id", "revision", "at_least", "reported"}
    assert all(recipe(listed, model, task).epochs > 0 for model in PAPER for task in TASKS)


def test_coverage_names_the_command_for_each_empty_cell(listed):
    states, text = coverage(listed), describe(listed)
    assert states.shape == (12, 10) and states.loc["deberta-xlarge", "mnli"] == "main"
    commands = re.findall(r"finetune model=(\S+) task=(\S+) source=hub", text)
    assert len(commands) == (states == "tune").to_numpy().sum()
    assert all(task not in listed.cells[model] for model, task in commands)


def test_small_tasks_of_large_models_start_from_mnli(listed):
    assert start(listed, "roberta-large", "rte")["id"] == listed.cells["roberta-large"]["mnli"]["id"]
    assert start(listed, "roberta-large", "cola")["id"] == "FacebookAI/roberta-large"
    assert start(listed, "bert-base", "rte")["id"] == "google-bert/bert-base-uncased"
    with pytest.raises(ModelError, match="prunebert has no backbone"):
        start(listed, "prunebert", "rte")


def test_cells_are_fetched_measured_and_remembered_with_their_commit(config, hub, task, tmp_path):
    zoo = load(config, task, tmp_path / "cache", 0, "cpu")
    assert zoo["bert-small"].label_order == (2, 1, 0) and zoo["albert"].label_order == (0, 1, 2)
    notes = zoo.notes["checkpoints"]["bert-small"]
    assert notes["from"] == "a/small" and notes["commit"] == hub.commit_of("models", "a/small", "main")


@pytest.mark.parametrize("kind", ["added tokens", "wide", "layers"])
def test_a_public_checkpoint_at_odds_with_itself_is_named_before_it_runs(kind, config, task, model, hub, tmp_path):
    change, match = DAMAGE[kind]
    change(shutil.copytree(model.path, tmp_path / "damaged"))
    hub.add_folder("b/albert", tmp_path / "damaged")
    with pytest.raises(ModelError, match=match):
        load(config, task, tmp_path / "cache", 0, "cpu")


def test_a_model_below_its_bound_is_refused(config, task, tmp_path):
    config.cells["albert"]["mnli"]["at_least"] = 1.01
    with pytest.raises(ModelError, match=r"albert on mnli: .* at least 1\.01 was expected"):
        load(config, task, tmp_path / "cache", 0, "cpu")


def test_a_missing_cell_names_what_fills_it_and_is_filled(config, task, tmp_path):
    config.models = ["bert-small", "bert-base", "prunebert"]
    with pytest.raises(ModelError) as error:
        load(config, task, tmp_path / "cache", 0, "cpu")
    assert "python -m tabi_bench.zoo.finetune model=bert-base task=mnli source=local" in str(error.value)
    assert "prunebert: cannot be fine-tuned" in str(error.value) and "zoo.models=[bert-small]" in str(error.value)
    fine_tuned(config, "bert-base", task, tmp_path / "cache", 0, "cpu")
    config.models = ["bert-base"]
    zoo = load(config, task, tmp_path / "cache", 0, "cpu")
    assert zoo.notes["checkpoints"]["bert-base"]["from"] == "fine-tuned here"
    assert zoo.notes["checkpoints"]["bert-base"]["score"] > 0.9


def test_unknown_models_and_generated_data_are_refused(listed, task, tmp_path):
    listed.models = ["bert-huge"]
    with pytest.raises(ConfigError, match=r"zoo.models names \['bert-huge'\]; zoo 'paper' has: bert-small"):
        load(listed, task, tmp_path, 0, "cpu")
    listed.models = ["bert-base"]
    generated = type(task)(task.config, "generated", task.train, task.validation)
    with pytest.raises(ModelError, match=r"source=hub or source=local, or zoo\.random_weights=true"):
        load(listed, generated, tmp_path, 0, "cpu")
    with pytest.raises(SystemExit, match="which model"):
        main(["task=rte"])


def test_bare_shapes_need_nothing(listed, task, tmp_path, monkeypatch):
    for name in ("bert-small", "deberta-small"):
        family, changes = PAPER[name]
        small = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
        monkeypatch.setitem(shapes.SHAPES, name, (family, changes | small | {"vocab_size": 30000}))
    listed.models, listed.random_weights = ["bert-small", "deberta-small"], True
    zoo = load(listed, task, tmp_path, 0, "cpu")
    assert set(zoo.names) == {"bert-small", "deberta-small"} and zoo.notes == {"random_weights": True}
    assert zoo.models[0].label_order is None
    monkeypatch.setattr(paper, "write_shape", None)
    assert load(listed, task, tmp_path, 0, "cpu").names == zoo.names


def test_printed_pins_are_settings_that_the_command_line_takes_and_a_missing_repository_is_named(
    config, hub, composed, monkeypatch, capsys
):
    config.cells["xlnet"] = {"rte": {"id": "no/where"}}
    config.cells["albert"]["qqp"] = {"id": "b/albert", "revision": "1" * 40}
    monkeypatch.setattr(paper, "read_file", lambda *_: config)
    with pytest.raises(SystemExit, match=r"xlnet on rte: model no/where: .* has no such repository"):
        main_of_paper(["--pin"])
    lines = capsys.readouterr().out.split()
    commits = [hub.commit_of("models", repo, "main") for repo in ("a/small", "b/albert")]
    assert lines == [
        f"+zoo.cells.{name}.mnli.revision={commit}" for name, commit in zip(config.models, commits, strict=True)
    ]
    taken = composed("zoo=paper", "task=mnli", *lines).zoo.cells
    assert [taken[name]["mnli"]["revision"] for name in config.models] == commits
