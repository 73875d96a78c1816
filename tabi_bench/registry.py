"""Names to code. Strings, so that nothing is imported before it is asked for and `baselines` may import us."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabi_bench.system import System

SYSTEMS = {
    "tabi": "tabi_bench.cascade.system:Cascade",
    "tabi3": "tabi_bench.cascade.system:Cascade",
    "single": "baselines.infaas:Single",
    "infaas": "baselines.infaas:Infaas",
    "cocktail": "baselines.cocktail:Cocktail",
    "deebert": "baselines.deebert:Deebert",
    "random": "baselines.controls:RandomRouting",
    "oracle": "baselines.controls:Oracle",
    "reference_again": "baselines.controls:ReferenceAgain",
}
SOURCES = {
    "generated": "tabi_bench.tasks.generated:load",
    "local": "tabi_bench.tasks.local:load",
    "hub": "tabi_bench.tasks.hub:load",
}
ZOOS = {
    "tiny": "tabi_bench.zoo.tiny:load",
    "minilm": "tabi_bench.zoo.minilm:load",
    "paper": "tabi_bench.zoo.paper:load",
    "custom": "tabi_bench.zoo.custom:load",
}
ENGINES = {
    "eager": "tabi_bench.engines.eager:EagerEngine",
    "graph": "tabi_bench.engines.graph:GraphEngine",
    "compile": "tabi_bench.engines.compiled:CompileEngine",
    "fused": "tabi_bench.engines.fused:FusedEngine",
    "onnx": "tabi_bench.engines.onnx:OnnxEngine",
}


def lookup(table: dict[str, str], name: str, what: str) -> Any:
    """The object registered as `name`; an unknown name is a ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are: {', '.join(table)}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)


def system_classes(names: Iterable[str]) -> dict[str, type[System]]:
    """The classes of a session's methods, in order; the first is the reference that the others may stand beside."""
    classes = {name: lookup(SYSTEMS, name, "method") for name in names}
    reference = next(iter(classes.values()))
    return {name: system.beside(reference) for name, system in classes.items()}
