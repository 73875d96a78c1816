"""Folders of models that are incomplete, damaged or at odds with themselves: one line with the folder's name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tabi_bench.config import read_file
from tabi_bench.zoo import labels
from tabi_bench.zoo.base import ModelError
from tabi_bench.zoo.custom import load
from tests.zoo.toys import toy_task

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 134\n"


def change_config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def half(name):
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def change_weights(**changes):
    """Replaces tensors, by the end of their name, by what a function makes of them."""

    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        for end, made in changes.items():
            name = next(name for name in tensors if name.endswith(end.replace("__", ".")))
            tensors[name] = made(tensors[name]).contiguous()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def shard(names):
    """Two shards whose index names `names`."""

    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        keys = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
        for file, part in parts.items():
            save_file({key: tensors[key] for key in part}, folder / file, {"format": "pt"})
        mapped = {key: names(file) for file, part in parts.items() for key in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))

    return change


def change_tokenizer(change_json):
    def change(folder):
        raw = json.loads((folder / "tokenizer.json").read_text())
        change_json(raw)
        (folder / "tokenizer.json").write_text(json.dumps(raw))

    return change


def add_tokens(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def into_checkpoints(folder):
    for name in ("checkpoint-100", "checkpoint-200"):
        (folder / name).mkdir()
        shutil.copy(folder / "config.json", folder / name)
    (folder / "config.json").unlink()


DAMAGE = {
    "lfs weights": (write("model.safetensors", POINTER), r"model.safetensors is no whole .*git-lfs pointer: git"),
    "half weights": (half("model.safetensors"), r"model.safetensors is no whole safetensors file \(.*incomplete"),
    "empty weights": (write("model.safetensors", b""), r"model.safetensors is no whole .*\(it is empty\)"),
    "html weights": (write("model.safetensors", "<html>" * 40), r"model.safetensors is no whole safetensors file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no weights|has no model.safetensors"),
    "lfs config": (write("config.json", POINTER), r"config.json is no readable JSON \(a git-lfs pointer: "),
    "half config": (half("config.json"), r"config.json is no readable JSON \(JSONDecodeError\)"),
    "binary config": (write("config.json", b"\xff\xfe\x00"), r"config.json is no readable JSON \(UnicodeDecodeError\)"),
    "list config": (write("config.json", "[1]"), "config.json holds no JSON object"),
    "other type": (change_config(model_type="gpt2"), "model_type 'gpt2' is not supported; there are: bert"),
    "no type": (change_config(model_type=["bert"]), "is not supported"),
    "layers": (change_config(num_hidden_layers=1), r"has weights of layers that its config.json does not have \(bert."),
    "a folder": (lambda folder: [(folder / "tokenizer.json").unlink(), (folder / "tokenizer.json").mkdir()],
                 "damaged one has no tokenizer "),
    "heads": (change_config(num_attention_heads=5), "its config.json makes no model .*5"),
    "no layers": (change_config(num_hidden_layers=None), "its config.json lacks what a model of its type has"),
    "text for a number": (change_config(hidden_size="wide"), "its config.json makes no model"),
    "wide": (change_config(hidden_size=64), r"has shape \[.*\], by its config.json it has \[.*64"),
    "positions": (change_config(max_position_embeddings=512), r"position_embeddings.weight has shape .*it has \[512"),
    "two places": (lambda folder: [change_config(max_position_embeddings=2)(folder), change_weights(
                       bert__embeddings__position_embeddings__weight=lambda w: w[:2].clone())(folder)],
                   r"reads 2 tokens at most .*: \d special ones leave no room for a word"),
    "labels": (change_config(id2label={"0": "a", "1": "b"}), r"has 2 outputs, task mnli 3 labels \(entailment"),
    "one output": (change_config(id2label={"0": "a"}, problem_type="single_label_classification"),
                   "one output, but its config.json says problem_type 'single_label_classification'"),
    "head": (change_weights(classifier__weight=lambda w: w[:2]), r"classifier.weight has shape \[2, .*it has \[3"),
    "nan": (change_weights(classifier__weight=lambda w: w * torch.nan), r"outputs on (\d+) of \1 texts are not finite"),
    "missing": (lambda folder: save_file({k: v for k, v in load_file(folder / "model.safetensors").items()
                                          if "classifier" not in k}, folder / "model.safetensors"),
                r"weights are missing \(classifier"),
    "lfs tokenizer": (write("tokenizer.json", POINTER), "tokenizer.json is a git-lfs pointer"),
    "half tokenizer": (half("tokenizer.json"), "its tokenizer.json cannot be read"),
    "empty tokenizer": (write("tokenizer.json", "{}"), "its tokenizer.json cannot be read"),
    "added tokens": (add_tokens, r"its tokenizer has ids up to \d+, its embeddings \d+ rows"),
    "no template": (change_tokenizer(lambda raw: raw.update(post_processor=None)), "tokenizer makes no token of ''"),
    "no unk": (change_tokenizer(lambda raw: raw["model"].update(unk_token="<unk>")), "its tokenizer fails on"),
    "types": (change_tokenizer(lambda raw: [part[next(iter(part))].update(type_id=7)
                                            for part in raw["post_processor"]["pair"]]),
              "its tokenizer has token types up to 7, its embeddings 2 rows"),
    "sub-folders": (into_checkpoints, "has no config.json; its sub-folders checkpoint-100, checkpoint-200 have one"),
    "outside": (shard(lambda file: f"../../{file}"), "names '../../model-.*outside the folder; it is refused"),
    "absolute": (shard(lambda file: f"/tmp/{file}"), "outside the folder; it is refused"),
    "lacking": (shard(lambda file: file.replace("00002-of", "00003-of")), "lacks model-00003-of-00002.safetensors"),
    "no index": (lambda folder: shard(str)(folder) or (folder / "model.safetensors.index.json").unlink(),
                 "but no model.safetensors.index.json; copy the whole folder"),
    "no map": (lambda folder: shard(str)(folder) or (folder / "model.safetensors.index.json").write_text("{}"),
               "index.json has no weight_map"),
}  # fmt: skip


def load_pair(folder, whole, task, tmp_path):
    config = read_file("zoo", "custom", paths=[str(whole), str(folder)], max_length=24)
    return load(config, task, tmp_path / "cache", 0, "cpu")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_named_in_one_line_before_any_model_runs(kind, model, task, tmp_path, monkeypatch):
    folder = shutil.copytree(model.path, tmp_path / "damaged one")
    change, match = DAMAGE[kind]
    change(folder)
    late = kind in ("nan", "missing")  # what only loading or running shows
    if not late:
        monkeypatch.setattr(labels, "load_model", None)
    with pytest.raises(ModelError, match=match) as error:
        load_pair(folder, model.path, task, tmp_path)
    assert "damaged one" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("pytorch_model.bin", POINTER, "pytorch_model.bin is a git-lfs pointer, not the file itself"),
        ("pytorch_model.bin", "half a pickle", "it cannot be loaded; copy or save it again"),
        (
            "pytorch_model.bin.index.json",
            '{"weight_map": {"a": "../b.bin"}}',
            "'../b.bin', which lies outside the folder",
        ),
    ],
)
def test_old_layouts_are_checked_before_they_are_converted(name, content, match, model, task, tmp_path):
    folder = shutil.copytree(model.path, tmp_path / "old")
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": torch.ones(1)}, folder / "pytorch_model.bin")
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=match) as error:
        load_pair(folder, model.path, task, tmp_path)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_sharded_weights_are_read_and_answers_stay(model, task, tmp_path):
    folder = shutil.copytree(model.path, tmp_path / "sharded")
    shard(str)(folder)
    zoo = load_pair(folder, model.path, task, tmp_path)
    assert zoo["sharded"].params == zoo[model.path.name].params
    scores = {name: note["score"] for name, note in zoo.notes["checkpoints"].items()}
    assert scores["sharded"] == scores[model.path.name] > 0.9


@pytest.mark.parametrize("paths", [[""], ["/"], ["."], ["~nobody-at-all/model"], ["no/such/folder"]])
def test_places_that_are_none_are_refused_in_one_sentence(paths, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"folder|has no config.json") as error:
        load(read_file("zoo", "custom", paths=paths), task, tmp_path / "cache", 0, "cpu")
    assert "\n" not in str(error.value)


def test_one_folder_is_understood_without_brackets(composed):
    assert composed("zoo=custom", "zoo.paths=runs/a").zoo.paths == ["runs/a"]
    assert composed("zoo=custom", "zoo.paths=[a,b]", "zoo.models=b").zoo.models == ["b"]


def test_advice_names_both_what_may_be_wrong(model, tmp_path):
    other = toy_task(300)
    task = replace(other, train=other.train.remove_columns("label").add_column("label", [0, 1, 2] * 100))
    with pytest.raises(
        ModelError, match=r"Either it was fine-tuned for another task .*or texts or labels are at fault"
    ):
        labels.checked(model, task, tmp_path, 0, "cpu")
