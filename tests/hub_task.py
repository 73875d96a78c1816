"""A task that lies on a hub, read without what models need: a process that only reads data starts sooner."""

from __future__ import annotations

from tabi_bench.config import HubConfig, TaskConfig, read_file
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.hub import load
from tests.settings import toy_task

REPO = "nyu-mll/glue"


def task(revision: str, **changes) -> TaskConfig:
    options = {"labels": ["entailment", "neutral", "contradiction"], "split": "validation_matched"} | changes
    return toy_task("mnli", "pair", ("premise", "hypothesis"), hub=HubConfig(REPO, "mnli", revision, None), **options)


def read(revision: str, **changes) -> Task:
    return load(task(revision, **changes), read_file("source", "hub"), 0)
