"""`source=hub`: a task's data set from the Hugging Face hub, at the revision pinned in the task's YAML.

The files of the configuration at that very commit are read as local files are. The library `datasets` is not asked to:
it resolves every configuration of the repository's card, and silently takes another revision without a network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tabi_bench.config import HubConfig, SourceConfig, TaskConfig
from tabi_bench.hub import fetch, is_commit, matching
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.checks import DataError, make_task
from tabi_bench.tasks.readers import FORMATS, read, usual_files
from tabi_bench.tasks.table import Table, class_names


def load(task: TaskConfig, source: SourceConfig, seed: int) -> Task:
    """Fetch (or find in the cache) and check both splits. Raises DataError and hub.HubError."""
    hub = task.hub
    if hub.path is None:
        raise DataError(f"task {task.name} has no data set on the hub (task.hub.path); use source=local")
    if hub.revision is None or not is_commit(hub.revision):
        raise DataError(f"task.hub.revision={hub.revision}: pin {hub.path} to a commit, 40 hex digits; a branch moves")
    card = _card(fetch(hub.path, hub.revision, ["README.md"], "dataset", required=False))
    known = _patterns(card, hub)
    splits = {"train": task.train_split, "validation": task.split}
    for split in splits.values():
        if known and split not in known:
            raise DataError(f"{hub.path}: no split {split!r}; it has {', '.join(known)} (task.split, task.train_split)")
    place = f"{hub.name}/" if hub.name else ""
    patterns = {split: known.get(split) or usual_files(place + split) for split in splits.values()}
    folder = fetch(hub.path, hub.revision, [one for several in patterns.values() for one in several], "dataset")
    classes = _classes(card, hub)
    tables = {role: _read(folder, patterns[split], hub) for role, split in splits.items()}
    data = {role: replace(table, classes=classes | table.classes) for role, table in tables.items()}
    where = {role: " ".join(filter(None, (hub.path, hub.name, split))) for role, split in splits.items()}
    return make_task(task, source, seed, data["train"], data["validation"], where)


def _card(folder: Path) -> dict[str, Any]:
    """The metadata at the head of the repository's README; empty without one."""
    from huggingface_hub import metadata_load

    file = folder / "README.md"
    try:
        return (metadata_load(file) or {}) if file.is_file() else {}
    except Exception as error:  # a card is written by hand, for people
        raise DataError(f"{file}: the metadata of the card cannot be read ({type(error).__name__})") from None


def _patterns(card: dict[str, Any], hub: HubConfig) -> dict[str, list[str]]:
    """Patterns of the files of each split, as the card lists them; empty where it lists none."""
    configs = {one.get("config_name", "default"): one for one in card.get("configs") or [] if one.get("data_files")}
    if not configs:
        return {}
    first = [name for name, one in configs.items() if one.get("default") or len(configs) == 1]
    name = hub.name or next(iter(first), "default")
    if name not in configs:
        raise DataError(f"{hub.path} has no configuration {name!r} (task.hub.name); it has {', '.join(configs)}")
    files = configs[name]["data_files"]
    if isinstance(files, str):
        return {}
    pairs = files.items() if isinstance(files, dict) else [(one["split"], one["path"]) for one in files]
    return {split: [path] if isinstance(path, str) else list(path) for split, path in pairs}


def _read(folder: Path, patterns: list[str], hub: HubConfig) -> Table:
    paths = matching(folder, patterns)
    if not paths:
        raise DataError(
            f"{hub.path} has no file like {patterns[0]} (nor {', '.join(FORMATS[1:])}) at revision {hub.revision}; "
            f"task.hub.name is a folder there, task.split the name of its files"
        )
    blobs = ", ".join(str(path.resolve()) for path in paths)
    return read(paths, f"its hash is the hub's, so the file there is at fault; if not, remove {blobs} and try again")


def _classes(card: dict[str, Any], hub: HubConfig) -> dict[str, list[str]]:
    """Names of the classes by column, from the card: the files of some old data sets hold the numbers alone."""
    infos = card.get("dataset_info") or []
    infos = infos if isinstance(infos, list) else [infos]
    chosen = [info for info in infos if len(infos) == 1 or info.get("config_name") == hub.name]
    features = [feature for info in chosen for feature in info.get("features") or []]
    return {f["name"]: class_names(f["dtype"]["class_label"].get("names")) for f in features
            if isinstance(f.get("dtype"), dict) and "class_label" in f["dtype"]}  # fmt: skip
