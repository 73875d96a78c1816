"""How one model runs one query: eager, graph, compile, onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabi_bench import registry

if TYPE_CHECKING:
    from tabi_bench.config import EngineConfig
    from tabi_bench.engines.base import Engine


def make_engine(config: EngineConfig) -> Engine:
    """The engine that `config.name` asks for, on its device; an absent device is a ValueError."""
    return registry.load(config.code)(config)
