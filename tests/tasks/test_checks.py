"""What the checks refuse, what they map, and what they only note."""

import dataclasses

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tabi_bench.config import HubConfig, read_file
from tabi_bench.tasks.checks import DataError, make_task
from tests.settings import toy_task

TASK = toy_task(labels=["good", "bad"])
WHERE = {"train": "TRAIN", "validation": "VALIDATION"}


def table(labels, texts=None, **columns):
    return Dataset.from_dict({"text": texts or [f"row {i}" for i in range(len(labels))], "label": labels, **columns})


def make(train, validation=None, limits=(None, None), **changes):
    source = read_file("source", "local", train_rows=limits[0], validation_rows=limits[1])
    validation = train if validation is None else validation
    return make_task(dataclasses.replace(TASK, **changes), source, 0, train, validation, WHERE)


@pytest.mark.parametrize("labels", [["bad", "good"], [1, 0], [1.0, 0.0], ["1", "0"]])
def test_names_and_numbers_become_positions(labels):
    assert make(table(labels)).labels("train").tolist() == [1, 0]


def test_class_labels_are_mapped_by_name_whatever_their_numbers():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    assert make(data).labels("train").tolist() == [1, 0]
    hidden = Dataset.from_dict({"text": ["a", "b"], "label": [-1, 1]}, features=features)
    with pytest.raises(DataError, match="1 of 2 labels are hidden"):
        make(hidden)


def test_the_hubs_label_column_wins_where_it_exists():
    data = table([0, 1], names=["bad", "good"])
    assert make(data, hub=HubConfig(None, None, None, label="names")).labels("train").tolist() == [1, 0]


def test_labels_outside_the_task_are_refused():
    with pytest.raises(
        DataError, match=r"TRAIN: 1 of 2 rows have another label than .* knows .*'2' \(1 rows\), the first at row 2"
    ):
        make(table([0, 2]))
    with pytest.raises(DataError, match="-1 means hidden labels"):
        make(table([0, -1]))
    with pytest.raises(
        DataError, match=r"TRAIN: 2 of 3 rows .*: 'ugly' \(2 rows\), the first at row 2; there are good, bad"
    ):
        make(table(["good", "ugly", "ugly"]))
    with pytest.raises(DataError, match="mapped by name, never by number"):
        make(table([0, 1]), family="intent")


def test_missing_columns_rows_labels_and_texts_are_refused():
    with pytest.raises(DataError, match="no column 'text'; it has 'label'"):
        make(table([0, 1]).remove_columns("text"))
    with pytest.raises(DataError, match="VALIDATION: it holds no rows"):
        make(table([0, 1]), table([0, 1]).select([]))
    with pytest.raises(DataError, match="TRAIN: 1 of 2 rows have no label in column 'label', the first at row 2; drop"):
        make(table(["good", ""]))
    with pytest.raises(DataError, match="1 of 2 rows have no text in column 'text', the first at row 1; drop"):
        make(table([0, 1], texts=[None, "b"]))


def test_empty_labels_are_the_sorted_names_of_train():
    assert make(table(["10", "9", "10"]), labels=[]).config.labels == ["9", "10"]
    with pytest.raises(DataError, match="a classifier needs two"):
        make(table(["one", "one"]), labels=[])


def test_scores_of_a_regression_task_must_be_finite_numbers():
    assert make(table(["1.5", "4", "2"]), labels=[], metric="pearson").labels("train").tolist() == [1.5, 4.0, 2.0]
    with pytest.raises(DataError, match=r"no finite number in column 'label', the first at row 2: 'high'"):
        make(table(["1.5", "high"]), labels=[], metric="pearson")
    with pytest.raises(DataError, match=r"no finite number .*: 'inf'"):
        make(table(["1.5", "inf"]), labels=[], metric="pearson")


def test_subsets_duplicates_and_absent_labels_are_noted():
    train, validation = table([0, 0], ["A  b", "c"]), table([1, 0, 0], ["a B", "new", "New"])
    notes = make(train, validation, official_rows={"train": 5, "validation": 3}).notes
    assert notes["subset"] == {"train": "2 of 5"}
    assert notes["validation_rows_in_train"] == 1
    assert notes["repeated_validation_rows"] == 1
    assert notes["absent_labels"] == {"train": ["bad"], "validation": []}


def test_row_limits_draw_by_seed_and_keep_the_order():
    data = table([0, 1] * 10)
    task = make(data, limits=(7, None))
    numbers = [int(text.split()[1]) for (text,) in task.texts("train")]
    assert len(numbers) == 7 and numbers == sorted(set(numbers))
    assert task.notes["rows"] == {"train": 7, "validation": 20}
    assert make(data, limits=(7, None)).content_hash == task.content_hash
