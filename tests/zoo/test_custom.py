"""Your own models: each family loads and runs, old layouts are converted, wrong paths are said in one sentence."""

from __future__ import annotations

import logging

import pytest
import torch

from tabi_bench.config import ConfigError, read_file
from tabi_bench.engines import make_engine
from tabi_bench.zoo.custom import _names, load, locate, usable
from tabi_bench.zoo.loading import ModelError, load_folder, spec_of
from tests.engines.micro_models import CONFIGS, write_model
from tests.zoo.toys import LABELS, permuted


def pickled(folder, target, vocabulary=True):
    """The same model as older checkpoints lie about: pytorch_model.bin and vocab.txt."""
    model = load_folder(folder, torch.float32)
    target.mkdir()
    model.config.save_pretrained(target)
    torch.save(model.state_dict(), target / "pytorch_model.bin")
    if vocabulary:
        from tests.engines.micro_models import VOCABULARY

        (target / "vocab.txt").write_text("\n".join(VOCABULARY))
        (target / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return target


def sparse(folder):
    """A BERT whose weights are 90 % zeros."""
    spec = write_model(folder, "bert")
    model = load_folder(folder, torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.bert.encoder.named_parameters():
            if name.endswith("dense.weight"):
                weight.mul_(torch.rand_like(weight) < 0.1)
    model.save_pretrained(folder)
    return spec


DEBERTA_V3 = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}
KINDS = {family: (family, {}) for family in CONFIGS} | {
    "deberta-v2-xlarge's": ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v3": ("deberta-v2", DEBERTA_V3),
    "sparse bert": ("sparse", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_loads_and_answers_with_importance(kind, tmp_path):
    family, changes = KINDS[kind]
    if family == "sparse":
        sparse(tmp_path)
    else:
        write_model(tmp_path, family, **changes)
    engine = make_engine(read_file("engine", "eager", device="cpu", dtype="float32"))
    model = engine.load(spec_of(tmp_path, kind, 24), importance="last")
    output = model.forward(model.encode(("the film is not good", "a very bad movie")), want_importance=True)
    assert output.logits.shape == (3,) and all(map(bool, output.logits == output.logits))
    assert output.importance is not None


def test_ladder_of_folders_smallest_first_with_measured_orders(task, model, albert, tmp_path):
    small = permuted(model, tmp_path / "b", (2, 0, 1))
    large = permuted(albert, tmp_path / "a", (0, 1, 2))
    config = read_file("zoo", "custom", max_length=24, paths=[str(small.path), str(large.path)])
    zoo = load(config, task, tmp_path / "cache", 0, "cpu")
    assert [spec.params for spec in zoo.models] == sorted(spec.params for spec in zoo.models)
    assert zoo["b"].label_order == (2, 0, 1) and zoo["a"].label_order == (0, 1, 2)
    assert zoo.notes["checkpoints"]["b"]["score"] > 0.9


def test_pickled_weights_and_a_vocabulary_are_converted_once(model, tmp_path):
    old = pickled(model.path, tmp_path / "old")
    folder = usable(old, tmp_path / "cache")
    assert folder == usable(old, tmp_path / "cache") and folder != old
    new, was = load_folder(folder, torch.float32).state_dict(), load_folder(model.path, torch.float32).state_dict()
    assert all(torch.equal(new[key], was[key]) for key in was)
    engine = make_engine(read_file("engine", "eager", device="cpu", dtype="float32"))
    texts = ("the film is good", "a very bad movie")
    ours, theirs = (engine.load(spec_of(path, "m", 24)) for path in (folder, model.path))
    assert ours.forward(ours.encode(texts)).logits == pytest.approx(theirs.forward(theirs.encode(texts)).logits)


def test_unsafe_pickles_are_not_executed(model, tmp_path):
    old = pickled(model.path, tmp_path / "old")

    class Evil:
        def __reduce__(self):
            return logging.error, ("executed",)

    torch.save({"classifier.weight": Evil()}, old / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsafe|unpickl"):
        usable(old, tmp_path / "cache")


def test_missing_pieces_are_named(model, tmp_path):
    with pytest.raises(ModelError, match="has no tokenizer"):
        usable(pickled(model.path, tmp_path / "bare", vocabulary=False), tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        usable(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(ModelError, match=r"no folder .*/not/a/folder; give a folder, or a hub id"):
        locate("./not/a/folder")


def test_names_stay_apart():
    assert _names(["runs/small", "me/large@main"]) == ["small", "large"]
    assert _names(["small/best", "large/best"]) == ["small-best", "large-best"]
    with pytest.raises(ModelError, match="two models are called a-best"):
        _names(["x/a/best", "y/a/best"])


def test_configuration_names_the_paths(composed):
    config = composed("task=mnli", "zoo=custom", "zoo.paths=[runs/a,owner/name@abc]")
    assert config.zoo.paths == ["runs/a", "owner/name@abc"] and config.task.labels == LABELS
    with pytest.raises(ConfigError, match=r"needs zoo\.paths"):
        composed("task=mnli", "zoo=custom")
