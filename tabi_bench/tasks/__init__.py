"""What is asked: tasks, their sources, and the folds of their validation split."""

from __future__ import annotations

from tabi_bench import registry
from tabi_bench.config import SourceConfig, TaskConfig
from tabi_bench.tasks.base import Query, Task
from tabi_bench.tasks.checks import check_config, with_metrics

__all__ = ["Query", "Task", "load_task"]


def load_task(task: TaskConfig, source: SourceConfig, seed: int) -> Task:
    """Loads `task` from `source`; see the source's own module for what it raises."""
    check_config(task)
    return with_metrics(registry.load(source.code)(task, source, seed))
