"""Who can answer: the ladder of models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tabi_bench import registry
from tabi_bench.config import ZooConfig
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import ModelSpec, Zoo

__all__ = ["ModelSpec", "Zoo", "load_zoo"]


def load_zoo(config: ZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The zoo's models for `task`, trained or fetched at first use; `config.models` keeps a subset by name."""
    zoo = registry.load(config.code)(config, task, cache_dir, seed, device)
    config.check_names(zoo.names)
    return replace(zoo, models=tuple(model for model in zoo.models if config.wants(model.name)))
