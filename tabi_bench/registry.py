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


METHOD = "tabi_bench.config.method"
CASCADE = "tabi_bench.planning.tabi:Tabi"
TABLE: dict[str, dict[str, Row]] = {
    "source": {
        "generated": Row("tabi_bench.config.source:GeneratedConfig", "tabi_bench.tasks.generated:load"),
        "local": Row("tabi_bench.config.source:LocalConfig", "tabi_bench.tasks.local:load"),
        "hub": Row("tabi_bench.config.source:HubSourceConfig", "tabi_bench.tasks.hub:load"),
    },
    "zoo": {
        "tiny": Row("tabi_bench.config.zoo:TinyZooConfig", "tabi_bench.zoo.tiny:load"),
        "encoders": Row("tabi_bench.config.zoo:EncodersZooConfig", "tabi_bench.zoo.ladder:load"),
        "minilm": Row("tabi_bench.config.zoo:EncodersZooConfig", "tabi_bench.zoo.ladder:load"),
        "paper": Row("tabi_bench.config.zoo:PaperZooConfig", "tabi_bench.zoo.paper:load"),
        "custom": Row("tabi_bench.config.zoo:CustomZooConfig", "tabi_bench.zoo.custom:load"),
    },
    "method": {
        "tabi": Row(f"{METHOD}:CascadeConfig", CASCADE),
        "tabi3": Row(f"{METHOD}:CascadeConfig", CASCADE),
        "infaas": Row(f"{METHOD}:InfaasConfig", "baselines.infaas:Infaas"),
        "cocktail": Row(f"{METHOD}:CocktailConfig", "baselines.cocktail:Cocktail"),
        "deebert": Row(f"{METHOD}:DeebertConfig", "baselines.deebert:Deebert"),
        "single": Row(f"{METHOD}:SingleConfig", "baselines.infaas:Single"),
        "random": Row(f"{METHOD}:ControlConfig", "baselines.controls:RandomRouting"),
        "oracle": Row(f"{METHOD}:OracleConfig", "baselines.controls:Oracle"),
        "pruning_scales": Row(f"{METHOD}:PruningConfig", "baselines.pruning:PruningScales"),
    },
    "engine": {
        "eager": Row("tabi_bench.config.engine:EagerConfig", "tabi_bench.engines.eager:EagerEngine"),
        "graph": Row("tabi_bench.config.engine:GraphConfig", "tabi_bench.engines.graph:GraphEngine"),
        "fused": Row("tabi_bench.config.engine:FusedConfig", "tabi_bench.engines.fused:FusedEngine"),
        "compile": Row("tabi_bench.config.engine:CompileConfig", "tabi_bench.engines.compiled:CompileEngine"),
        "onnx": Row("tabi_bench.config.engine:OnnxConfig", "tabi_bench.engines.onnx:OnnxEngine"),
    },
    "scenario": {
        "single_stream": Row(
            "tabi_bench.config.scenario:SingleStreamConfig", "tabi_bench.serving.single_stream:SingleStream"
        ),
        "offline": Row("tabi_bench.config.scenario:OfflineConfig", "tabi_bench.serving.offline:Offline"),
        "server": Row("tabi_bench.config.scenario:ServerConfig", "tabi_bench.serving.server:OpenLoop"),
    },
}
BASES = {  # of the schemas that a user's own choices name
    "source": "tabi_bench.config.source:SourceConfig",
    "zoo": "tabi_bench.config.zoo:ZooConfig",
    "method": f"{METHOD}:MethodConfig",
    "engine": "tabi_bench.config.engine:EngineConfig",
    "scenario": "tabi_bench.config.scenario:ScenarioConfig",
}
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
