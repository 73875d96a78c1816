"""Label order and scale are measured on train: every order is found, and a model that fits none is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from tabi_bench.zoo.checks import check_model
from tabi_bench.zoo.labels import best_orders, checked, find_order, find_scale, measure, named_order, slice_rows
from tabi_bench.zoo.loading import ModelError, fold_head, load_folder, load_model, load_tokenizer
from tabi_bench.zoo.training import validation_score
from tests.engines.micro_models import write_model
from tests.zoo.toys import LABELS, permuted, toy_task, trained


@pytest.mark.parametrize("order", permutations(range(3)))
def test_each_of_the_six_mnli_orders_is_found_and_undone(order, task, model, tmp_path):
    spec = permuted(model, tmp_path / "model", order)
    spec, finding = checked(spec, task, tmp_path, 0, "cpu")
    assert spec.label_order == order and finding.margin > 10
    undone = load_model(spec, torch.float32, "cpu")
    assert validation_score(undone, load_tokenizer(spec.path, 24), task, "cpu") > 0.9


def test_names_are_not_believed_against_the_evidence(task, model, tmp_path):
    spec = permuted(model, tmp_path / "model", (2, 1, 0), names=LABELS)
    assert measure(spec, task, 0, "cpu").label_order == (2, 1, 0)


def test_random_model_and_wrong_number_of_outputs_are_refused(task, tmp_path):
    """The number of outputs by `check_model`, which comes before any model is measured."""
    with pytest.raises(ModelError, match=r"fits the task|about as well"):
        measure(replace(write_model(tmp_path / "random", "bert"), max_length=24), task, 0, "cpu")
    with pytest.raises(ModelError, match="2 outputs, task mnli 3 labels"):
        check_model(write_model(tmp_path / "two", "bert", num_labels=2), task)


def test_found_once_then_read_back(task, model, tmp_path, monkeypatch):
    first = checked(model, task, tmp_path, 0, "cpu")
    monkeypatch.setattr("tabi_bench.zoo.labels.measure", None)
    assert checked(model, task, tmp_path, 0, "cpu") == first


def test_two_orders_in_doubt_are_refused_unless_names_settle_it():
    counts = np.array([[80, 0, 20], [0, 48, 52], [0, 50, 50]])
    with pytest.raises(ModelError, match="about as well"):
        find_order(counts, None, "m")
    finding = find_order(counts, (0, 2, 1), "m")
    assert finding.by_name and finding.label_order == (0, 2, 1)
    with pytest.raises(ModelError, match="about as well"):
        find_order(counts, (2, 1, 0), "m")


def test_a_model_that_always_says_the_same_fits_nothing():
    with pytest.raises(ModelError, match="no order of its 3 outputs fits"):
        find_order(np.array([[200, 0, 0]] * 3), (0, 1, 2), "m")


@pytest.mark.parametrize("seed", range(5))
def test_best_two_orders_equal_a_search_of_all(seed):
    counts = np.random.default_rng(seed).integers(0, 30, (4, 4))
    scores = sorted((sum(counts[k, order[k]] for k in range(4)) for order in permutations(range(4))), reverse=True)
    right = [sum(counts[k, order[k]] for k in range(4)) for order in best_orders(counts)]
    assert right == scores[:2]


def test_many_outputs_with_no_signal_are_refused():
    random = np.random.default_rng(0)
    counts = np.zeros((60, 60), dtype=int)
    np.add.at(counts, (np.repeat(np.arange(60), 12), random.integers(0, 60, 720)), 1)
    with pytest.raises(ModelError, match="about as well"):
        find_order(counts, tuple(range(60)), "m")


def test_names_of_outputs():
    outputs = {"0": "CONTRADICTION", "1": "Neutral", "2": "entailment"}
    assert named_order(outputs, LABELS) == (2, 1, 0)
    assert named_order({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, LABELS) is None


def test_scores_on_another_scale_are_mapped_and_others_left_alone():
    labels = np.random.default_rng(0).uniform(0, 5, 400)
    assert find_scale(labels + 0.1, labels, "m").scale is None
    assert find_scale(labels / 5, labels, "m").scale == pytest.approx((5.0, 0.0), abs=1e-9)
    with pytest.raises(ModelError, match="does not follow the labels"):
        find_scale(np.random.default_rng(1).uniform(0, 5, 400), labels, "m")
    with pytest.raises(ModelError, match="does not follow"):
        find_scale(np.ones(400), labels, "m")


def test_a_head_on_zero_to_one_is_rescaled_on_train(tmp_path):
    task = toy_task(labels=(), name="stsb")
    spec = trained(tmp_path / "scores", task)
    model = load_folder(spec.path, torch.float32)
    fold_head(model, None, (0.2, 0.0))
    model.save_pretrained(spec.path)
    finding = measure(spec, task, 0, "cpu")
    assert finding.score > 0.9 and finding.scale[0] == pytest.approx(5, rel=0.2)


def test_slice_is_even_over_labels_and_seeded():
    labels = np.repeat([0, 1], [5000, 300])
    rows = slice_rows(labels, 3, False)
    assert np.bincount(labels[rows]).tolist() == [300, 300]
    assert (rows == slice_rows(labels, 3, False)).all()
