"""The ten tasks' data sets as they lie on the hub: real cards' order of configurations, real columns and types."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Value

from tabi_bench.config import TaskConfig, read_file
from tabi_bench.tasks.generated import load
from tests.fake_hub import FakeHub

TASKS = ("sst2", "mnli", "rte", "qqp", "mrpc", "cola", "qnli", "stsb", "massive", "clinc")
GLUE = ("ax", "cola", "mnli", "mnli_matched", "mnli_mismatched", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
CLINC = ("imbalanced", "plus", "small")
ROWS = read_file("source", "generated", train_rows=240, validation_rows=160)


def publish(hub: FakeHub, folder: Path) -> dict[str, str]:
    """Commits the three repositories and writes local copies as `folder`/<task>; the commits by repository."""
    repositories: dict[str, dict[str, bytes]] = {}
    for name in TASKS:
        task = read_file("task", name)
        rows = load(task, ROWS, 0)
        for split, data in ((task.train_split, rows.train), (task.split, rows.validation)):
            columns = {column: data[column][:] for column in task.texts} | {"label": data[task.label][:]}
            files = repositories.setdefault(task.hub.path, {})
            if name == "massive":
                files[f"{split}.jsonl"] = jsonl(task, columns)
            else:
                files[f"{task.hub.name}/{split}-00000-of-00001.parquet"] = parquet(task, columns)
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{split}.jsonl").write_text(local_rows(task, columns), encoding="utf-8")
    for repo, configs in (("nyu-mll/glue", GLUE), ("clinc/clinc_oos", CLINC)):
        repositories[repo]["README.md"] = card(configs, repositories[repo]).encode()
        repositories[repo][f"{configs[0]}/test-00000-of-00001.parquet"] = b"not fetched"
    repositories["SetFit/amazon_massive_intent_en-US"]["README.md"] = b"# amazon massive intent en-US\n"
    return {repo: hub.add(repo, files, "datasets") for repo, files in repositories.items()}


def pinned(name: str, commits: dict[str, str]) -> TaskConfig:
    """The task's own file, pinned to what `publish` committed."""
    task = read_file("task", name)
    return replace(task, hub=replace(task.hub, revision=commits[task.hub.path]))


def parquet(task: TaskConfig, columns: dict[str, list]) -> bytes:
    """Integers with names as ClassLabel (CLINC: the column is called intent), scores as float32, a column idx."""
    label = ClassLabel(names=task.labels) if task.labels else Value("float32")
    features = {column: Value("string") for column in task.texts} | {task.label: label, "idx": Value("int32")}
    rows = {column: columns[column] for column in task.texts} | {task.label: columns["label"]}
    rows["idx"] = list(range(len(columns["label"])))
    stream = io.BytesIO()
    pq.write_table(Dataset.from_dict(rows, features=Features(features)).data.table, stream)
    return stream.getvalue()


def jsonl(task: TaskConfig, columns: dict[str, list]) -> bytes:
    """As SetFit publishes MASSIVE: numbers of its own beside the names."""
    rows = zip(columns["text"], columns["label"], strict=True)
    lines = [
        {"id": str(k), "label": 59 - label, "text": text, "label_text": task.labels[label]}
        for k, (text, label) in enumerate(rows)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def local_rows(task: TaskConfig, columns: dict[str, list]) -> str:
    label = task.hub.label or task.label
    names = [task.labels[value] if task.labels else value for value in columns["label"]]
    rows = [
        dict(zip((*task.texts, label), row, strict=True))
        for row in zip(*(columns[c] for c in task.texts), names, strict=True)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def card(configs: tuple[str, ...], files: dict[str, bytes]) -> str:
    lines = ["---", "language:", "- en", "configs:"]
    for name in configs:
        splits = sorted({path.split("/")[1].split("-")[0] for path in files if path.startswith(f"{name}/")}) or ["test"]
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [line for split in splits for line in (f"  - split: {split}", f"    path: {name}/{split}-*")]
    return "\n".join([*lines, "---", "# a card"])
