"""`source=hub`: a task's data set from the Hugging Face hub, at the revision pinned in the task's YAML.

The files of that very commit are fetched first and `datasets` reads them from there: by itself `load_dataset` would,
without a network, silently fall back to whatever revision was cached last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabi_bench.hub import fetch, is_commit
from tabi_bench.tasks.checks import DataError, make_task

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import DatasetDict

    from tabi_bench.config import SourceConfig, TaskConfig
    from tabi_bench.tasks.base import Task


def load(task: TaskConfig, source: SourceConfig, seed: int) -> Task:
    """Fetch (or find in the cache) and check both splits. Raises DataError and hub.HubError."""
    hub = task.hub
    if hub.path is None:
        raise DataError(f"task {task.name} has no data set on the hub (task.hub.path); use source=local")
    if hub.revision is None or not is_commit(hub.revision):
        raise DataError(f"task.hub.revision={hub.revision}: pin {hub.path} to a commit, 40 hex digits; a branch moves")
    data = _read(fetch(hub.path, hub.revision, _patterns(hub.name), "dataset"), hub.path, hub.name)
    splits = {"train": task.train_split, "validation": task.split}
    for split in splits.values():
        if split not in data:
            raise DataError(f"{hub.path}: no split {split!r}; it has {', '.join(data)} (task.split, task.train_split)")
    where = {role: f"{hub.path} {hub.name or ''} {split}".replace("  ", " ") for role, split in splits.items()}
    return make_task(task, source, seed, data[splits["train"]], data[splits["validation"]], where)


def _patterns(name: str | None) -> list[str]:
    """The files of one configuration (a folder of the repository), or all data files where there is only one."""
    folder = f"{name}/*" if name else "*"
    return ["README.md", *(f"{folder}{suffix}" for suffix in (".parquet", ".jsonl", ".json", ".csv"))]


def _read(folder: Path, path: str, name: str | None) -> DatasetDict:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(str(folder), name)
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        line = (str(cause) or type(cause).__name__).splitlines()[0][:200]
        raise DataError(
            f"{path}: `datasets` cannot read {name or 'its files'} in {folder} ({line}); remove it and try again"
        ) from error
