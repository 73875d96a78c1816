"""Settings: values in `conf/`, types and bounds here, a module per group. Checks only, no side effects, no torch."""

from tabi_bench.config.compose import (
    GROUPS,
    choices,
    compose_config,
    conf_dir,
    default_cache_dir,
    from_dict_config,
    from_record,
    read_file,
    register,
)
from tabi_bench.config.engine import CompileConfig, EagerConfig, EngineConfig, FusedConfig, GraphConfig, OnnxConfig
from tabi_bench.config.fields import ConfigError
from tabi_bench.config.method import (
    CascadeConfig,
    CocktailConfig,
    ControlConfig,
    DeebertConfig,
    InfaasConfig,
    MethodConfig,
    PruningConfig,
    RampConfig,
    SingleConfig,
)
from tabi_bench.config.scenario import OfflineConfig, ScenarioConfig, ServerConfig, SingleStreamConfig
from tabi_bench.config.session import CertifyConfig, Config, CostConfig, SearchConfig, TargetConfig
from tabi_bench.config.source import GeneratedConfig, HubSourceConfig, LocalConfig, SourceConfig
from tabi_bench.config.task import FilesConfig, HubConfig, TaskConfig
from tabi_bench.config.zoo import (
    CustomZooConfig,
    EncoderConfig,
    EncodersZooConfig,
    FineTuneConfig,
    LadderTrainConfig,
    PaperZooConfig,
    TinyZooConfig,
    TrainConfig,
    ZooConfig,
)
