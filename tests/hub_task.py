"""A task that lies on a hub, read without what models need: a process that only reads data starts sooner."""

from __future__ import annotations

from tabi_bench.config import HubConfig, SourceConfig, TaskConfig
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.hub import load

REPO = "nyu-mll/glue"


def task(revision: str, **changes) -> TaskConfig:
    options = {"labels": ["entailment", "neutral", "contradiction"], "split": "validation_matched"} | changes
    return TaskConfig("mnli", "pair", ["premise", "hypothesis"], hub=HubConfig(REPO, "mnli", revision), **options)


def read(revision: str, **changes) -> Task:
    return load(task(revision, **changes), SourceConfig("hub"), 0)
