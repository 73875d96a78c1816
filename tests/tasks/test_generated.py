"""The generated tasks: the real tasks' schema, fixed shares of hard rows, cues that decide, fillers that do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tabi_bench.config import TaskConfig, read_file
from tabi_bench.tasks.generated import LABEL_NOISE, GrammarError, cue_words, load
from tabi_bench.tasks.grammar import COUNTS, CUES, DISCOUNTS, FILLERS

SHARES = {"sst2": 0.33, "stsb": 0.36, "massive": 0.37, "qqp": 0.42, "clinc": 0.43}
SHARES |= {"mrpc": 0.45, "cola": 0.45, "qnli": 0.53, "mnli": 0.61, "rte": 0.71}
SMALL = read_file("source", "generated", train_rows=1500, validation_rows=200)


def task(name: str) -> TaskConfig:
    return read_file("task", name)


@pytest.fixture(scope="module", params=SHARES)
def loaded(request):
    return load(task(request.param), SMALL, 0)


def test_hard_rows_are_as_many_as_fixed_beforehand(loaded):
    share = SHARES[loaded.name]
    assert loaded.config.hard_share == share
    assert sum(loaded.train["hard"]) == round(1500 * share) and sum(loaded.validation["hard"]) == round(200 * share)


def test_columns_labels_and_metric_are_the_real_tasks(loaded):
    columns = set(loaded.train.column_names)
    assert {*loaded.config.texts, loaded.config.label} <= columns
    labels = loaded.labels("train")
    if loaded.is_regression:
        assert loaded.name == "stsb" and labels.min() >= 0 and labels.max() <= 5
    else:
        assert set(labels.tolist()) == set(range(len(loaded.config.labels)))


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(loaded):
    assert load(task(loaded.name), SMALL, 0).content_hash == loaded.content_hash
    assert load(task(loaded.name), SMALL, 1).content_hash != loaded.content_hash


def test_no_validation_row_lies_in_train(loaded):
    assert not set(loaded.texts("train")) & set(loaded.texts("validation"))
    assert len(set(loaded.texts("train"))) == 1500


def test_the_deciding_cue_gives_the_label_but_for_the_noise(loaded):
    cues = cue_words(loaded.config)
    level_of = {cue: k for k, phrases in enumerate(cues) for cue in phrases}
    levels = np.array([level_of[cue] for cue in loaded.train["cue"]])
    labels = loaded.labels("train")
    near = np.abs(labels - 5 * levels / (len(cues) - 1)) <= 0.21 if loaded.is_regression else labels == levels
    assert 0 < 1 - near.mean() < 4 * LABEL_NOISE
    assert all(cue in " ".join(texts) for cue, texts in zip(loaded.train["cue"], loaded.texts("train"), strict=True))


def test_a_bag_of_words_knows_easy_rows_and_not_hard_ones():
    loaded = load(task("sst2"), replace(SMALL, train_rows=4000), 0)
    words = {w: i for i, w in enumerate(sorted({w for (t,) in loaded.texts("train") for w in t.split()}))}
    bags = {split: np.zeros((len(loaded.texts(split)), len(words))) for split in ("train", "validation")}
    for split, bag in bags.items():
        for row, (text,) in enumerate(loaded.texts(split)):
            for word in text.split():
                bag[row, words.get(word, 0)] += 1
    model = LogisticRegression(max_iter=300).fit(bags["train"], loaded.labels("train"))
    right, hard = model.predict(bags["validation"]) == loaded.labels("validation"), np.array(loaded.validation["hard"])
    assert right[~hard].mean() > 0.9 and right[hard].mean() < 0.7


def test_fillers_are_neither_cues_nor_markers():
    signal = {word for marker in (*COUNTS, *DISCOUNTS) for word in marker.split() if word not in ("the", "in")}
    signal |= {word for cues in CUES.values() for phrases in cues for cue in phrases for word in cue.split()}
    assert not signal & set(FILLERS)


def test_your_own_task_has_no_generator():
    with pytest.raises(GrammarError, match="has no generator; there are: sst2"):
        load(replace(task("sst2"), name="mine"), SMALL, 0)
