"""The tiny ladders: what is shipped is whole and small, used for its own rows alone, and can be trained again."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tabi_bench.cache import damage
from tabi_bench.config import read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.grammar import CUES
from tabi_bench.zoo import load_zoo, tiny
from tabi_bench.zoo.loading import ModelError, load_tokenizer


def task(name: str = "sst2", **source):
    return load_task(read_file("task", name), read_file("source", "generated", **source), 0)


@pytest.fixture
def config():
    return read_file("zoo", "tiny")


@pytest.fixture
def short(config):
    steps = replace(config.train, epochs=2, learning_rate=4e-3)
    return replace(config, shapes=["1x16", "2x16"], cue_steps=5, train=steps)


def test_all_ten_ladders_are_shipped_whole_in_less_than_8_mb():
    assert {folder.name for folder in tiny.SHIPPED.iterdir()} == set(CUES)
    assert all(damage(folder) is None for folder in tiny.SHIPPED.iterdir())
    assert sum(file.stat().st_size for file in tiny.SHIPPED.rglob("*") if file.is_file()) < 8e6


@pytest.mark.parametrize("name", CUES)
def test_shipped_ladders_rise_with_diminishing_returns(name, config):
    small, middle, large = (tiny.notes_of(tiny.SHIPPED / name)["models"][shape]["score"] for shape in config.shapes)
    assert middle - small > large - middle > 0.03 and large > 0.97


def test_default_rows_are_answered_by_what_is_shipped(config, tmp_path):
    zoo = tiny.load(config, task(), tmp_path, 0, "cpu")
    assert zoo.names == config.shapes and all(tiny.SHIPPED in spec.path.parents for spec in zoo.models)
    assert not list(tmp_path.iterdir())


def test_a_subset_by_name_and_a_name_that_is_none(config, tmp_path):
    assert load_zoo(replace(config, models=["10x48", "1x64"]), task(), tmp_path, 0, "cpu").names == ["1x64", "10x48"]
    with pytest.raises(ValueError, match=r"zoo.models names \['huge'\]; zoo 'tiny' has: 1x64, 4x48, 10x48"):
        load_zoo(replace(config, models=["1x64", "huge"]), task(), tmp_path, 0, "cpu")


def test_words_and_tokens_both_occur(config):
    tokenizer = load_tokenizer(tiny.SHIPPED / "sst2" / config.shapes[0], config.max_length)
    texts = task(validation_rows=50, train_rows=50).texts("validation")
    tokens = [token for (text,) in texts for token in tokenizer.encode(text).tokens]
    split = sum(token.startswith("##") for token in tokens) / len(tokens)
    assert 0.01 < split < 0.5


def test_other_rows_are_trained_for_once_and_then_found(short, tmp_path, caplog):
    few = task(train_rows=600, validation_rows=100)
    with caplog.at_level(logging.INFO):
        zoo = tiny.load(short, few, tmp_path, 0, "cpu")
        trained = caplog.text.count("on validation after")
        again = tiny.load(short, few, tmp_path, 0, "cpu")
    assert trained == 2 and caplog.text.count("on validation after") == 2
    assert [spec.content_hash for spec in zoo.models] == [spec.content_hash for spec in again.models]
    assert zoo.train_s > 0 and zoo.names == ["1x16", "2x16"]


def test_rows_recipe_and_seed_name_a_ladder(config):
    few, other = task(train_rows=50), task(train_rows=51)
    key = tiny.ladder_key(config, few, 0)
    assert key == tiny.ladder_key(replace(config, models=["1x64"]), few, 0)
    assert len({key, tiny.ladder_key(config, other, 0), tiny.ladder_key(config, few, 1)}) == 3
    assert key != tiny.ladder_key(replace(config, cue_steps=1), few, 0)


def test_a_damaged_shipped_ladder_is_refused(config, tmp_path, monkeypatch):
    folder = tmp_path / "shipped" / "sst2"
    folder.mkdir(parents=True)
    notes = {"key": tiny.ladder_key(config, task(), 0), "models": {shape: {"train_s": 1} for shape in config.shapes}}
    (folder / tiny.NOTES).write_text(json.dumps(notes))
    monkeypatch.setattr(tiny, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(ModelError, match="its manifest cannot be read"):
        tiny.load(config, task(), tmp_path, 0, "cpu")


@pytest.mark.slow
def test_one_seed_gives_the_same_tokenizer_and_weights_from_empty_caches(short, tmp_path):
    """In two processes: what depends on the order of a hash table differs between them."""
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from tabi_bench.config import read_file\n"
        "from tabi_bench.tasks import load_task; from tabi_bench.zoo import tiny\n"
        "rows = load_task(read_file('task', 'sst2'), read_file('source', 'generated', train_rows=400), 0)\n"
        "config = read_file('zoo', 'tiny', shapes=['1x16', '2x16'], cue_steps=5)\n"
        "config = replace(config, train=replace(config.train, max_steps=12))\n"
        "zoo = tiny.load(config, rows, Path(sys.argv[1]), 3, 'cpu')\n"
        "print([spec.content_hash for spec in zoo.models])"
    )
    printed = []
    for number in range(2):
        command = [sys.executable, "-c", code, str(tmp_path / f"cache{number}")]
        printed.append(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert printed[0] == printed[1] and "[" in printed[0]


def test_the_vocabulary_depends_on_the_texts_alone(tmp_path):
    texts = [" ".join(row) for row in task(train_rows=300).texts("train")] + ["naïve café ##s don't 東京"] * 2
    for number in range(3):
        tiny.write_tokenizer(texts, tmp_path / f"{number}.json", 700)
    written = {(tmp_path / f"{number}.json").read_bytes() for number in range(3)}
    assert len(written) == 1
    vocabulary = json.loads(written.pop())
    assert [token["content"] for token in vocabulary["added_tokens"]] == tiny.SPECIAL
    assert list(vocabulary["model"]["vocab"])[:5] == tiny.SPECIAL


def test_thin_models_are_trained_in_one_thread(short, tmp_path, monkeypatch):
    seen, learn = [], tiny.learn
    monkeypatch.setattr(tiny, "learn", lambda *given: seen.append(torch.get_num_threads()) or learn(*given))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny.load(short, task(train_rows=200, validation_rows=40), tmp_path, 0, "cpu")
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
