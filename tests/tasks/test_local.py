"""Files on disk become a Task: every format, shards, and clear sentences for what cannot be read."""

import json

import pandas as pd
import pytest

from tabi_bench.config import read_file
from tabi_bench.tasks.checks import DataError
from tabi_bench.tasks.local import load
from tests.settings import toy_task

ROWS = pd.DataFrame({"text": ["NA", 'a "bare" quote', "no"], "label": ["bad", "good", "bad"]})
TASK = toy_task(labels=["good", "bad"])


def write(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")) + "\n\n")
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        path.write_text("\n".join("\t".join(row) for row in [frame.columns, *frame.values.tolist()]))


def load_from(folder):
    return load(TASK, read_file("source", "local", dir=str(folder)), 0)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".tsv"])
def test_each_format_gives_the_same_rows(tmp_path, suffix):
    for split in ("train", "validation"):
        write(ROWS, tmp_path / "toy" / f"{split}{suffix}")
    task = load_from(tmp_path)
    assert task.texts("validation") == [("NA",), ('a "bare" quote',), ("no",)]
    assert task.labels("train").tolist() == [1, 0, 1]


def test_shards_are_joined_in_order(tmp_path):
    write(ROWS.iloc[:1], tmp_path / "toy" / "train-00000-of-00002.parquet")
    write(ROWS.iloc[1:], tmp_path / "toy" / "train-00001-of-00002.parquet")
    write(ROWS, tmp_path / "toy" / "validation.csv")
    task = load_from(tmp_path)
    assert task.texts("train") == task.texts("validation")


def test_two_formats_of_one_split_are_refused(tmp_path):
    for suffix in (".csv", ".parquet"):
        write(ROWS, tmp_path / "toy" / f"train{suffix}")
    with pytest.raises(DataError, match="keep one of them"):
        load_from(tmp_path)


def test_a_missing_folder_or_split_is_named_with_what_is_there(tmp_path):
    write(ROWS, tmp_path / "other" / "train.csv")
    with pytest.raises(DataError, match="holds other/"):
        load_from(tmp_path)
    write(ROWS, tmp_path / "toy" / "train.csv")
    with pytest.raises(DataError, match=r"no file validation.parquet .*holds train.csv"):
        load_from(tmp_path)


def test_unreadable_files_name_the_line_or_the_format(tmp_path):
    write(ROWS, tmp_path / "toy" / "validation.csv")
    (tmp_path / "toy" / "train.jsonl").write_text('{"text": "a", "label": "good"}\n{broken\n')
    with pytest.raises(DataError, match="line 2: not a JSON object"):
        load_from(tmp_path)
    (tmp_path / "toy" / "train.jsonl").unlink()
    (tmp_path / "toy" / "train.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="not readable as parquet"):
        load_from(tmp_path)


def test_own_files_of_a_custom_task(tmp_path):
    paths = {split: tmp_path / f"{split}.csv" for split in ("train", "validation")}
    for path in paths.values():
        write(ROWS, path)
    own = toy_task("custom", "custom", files={k: str(v) for k, v in paths.items()})
    assert load(own, read_file("source", "local"), 0).config.labels == ["bad", "good"]
    own.files.train = str(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"no file .*absent.csv; .* holds train.csv, validation.csv"):
        load(own, read_file("source", "local"), 0)
