"""The one table that joins names to code: of each choice, the schema of its settings and what it runs.

Strings, so that nothing is imported before it is asked for and `baselines` may import us. A YAML file in a folder of
one's own names both itself: `code: module:attribute`, and, if it has settings of its own, `schema: module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tabi_bench.config import MethodConfig
    from tabi_bench.system import System


class Row(NamedTuple):
    """`schema`: dataclass of the settings; `code`: what runs. Both as module:attribute."""

    schema: str
    code: str


CONFIG = "tabi_bench.config"
CASCADE = "tabi_bench.planning.tabi:Tabi"
TABLE: dict[str, dict[str, Row]] = {
    "source": {
        "generated": Row(f"{CONFIG}.source:GeneratedConfig", "tabi_bench.tasks.generated:load"),
        "local": Row(f"{CONFIG}.source:LocalConfig", "tabi_bench.tasks.local:load"),
        "hub": Row(f"{CONFIG}.source:HubSourceConfig", "tabi_bench.tasks.hub:load"),
    },
    "zoo": {
        "tiny": Row(f"{CONFIG}.zoo:TinyZooConfig", "tabi_bench.zoo.tiny:load"),
        "encoders": Row(f"{CONFIG}.zoo:EncodersZooConfig", "tabi_bench.zoo.ladder:load"),
        "minilm": Row(f"{CONFIG}.zoo:EncodersZooConfig", "tabi_bench.zoo.ladder:load"),
        "paper": Row(f"{CONFIG}.zoo:PaperZooConfig", "tabi_bench.zoo.paper:load"),
        "custom": Row(f"{CONFIG}.zoo:CustomZooConfig", "tabi_bench.zoo.custom:load"),
    },
    "method": {
        "tabi": Row(f"{CONFIG}.method:CascadeConfig", CASCADE),
        "tabi3": Row(f"{CONFIG}.method:CascadeConfig", CASCADE),
        "infaas": Row(f"{CONFIG}.method:InfaasConfig", "baselines.infaas:Infaas"),
        "cocktail": Row(f"{CONFIG}.method:CocktailConfig", "baselines.cocktail:Cocktail"),
        "deebert": Row(f"{CONFIG}.method:DeebertConfig", "baselines.deebert:Deebert"),
        "single": Row(f"{CONFIG}.method:SingleConfig", "baselines.infaas:Single"),
        "random": Row(f"{CONFIG}.method:ControlConfig", "baselines.controls:RandomRouting"),
        "oracle": Row(f"{CONFIG}.method:OracleConfig", "baselines.controls:Oracle"),
        "pruning_scales": Row(f"{CONFIG}.method:PruningConfig", "baselines.pruning:PruningScales"),
    },
    "engine": {
        "eager": Row(f"{CONFIG}.engine:EagerConfig", "tabi_bench.engines.eager:EagerEngine"),
        "graph": Row(f"{CONFIG}.engine:GraphConfig", "tabi_bench.engines.graph:GraphEngine"),
        "fused": Row(f"{CONFIG}.engine:FusedConfig", "tabi_bench.engines.fused:FusedEngine"),
        "compile": Row(f"{CONFIG}.engine:CompileConfig", "tabi_bench.engines.compiled:CompileEngine"),
        "onnx": Row(f"{CONFIG}.engine:OnnxConfig", "tabi_bench.engines.onnx:OnnxEngine"),
    },
    "scenario": {
        "single_stream": Row(f"{CONFIG}.scenario:SingleStreamConfig", "tabi_bench.serving.single_stream:SingleStream"),
        "offline": Row(f"{CONFIG}.scenario:OfflineConfig", "tabi_bench.serving.offline:Offline"),
        "server": Row(f"{CONFIG}.scenario:ServerConfig", "tabi_bench.serving.server:OpenLoop"),
    },
}
# of the schemas that a user's own choices name: SourceConfig, ZooConfig, MethodConfig, EngineConfig, ScenarioConfig
BASES = {group: f"{CONFIG}:{group.capitalize()}Config" for group in TABLE}
REFERENCE_AGAIN = "reference_again"  # in `compare`: the reference a second time, with the reference's own options
INSTALLED = (Path(__file__).parent / "baselines").is_dir()  # from a wheel, where no other `baselines` is in the way
AGAIN = "baselines.controls:ReferenceAgain"


def load(target: str) -> Any:
    """What `module:attribute` names; a ValueError in one sentence where there is no such thing."""
    module, _, attribute = target.partition(":")
    if module.startswith("baselines.") and INSTALLED:
        module = f"tabi_bench.{module}"
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{target!r} names no code ({error}); write module:attribute, both importable") from error


def system_classes(systems: Mapping[str, MethodConfig]) -> dict[str, type[System]]:
    """The classes of a session's methods, in order; the first is the reference that the others may stand beside."""
    classes = {name: load(options.code) for name, options in systems.items()}
    reference = next(iter(classes.values()))
    return {name: system.beside(reference) for name, system in classes.items()}
