"""Who can answer: the ladder of models."""

from __future__ import annotations

from pathlib import Path

from tabi_bench import registry
from tabi_bench.config import ZooConfig
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import ModelSpec, Zoo

__all__ = ["ModelSpec", "Zoo", "load_zoo"]


def load_zoo(config: ZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The zoo's models for `task`, trained or fetched at first use; `config.models` keeps a subset by name."""
    zoo = registry.load(config.code)(config, task, cache_dir, seed, device)
    unknown = set(config.models) - set(zoo.names)
    if unknown:
        raise ValueError(f"zoo.models names {sorted(unknown)}; zoo {zoo.name!r} has: {', '.join(zoo.names)}")
    if not config.models:
        return zoo
    return Zoo(zoo.name, tuple(m for m in zoo.models if m.name in config.models), zoo.train_s, zoo.notes)
