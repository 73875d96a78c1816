"""A ladder of two micro encoders of two families: cutting, choosing a teacher, caching, starting from mnli's."""

import json
from dataclasses import replace
from graphlib import TopologicalSorter

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

from tabi_bench.config import ConfigError, EncoderConfig, read_file
from tabi_bench.tasks.base import Task
from tabi_bench.zoo import ladder as ladders
from tabi_bench.zoo import load_zoo
from tabi_bench.zoo import train as side_by_side
from tabi_bench.zoo.encoder import first_layers, without_layers
from tabi_bench.zoo.ladder import CutEncoder, Ladder, load, tasks_needed
from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn
from tabi_bench.zoo.loading import ModelError, load_model, load_tokenizer
from tabi_bench.zoo.train import job_graph
from tabi_bench.zoo.training import encode, parameter_groups, predict
from tests.settings import toy_task as task_config
from tests.zoo.toys import toy_task

WORDS = ["[PAD]", "<pad>", "[UNK]", "[CLS]", "[SEP]", "good", "bad", *(f"w{i}" for i in range(20))]
IDS = torch.tensor([[3, 5, 8, 10, 4]])
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def write_encoder(folder, kind, config, pair: str):
    """A folder like the packages': unprefixed float16 weights, a tokenizer that pads."""
    torch.manual_seed(1)
    kind(config(vocab_size=len(WORDS), max_position_embeddings=34, **SHAPE)).half().save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 3), ("[SEP]", 4)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, special)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {
        "small": write_encoder(root / "small", BertModel, BertConfig, "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "large": write_encoder(root / "large", MPNetModel, MPNetConfig, "[CLS] $A [SEP] [SEP] $B [SEP]"),
    }


def make_task(metric="accuracy", n=120) -> Task:
    rng = np.random.default_rng(0)
    good = rng.integers(0, 2, n)
    texts = [" ".join(["good" if y else "bad", *rng.choice(WORDS[7:], 5)]) for y in good]
    labels = good.astype(np.float64) * 4 if metric == "pearson" else good
    data = Dataset.from_dict({"text": texts, "label": labels})
    names = [] if metric == "pearson" else ["no", "yes"]
    return Task(task_config(labels=names, metric=metric), "local", data, data)


@pytest.fixture
def config(folders):
    whole = read_file("zoo", "encoders")
    train = replace(whole.train, epochs=4, batch_size=16, learning_rate=5e-3, distill=0.5, evaluations=2, average=0.0)
    encoders = {"small": EncoderConfig(str(folders["small"]), [1, 2], {}),
                "large": EncoderConfig(str(folders["large"]), [1, 3], {"learning_rate": 1e-2})}  # fmt: skip
    return replace(whole, encoders=encoders, train=train, tasks={}, max_length=16, via_mnli=[], student_rate=1.0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["small", "large"])
def test_a_cut_is_the_encoders_first_layers(folders, name):
    kind = {"small": BertModel, "large": MPNetModel}[name]
    whole = kind.from_pretrained(folders[name], dtype=torch.float32).eval()
    states = whole(IDS, output_hidden_states=True).hidden_states
    for layers in (1, 2, 3):
        part = first_layers(folders[name], layers, ["a", "b"], seed=0).eval()
        body = part.get_submodule(part.base_model_prefix)
        assert len(body.encoder.layer) == layers and part.dtype == torch.float32
        torch.testing.assert_close(body(IDS).last_hidden_state, states[layers])
    assert first_layers(folders[name], 1, [], seed=0).classifier.out_features == 1


def test_the_head_follows_from_the_seed_alone(folders):
    state = torch.random.get_rng_state()
    first, again, other = (first_layers(folders["large"], 1, ["a", "b"], seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_two_families_in_one_ladder_are_trained_once_and_the_best_one_teaches(config, tmp_path, monkeypatch):
    seen, real = {}, ladders.train

    def spy(model, examples, recipe, **options):
        seen.setdefault((model.config.model_type, model.config.num_hidden_layers), []).append(
            (recipe.distill, examples.teacher)
        )
        return real(model, examples, recipe, **options)

    monkeypatch.setattr(ladders, "train", spy)
    task = make_task()
    zoo = load(config, task, tmp_path, 0, "cpu")
    assert zoo.names == ["small-1", "large-1", "small-2", "large-3"]  # by parameters
    assert zoo.train_s > 0 and all(notes["validation_rows"] == 120 for notes in zoo.notes["training"].values())
    ladder = Ladder(config, task, tmp_path, 0, "cpu")
    best = ladder.teacher
    assert ladder.notes(best)["slice_score"] == max(ladder.notes(cut)["slice_score"] for cut in ladder.candidates)
    assert {name: notes["teacher"] for name, notes in zoo.notes["training"].items()} == {
        name: None if name == best.name else best.name for name in zoo.names
    }
    rows = encode(load_tokenizer(zoo[best.name].path, 16), task.texts("train"))
    logits = predict(load_model(zoo[best.name], torch.float32, "cpu"), rows, "cpu")
    for runs in seen.values():
        for weight, teacher in runs:
            assert (weight, teacher is None) in {(0.0, True), (0.5, False)}
            if teacher is not None:
                np.testing.assert_allclose(teacher, logits, atol=1e-3)
    assert sum(map(len, seen.values())) == 5  # four models, and the candidate that is not the best, once alone
    monkeypatch.setattr(ladders, "train", lambda *a, **k: pytest.fail("trained again"))
    assert load(config, task, tmp_path, 0, "cpu") == zoo
    with pytest.raises(pytest.fail.Exception):
        load(config, task, tmp_path, 1, "cpu")


def test_only_the_models_that_are_wanted_are_trained(config, tmp_path, monkeypatch):
    trained = []
    train = ladders.train
    monkeypatch.setattr(
        ladders, "train", lambda *a, course, **k: trained.append(course.title) or train(*a, course=course, **k)
    )
    task, some = make_task(), replace(config, models=["small-1"])
    zoo = load_zoo(some, task, tmp_path, 0, "cpu")
    assert zoo.names == ["small-1"] and sorted(trained) == ["toy large-3", "toy small-1", "toy small-2"]
    whole = load(config, task, tmp_path, 0, "cpu")
    assert zoo["small-1"] == whole["small-1"] and len(trained) == 5, "the teacher is found as ever"
    with pytest.raises(
        ConfigError, match=r"zoo.models names \['huge'\]; zoo 'encoders' has: large-1, large-3, small-1"
    ):
        load(replace(config, models=["huge"]), make_task(), tmp_path / "new", 0, "cpu")
    assert len(trained) == 5


def test_fewer_validation_rows_leave_the_models_as_they_are(config, tmp_path):
    task = make_task()
    fewer = replace(task, validation=task.validation.select(range(40)))
    less = replace(task, train=task.train.select(range(100)))
    keys = [Ladder(config, data, tmp_path, 0, "cpu").key(CutEncoder("large", 3)) for data in (task, fewer, less)]
    assert keys[0] == keys[1] != keys[2] and task.content_hash != fewer.content_hash


def test_without_distillation_all_learn_from_labels(config, tmp_path):
    zoo = load(replace(config, distill=False), make_task(), tmp_path, 0, "cpu")
    assert [notes["teacher"] for notes in zoo.notes["training"].values()] == [None] * 4


def test_what_is_stored_scores_what_its_notes_say(config, tmp_path):
    task = make_task("pearson")
    zoo = load(config, task, tmp_path, 0, "cpu")
    for spec in zoo.models:
        rows = encode(load_tokenizer(spec.path, 16), task.texts("validation"))
        scores = predict(load_model(spec, torch.float32, "cpu"), rows, "cpu")[:, 0]
        expected = np.corrcoef(scores, task.labels("validation"))[0, 1]
        assert zoo.notes["training"][spec.name]["validation_score"] == pytest.approx(expected, abs=1e-4)


def test_recipes_are_the_encoders_then_the_tasks_times_the_rates(config):
    config = replace(config, tasks={"toy": {"epochs": 7}}, rates={"toy": 2.0}, student_rate=3.0)
    ladder = Ladder(config, make_task(), None, 0, "cpu")
    alone, taught = ladder.recipe(CutEncoder("large", 3)), ladder.recipe(CutEncoder("large", 1, taught=True))
    assert (alone.epochs, alone.learning_rate, alone.distill) == (7, pytest.approx(0.02), 0.0)
    assert (taught.learning_rate, taught.distill) == (pytest.approx(0.06), 0.5)
    assert ladder.recipe(CutEncoder("small", 2)).learning_rate == pytest.approx(0.01)
    with pytest.raises(ConfigError, match=r"zoo.encoders.small.train, zoo.tasks.toy: .*epoch"):
        Ladder(replace(config, tasks={"toy": {"epoch": 7}}), make_task(), None, 0, "cpu").recipe(CutEncoder("small", 2))


@pytest.mark.parametrize(("texts", "kind"), [(1, TextCnn), (2, DecomposableAttention)])
def test_the_model_without_layers_is_an_extension(config, folders, tmp_path, texts, kind):
    table = BertModel.from_pretrained(folders["small"], dtype=torch.float32).embeddings.word_embeddings.weight
    model = without_layers(folders["small"], ["a", "b"], seed=0, texts=texts)
    assert type(model) is kind
    torch.testing.assert_close(model.bert["embeddings"]["word_embeddings"].weight, table)
    task = make_task() if texts == 1 else toy_task(120)
    zoo = load(replace(config, layerless=True), task, tmp_path, 0, "cpu")
    assert zoo.names[0] == "small-0" and type(load_model(zoo.models[0], torch.float32, "cpu")) is kind
    alone = replace(config, layerless=True, encoders={"large": config.encoders["large"], "small": None})
    with pytest.raises(ModelError, match=r"zoo\.layerless=true needs an encoder with BERT's embeddings"):
        load(alone, task, tmp_path, 0, "cpu")


def test_models_start_from_mnlis_of_the_same_name(config, tmp_path, monkeypatch):
    mnli = toy_task(120)
    rte = toy_task(120, labels=("entailment", "contradiction", "neutral"), name="rte")
    rte = replace(rte, origin=read_file("source", "local", dir="."))
    monkeypatch.setattr(ladders, "load_task", lambda *_: mnli)
    config = replace(config, via_mnli=["rte"], encoders={"large": config.encoders["large"]})
    ladder = Ladder(config, rte, tmp_path, 0, "cpu")
    cut = CutEncoder("large", 3)
    start, model = load_model(ladder.start.spec(cut), torch.float32, "cpu"), ladder._start(cut)
    for name, value in start.state_dict().items():
        if not name.startswith("classifier"):
            torch.testing.assert_close(model.state_dict()[name], value)
    for ours, mnlis in enumerate((0, 2, 1)):  # the head's rows follow the labels' names
        assert torch.equal(model.classifier.weight[ours], start.classifier.weight[mnlis])
    assert tasks_needed(config, "rte") == ["rte", "mnli"] and tasks_needed(config, "sst2") == ["sst2"]
    with pytest.raises(ConfigError, match=r"zoo\.via_mnli: rte: its source is not known"):
        Ladder(config, replace(rte, origin=None), tmp_path, 0, "cpu").check()


def test_layers_that_are_not_there_are_refused_before_any_training(config, tmp_path):
    config = replace(config, encoders={**config.encoders, "large": replace(config.encoders["large"], layers=[4])})
    with pytest.raises(ModelError, match=r"zoo.encoders: 4 layers asked of .*large, which has 3"):
        load(config, make_task(), tmp_path, 0, "cpu")
    assert not (tmp_path / "encoders").exists()


def test_deeper_layers_learn_faster(folders, config):
    model = first_layers(folders["large"], 3, ["a", "b"], 0)
    groups = parameter_groups(model, replace(config.train, layer_decay=0.5))
    scales = {id(p): group["scale"] for group in groups for p in group["params"]}
    layers = model.mpnet.encoder.layer
    assert [scales[id(layer.output.dense.weight)] for layer in layers] == [0.125, 0.25, 0.5]
    assert scales[id(model.classifier.weight)] == 1 and scales[id(model.mpnet.embeddings.LayerNorm.bias)] == 0.0625
    assert {group["weight_decay"] for group in groups} == {0.0, config.train.weight_decay}


def test_a_model_waits_for_its_teacher_and_for_mnlis(config):
    """The order of jobs alone: nothing is trained."""
    alone = [CutEncoder("small", 2), CutEncoder("large", 3)]
    students = [CutEncoder("small", 1, True), CutEncoder("large", 1, True)]
    taught = [replace(cut, taught=True) for cut in alone]
    known = {task: (alone, students, 100.0) for task in ("mnli", "rte")}
    graph = job_graph(replace(config, via_mnli=["rte"]), known)
    assert len(graph) == 12 and len(list(TopologicalSorter(graph).static_order())) == 12
    for cut in (*alone, *students, *taught):
        assert graph["rte", cut] >= {("mnli", other) for other in (cut, *alone)}
    for task in ("mnli", "rte"):
        assert all(graph[task, cut] >= {(task, first) for first in alone} for cut in (*students, *taught))
    assert not any(graph["mnli", cut] for cut in alone)


@pytest.mark.slow
def test_ladders_side_by_side_report_what_they_made(config, folders, tmp_path, capsys):
    report = tmp_path / "training.json"
    given = [f"encoders.minilm.source={folders['small']}", "encoders.minilm.layers=[1,2]", "encoders.mpnet=null",
             "train.max_steps=2", "train.evaluations=1", "tasks={}", "max_length=32"]  # fmt: skip
    options = ["--tasks", "sst2,rte", "--cache-dir", str(tmp_path), "--train-rows", "60", "--validation-rows", "40",
               "--device", "cpu", "--report", str(report)]  # fmt: skip
    assert side_by_side.main([*options, *given]) == 0
    rows = json.loads(report.read_text())["models"]
    assert {(row["task"], row["model"], row["taught"]) for row in rows} == {
        (task, f"minilm-{layers}", layers == 1) for task in ("sst2", "rte") for layers in (1, 2)
    }
    assert "validation score, %" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"ModelError: zoo.encoders: 9 layers asked"):
        side_by_side.main([*options, *given, "encoders.minilm.layers=[9]"])
