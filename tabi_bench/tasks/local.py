"""`source=local`: files on disk in the hub's column layout, one folder per task; and your own files (`task=custom`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tabi_bench.tasks.checks import DataError, make_task

if TYPE_CHECKING:
    from datasets import Dataset

    from tabi_bench.config import SourceConfig, TaskConfig
    from tabi_bench.tasks.base import Task

FORMATS = (".parquet", ".jsonl", ".csv", ".tsv")


def load(task: TaskConfig, source: SourceConfig, seed: int) -> Task:
    """Read `<source.dir>/<task>/<split>.<format>`, or `task.files`, and check it.

    Formats: parquet, jsonl, csv, tsv; a split may also lie in shards, `<split>-*-of-*.<format>`. Raises DataError.
    """
    if task.files.train or task.files.validation:
        files = {"train": [_own_file(task, "train")], "validation": [_own_file(task, "validation")]}
    else:
        folder = _task_folder(task, source)
        files = {"train": _split_files(folder, task.train_split), "validation": _split_files(folder, task.split)}
    data = {split: read(paths) for split, paths in files.items()}
    where = {split: str(paths[0]) for split, paths in files.items()}
    return make_task(task, source, seed, data["train"], data["validation"], where)


def _own_file(task: TaskConfig, split: str) -> Path:
    given = getattr(task.files, split)
    if given is None:
        raise DataError(f"task {task.name}: no {split} file; set task.files.{split}=PATH ({', '.join(FORMATS)})")
    path = Path(given).expanduser()
    if not path.is_file():
        raise DataError(f"task.files.{split}: no file {path.absolute()}; {_listing(path.absolute().parent)}")
    return path


def _task_folder(task: TaskConfig, source: SourceConfig) -> Path:
    if source.dir is None:
        raise DataError(f"source=local needs source.dir=DIR, a folder with {task.name}/{task.train_split}.parquet and "
                        f"{task.name}/{task.split}.parquet (or {', '.join(FORMATS[1:])})")  # fmt: skip
    root = Path(source.dir).expanduser().absolute()
    if not (root / task.name).is_dir():
        raise DataError(f"source.dir: no folder {root / task.name}; {_listing(root)}. Expected a folder per task, with "
                        f"{task.train_split} and {task.split} as {', '.join(FORMATS)}")  # fmt: skip
    return root / task.name


def _split_files(folder: Path, split: str) -> list[Path]:
    by_format = {}
    for suffix in FORMATS:
        found = sorted([*folder.glob(f"{split}{suffix}"), *folder.glob(f"{split}-*-of-*{suffix}")])
        if found:
            by_format[suffix] = found
    if not by_format:
        raise DataError(f"{folder}: no file {split}.parquet (nor {', '.join(FORMATS[1:])}); {_listing(folder)}")
    if len(by_format) > 1:
        raise DataError(f"{folder}: split {split} lies there as {' and '.join(by_format)}; keep one of them")
    return next(iter(by_format.values()))


def _listing(folder: Path) -> str:
    """What lies in `folder`, for messages."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{folder} holds {', '.join(names[:12]) + more if names else 'nothing'}"


def read(paths: list[Path]) -> Dataset:
    """The rows of files of one format, in memory; columns of csv and tsv are all text. Raises checks.DataError."""
    from datasets import concatenate_datasets

    parts = []
    for path in paths:
        reader = READERS.get(path.suffix)
        if reader is None:
            raise DataError(f"{path}: format {path.suffix or 'without a suffix'} is not read; use {', '.join(FORMATS)}")
        try:
            parts.append(reader(path))
        except DataError:
            raise
        except (ValueError, OSError) as error:
            raise DataError(
                f"{path}: not readable as {path.suffix[1:]} ({_first_line(error)}); write it again"
            ) from error
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _parquet(path: Path) -> Dataset:
    import pyarrow.parquet
    from datasets import Dataset

    return Dataset(pyarrow.parquet.ParquetFile(path).read())  # the schema's metadata brings back ClassLabel names


def _jsonl(path: Path) -> Dataset:
    from datasets import Dataset

    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not a JSON object ({error.msg}); one object per line is expected"
            ) from None
    return Dataset.from_list(rows)


def _table(path: Path) -> Dataset:
    """csv and tsv. Everything as text: "NA", "null" and "no" are words here, not missing values."""
    import csv

    import pandas as pd
    from datasets import Dataset

    quoting = csv.QUOTE_MINIMAL if path.suffix == ".csv" else csv.QUOTE_NONE  # GLUE's tsv holds bare quotation marks
    separator = "," if path.suffix == ".csv" else "\t"
    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, quoting=quoting)
    return Dataset.from_pandas(frame, preserve_index=False)


READERS = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _table, ".tsv": _table}
