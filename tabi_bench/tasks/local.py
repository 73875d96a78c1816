"""`source=local`: files on disk in the hub's column layout, one folder per task; and your own files (`task=custom`)."""

from __future__ import annotations

from pathlib import Path

from tabi_bench.config import LocalConfig, TaskConfig
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.checks import DataError, make_task
from tabi_bench.tasks.readers import FORMATS, read, usual_files


def load(task: TaskConfig, source: LocalConfig, seed: int) -> Task:
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
    given = task.files.train if split == "train" else task.files.validation
    if given is None:
        raise DataError(f"task {task.name}: no {split} file; set task.files.{split}=PATH ({', '.join(FORMATS)})")
    path = Path(given).expanduser()
    if not path.is_file():
        raise DataError(f"task.files.{split}: no file {path.absolute()}; {_listing(path.absolute().parent)}")
    return path


def _task_folder(task: TaskConfig, source: LocalConfig) -> Path:
    if source.dir is None:
        raise DataError(f"source=local needs source.dir=DIR, a folder with {task.name}/{task.train_split}.parquet and "
                        f"{task.name}/{task.split}.parquet (or {', '.join(FORMATS[1:])})")  # fmt: skip
    root = Path(source.dir).expanduser().absolute()
    if not (root / task.name).is_dir():
        raise DataError(f"source.dir: no folder {root / task.name}; {_listing(root)}. Expected a folder per task, with "
                        f"{task.train_split} and {task.split} as {', '.join(FORMATS)}")  # fmt: skip
    return root / task.name


def _split_files(folder: Path, split: str) -> list[Path]:
    paths = sorted(path for pattern in usual_files(split) for path in folder.glob(pattern))
    if not paths:
        raise DataError(f"{folder}: no file {split}.parquet (nor {', '.join(FORMATS[1:])}); {_listing(folder)}")
    formats = sorted({path.suffix for path in paths})
    if len(formats) > 1:
        raise DataError(f"{folder}: split {split} lies there as {' and '.join(formats)}; keep one of them")
    return paths


def _listing(folder: Path) -> str:
    """What lies in `folder`, for messages."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{folder} holds {', '.join(names[:12]) + more if names else 'nothing'}"
