"""Schema of the configuration: dataclasses behind every file of `conf/`. Checks only, no side effects, no torch.

`register()` hands the dataclasses to Hydra; `from_dict_config` turns the composed config into one `Config`, once, at
the door. Each group has a base class and, where a member has its own options, a class of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# --- task -------------------------------------------------------------------------------------------------------------


@dataclass
class HubConfig:
    """Where the Hugging Face hub keeps a task."""

    path: str | None = None
    name: str | None = None  # the data set's configuration
    revision: str | None = None  # a pinned commit
    label: str | None = None  # label column there (and in local copies), if it differs


@dataclass
class FilesConfig:
    """Paths of one's own data."""

    train: str | None = None
    validation: str | None = None


@dataclass
class TaskConfig:
    """A task: its columns, labels, metric, the slack of its target, and where it lies."""

    name: str = MISSING
    family: str = MISSING  # generator family: sentence | pair | intent
    texts: list[str] = MISSING  # one or two text columns
    label: str = "label"
    labels: list[str] = field(
        default_factory=list
    )  # names in order; empty: a score, or for other metrics those of train
    metric: str = "accuracy"  # accuracy | matthews | pearson
    also: list[str] = field(default_factory=list)  # reported beside: f1, spearman
    slack: float = 0.01  # of the relative target: the paper's INFaaS score minus its target
    paper_target: float | None = None
    hard_share: float = 0.4  # generated: share of queries that need structure
    split: str = "validation"
    train_split: str = "train"
    official_rows: dict[str, int] = field(default_factory=dict)  # of the splits, as published
    hub: HubConfig = field(default_factory=HubConfig)
    files: FilesConfig = field(default_factory=FilesConfig)  # your own, instead of a folder per task


# --- source -----------------------------------------------------------------------------------------------------------


@dataclass
class SourceConfig:
    """generated | local | hub."""

    name: str = MISSING
    dir: str | None = None  # local: one folder per task
    train_rows: int | None = None  # generated: rows of train; others: at most so many (None: all)
    validation_rows: int | None = None


# --- zoo --------------------------------------------------------------------------------------------------------------


@dataclass
class TrainConfig:
    """Fine-tuning: one loop for every zoo (tabi_bench/zoo/training.py)."""

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    average: float = 0.0  # decay per step of the moving average of the weights that is scored and kept; 0: no average
    word_dropout: float = 0.0  # share of words dropped from a training text, drawn per text from 0..2x this
    distill: float = 0.0  # weight of the teacher's soft targets, 0..1
    distill_temperature: float = 2.0
    patience: int = 3  # evaluations without improvement on the early-stop slice of train; 0: no early stop
    evaluations: int = 10  # on that slice, per training


@dataclass
class ZooConfig:
    """tiny | minilm | paper | custom."""

    name: str = MISSING
    path: str | None = None
    max_length: int = 128
    models: list[str] = field(default_factory=list)  # subset by name; empty: the whole ladder
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class TinyZooConfig(ZooConfig):
    """Thin BERT-shaped models, layers x hidden, trained from scratch (shipped for source=generated)."""

    shapes: list[str] = field(default_factory=list)  # "1x64", "4x64", ..., the smallest first
    intermediate: int = 2  # width of the feed-forward layers, times the hidden size
    vocabulary: int = 8000  # word pieces at most
    cue_steps: int = 0  # generated rows: first so many steps of naming the phrase that decides, on hard rows


@dataclass
class TransferConfig:
    """A transfer set: queries without labels that the largest model answers and the smaller ones learn from."""

    tasks: list[str] = field(default_factory=list)  # the texts of these tasks' train splits
    made: int = 0  # so many queries made from each row of two texts (tabi_bench/zoo/transfer.py)
    epochs: float | None = None  # in place of train.epochs, as the rows are more; null: as many


@dataclass
class MinilmZooConfig(ZooConfig):
    """The pre-trained MiniLM-L6 encoder cut to its first layers and fine-tuned."""

    layers: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4, 6])
    distill: bool = True  # the smaller models also learn from the largest one's logits, with weight train.distill
    student_rate: float = 1.0  # times train.learning_rate for the smaller models
    layerless_rate: float = 7e-4  # learning rate of the model without layers, beneath a larger one
    via_mnli: list[str] = field(default_factory=list)  # tasks whose models start from mnli's with as many layers
    transfer: bool = False  # the smaller models also learn from the largest one's answers to `transfers`
    transfers: dict[str, Any] = field(default_factory=dict)  # the transfer set, by task: fields of TransferConfig
    tasks: dict[str, Any] = field(default_factory=dict)  # what differs from `train`, by task


@dataclass
class PaperZooConfig(ZooConfig):
    """The paper's twelve models (tabi_bench/zoo/paper.py)."""

    cells: dict[str, Any] = field(default_factory=dict)  # cells[model][task]: id, revision, at_least, reported
    backbones: dict[str, Any] = field(default_factory=dict)  # by model: id, revision, via_mnli
    recipes: dict[str, Any] = field(default_factory=dict)  # what differs from `train`, by model
    tasks: dict[str, Any] = field(default_factory=dict)  # and by task
    random_weights: bool = False  # the shapes alone: latency without accuracy


@dataclass
class CustomZooConfig(ZooConfig):
    """Your own fine-tuned models: local folders or hub ids, in any order."""

    paths: list[str] = field(default_factory=list)


# --- engine, scenario -------------------------------------------------------------------------------------------------


@dataclass
class EngineConfig:
    """eager | graph | fused | compile | onnx."""

    name: str = MISSING
    device: str = "auto"  # auto: cuda:0 where there is one, else cpu
    dtype: str = "auto"  # auto: float16 on a GPU, float32 on a CPU
    threads: int | None = None  # CPU threads of one forward pass; None: torch's own choice
    buckets: list[int] = field(default_factory=lambda: [8, 12, 16, 24, 32, 48, 64, 96, 128])
    fuse_qkv: bool = True
    quantize: bool = False  # onnx: dynamic int8
    autotune: bool = False  # compile: also time Triton's matrix products, a minute more; what wins is partly luck
    cache_dir: str = "~/.cache/tabi-bench"  # onnx: where exported models are kept


@dataclass
class ScenarioConfig:
    """How queries arrive. single_stream: one at a time, the next when the last is answered."""

    name: str = "single_stream"
    min_queries: int = 1000
    block: int = 50  # queries that one system serves before the next system's turn
    warmup: int = 30  # queries per system before the clock counts
    profile_rounds: int = 5  # times that every model is profiled at every length, before planning


# --- method -----------------------------------------------------------------------------------------------------------


@dataclass
class MethodConfig:
    """Base of every method; `name` is its key in the registry."""

    name: str = MISSING


@dataclass
class CascadeConfig(MethodConfig):
    """Tabi and its variants."""

    levels: int = 2
    fewer_levels: bool = True  # also search plans of fewer levels, down to one model alone
    calibrate: bool = True
    confidence: str = "max"  # max | margin | entropy
    dispatcher: str = "threshold"  # threshold | sigmoid
    sigmoid_k: float = 20.0
    alphas: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    importance: str = "last"  # last | mean (over layers)
    pruning: str = "importance"  # importance | random | stopwords (controls at the same share of words)
    ensembles: list[str] = field(
        default_factory=lambda: ["weighted", "large"]
    )  # searched: weighted | large | log_odds | tuned


@dataclass
class SingleConfig(MethodConfig):
    """One model of the zoo, by name or by position (0: the smallest, -1: the largest)."""

    model: str = "-1"


@dataclass
class InfaasConfig(MethodConfig):
    slo_ms: float | None = None


@dataclass
class CocktailConfig(MethodConfig):
    slo_ms: float | None = None  # default: the slowest model's profiled mean
    smoothed: bool = True
    latency: str = "auto"  # how members run: serial | concurrent | auto


@dataclass
class RampConfig:
    """Stage two of DeeBERT's training: the off-ramps, on the frozen model's hidden states."""

    rows: int = 20000  # of train at most, drawn by the seed
    epochs: float = 5.0
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.1  # on what a ramp reads


@dataclass
class DeebertConfig(MethodConfig):
    """Early exit from one model at the first active off-ramp whose entropy is below a threshold."""

    max_ramps: int = 3  # active ramps at most
    thresholds: int = 40  # entropies tried per set of ramps, evenly spaced among those seen on tune
    train: RampConfig = field(default_factory=RampConfig)


@dataclass
class ControlConfig(MethodConfig):
    """random, oracle: built on the plan of `tabi`."""

    tabi: CascadeConfig = field(default_factory=lambda: CascadeConfig(name="tabi"))


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass
class TargetConfig:
    kind: str | None = None  # relative (best single model on tune minus slack) | paper | absolute; None: by the zoo
    value: float | None = None  # absolute: the score
    slack: float | None = None  # relative: default is the task's own


@dataclass
class SearchConfig:
    margin_se: float = 0.5  # standard errors by which the target must be met on tune
    verify: bool = False  # also search exhaustively and report the regret
    race_s: float = 0.5  # seconds, per half and system, in which plans predicted to be about as fast serve tune rows


@dataclass
class CertifyConfig:
    """Of what the large model answers right, at most a share epsilon is spoilt, with probability 1 - delta."""

    epsilon: float | None = None  # None: no certificate, and no rows set apart for it
    delta: float = 0.05


@dataclass
class CostConfig:
    usd_per_hour: float = 2.5  # of the device; a round figure for a rented accelerator, yours to set


@dataclass
class Config:
    task: TaskConfig = MISSING
    source: SourceConfig = MISSING
    zoo: ZooConfig = MISSING
    method: MethodConfig = MISSING
    engine: EngineConfig = MISSING
    scenario: ScenarioConfig = MISSING
    compare: list[str] | None = None  # systems of the session; default [infaas, method]
    target: TargetConfig = field(default_factory=TargetConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    certify: CertifyConfig = field(default_factory=CertifyConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    seed: int = 0
    plan: str | None = None  # a saved plan.json for `method`
    results_dir: str = "outputs"
    cache_dir: str = "~/.cache/tabi-bench"
    overwrite: bool = False
    prepare: bool = False
    derive: str | None = None  # a derived preset: what to draw from the records and profiles of results_dir
    label: str = "adhoc"  # folder of the records: the experiment's name


# --- Hydra ------------------------------------------------------------------------------------------------------------

METHODS: dict[str, type[MethodConfig]] = {
    "tabi": CascadeConfig,
    "tabi3": CascadeConfig,
    "infaas": InfaasConfig,
    "single": SingleConfig,
    "cocktail": CocktailConfig,
    "deebert": DeebertConfig,
    "random": ControlConfig,
    "oracle": ControlConfig,
}
BASES: dict[str, dict[str, type]] = {
    "task": {"base": TaskConfig},
    "source": {"base": SourceConfig},
    "zoo": {"tiny": TinyZooConfig, "minilm": MinilmZooConfig, "paper": PaperZooConfig, "custom": CustomZooConfig},
    "method": {
        "cascade": CascadeConfig,
        "infaas": InfaasConfig,
        "single": SingleConfig,
        "cocktail": CocktailConfig,
        "deebert": DeebertConfig,
        "control": ControlConfig,
    },
    "engine": {"base": EngineConfig},
    "scenario": {"base": ScenarioConfig},
}
CHOICES = {  # one of these, or, of a list, only these
    "target.kind": ("relative", "paper", "absolute"),
    "method.confidence": ("max", "margin", "entropy"),
    "method.dispatcher": ("threshold", "sigmoid"),
    "method.importance": ("last", "mean"),
    "method.pruning": ("importance", "random", "stopwords"),
    "method.ensembles": ("weighted", "large", "log_odds", "tuned"),
    "method.levels": (1, 2, 3),
    "method.latency": ("auto", "serial", "concurrent"),
    "engine.dtype": ("auto", "float32", "float16", "bfloat16"),
}
AT_LEAST = {  # of a list: each of its numbers
    "source.train_rows": 1,
    "source.validation_rows": 4,  # two for each fold
    "scenario.min_queries": 1,
    "scenario.block": 1,
    "scenario.warmup": 0,
    "scenario.profile_rounds": 1,
    "search.margin_se": 0,
    "search.race_s": 0,
    "target.slack": 0,
    "cost.usd_per_hour": 0,
    "engine.threads": 1,
    "engine.buckets": 1,
    "zoo.max_length": 8,
    "method.alphas": 0,
    "method.slo_ms": 0,
    "method.max_ramps": 1,
    "method.thresholds": 1,
}


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the setting, what it was, and what it may be."""


def conf_dir() -> Path:
    """The folder `conf`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def register() -> None:
    """Stores the dataclasses with Hydra: `schema`, and `schema_<base>` in each group."""
    ConfigStore.__deepcopy__ = lambda store, _memo: store  # Hydra copies it with each file it reads, and only reads it
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, bases in BASES.items():
        for name, node in bases.items():
            store.store(group=group, name=f"schema_{name}", node=node)


def read_file(group: str, name: str, schema: type, overrides: Sequence[str] = ()) -> Any:
    """One file of `conf/` as its dataclass, without composing the rest; `overrides` are "key=value" within it."""
    file = conf_dir() / group / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml"))
        raise ConfigError(f"unknown {group} {name!r}; there are: {', '.join(known)}")
    raw = OmegaConf.load(file)
    raw.pop("defaults", None)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), raw, OmegaConf.from_dotlist(list(overrides)))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{group} {name}: {str(error).splitlines()[0]}") from error


def method_options(name: str) -> MethodConfig:
    """The options of a method as its YAML file gives them, for the systems of a session beside the chosen one."""
    if name not in METHODS:
        raise ConfigError(f"compare names an unknown method {name!r}; there are: {', '.join(METHODS)}")
    return read_file("method", name, METHODS[name])


def from_dict_config(raw: DictConfig) -> Config:
    """The composed configuration as one `Config`, checked. Raises ConfigError."""
    config: Config = OmegaConf.to_object(raw)
    if config.target.kind is None:
        config.target.kind = _target_kind(config)
    _check(config)
    return config


def _target_kind(config: Config) -> str:
    """The paper's own targets for the paper's models, where it has one; else relative to this ladder."""
    papers = config.zoo.name == "paper" and not config.zoo.random_weights and config.task.paper_target is not None
    return "paper" if papers and config.target.slack is None else "relative"


def systems_of(config: Config) -> dict[str, MethodConfig]:
    """The systems of the session in serving order, each with its options; the reference comes first.

    The controls stand on the very Tabi that runs beside them.
    """
    names = config.compare or ["infaas", config.method.name]
    names = list(dict.fromkeys(names))
    found = {name: config.method if name == config.method.name else method_options(name) for name in names}
    tabi = config.method.tabi if isinstance(config.method, ControlConfig) else found.get("tabi")
    if tabi is None:
        return found
    controls = {
        name: replace(options, tabi=tabi) for name, options in found.items() if isinstance(options, ControlConfig)
    }
    return {name: tabi if name == "tabi" else controls.get(name, options) for name, options in found.items()}


def _check(config: Config) -> None:
    _refuse_unknown(config)
    _check_target(config)
    for path, choices in CHOICES.items():
        for value in _values(config, path):
            if value not in choices:
                raise ConfigError(f"{path}={value!r}: choose one of {', '.join(map(str, choices))}")
    for path, least in AT_LEAST.items():
        for value in _values(config, path):
            if not value >= least:
                raise ConfigError(f"{path}={value}: at least {least}")
    for key in ("epsilon", "delta"):
        value = getattr(config.certify, key)
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"certify.{key}={value}: a share between 0 and 1, as 0.01 for 1 %")
    for key in ("alphas", "ensembles"):
        if getattr(_cascade(config), key, None) == []:
            raise ConfigError(f"method.{key}=[]: name at least one, they are what is searched")
    if getattr(_cascade(config), "sigmoid_k", 1.0) <= 0:
        raise ConfigError(f"method.sigmoid_k={_cascade(config).sigmoid_k}: above 0")
    if config.source.name == "local" and not config.source.dir and not config.task.files.train:
        raise ConfigError("source=local needs source.dir, a folder with one folder per task (or task.files)")
    known = config.task.official_rows
    if known and config.source.name == "generated" and config.task.split not in known:
        raise ConfigError(f"task.split={config.task.split!r}: task {config.task.name} has {', '.join(known)}")
    if config.method.name == "oracle" and config.method.tabi.levels > 2:
        raise ConfigError(
            f"method.tabi.levels={config.method.tabi.levels}: the oracle routes between two models; set 2"
        )
    if Path(config.label).is_absolute() or ".." in Path(config.label).parts or not config.label:
        raise ConfigError(f"label={config.label!r}: a folder below results_dir")
    for name in config.compare or []:
        if name not in METHODS:
            raise ConfigError(f"compare names an unknown method {name!r}; there are: {', '.join(METHODS)}")
    _check_plan(config)


def _refuse_unknown(node: Any, path: str = "") -> None:
    """`+key=value` gets past Hydra's own check: it appends, and a typo would be without effect."""
    names = [f.name for f in fields(node)]
    for key, value in vars(node).items():
        if key not in names:
            raise ConfigError(f"unknown setting {path}{key}; {path.rstrip('.') or 'there'} has: {', '.join(names)}")
        if is_dataclass(value):
            _refuse_unknown(value, f"{path}{key}.")


def _cascade(config: Config) -> MethodConfig:
    """The options of the method, of a control those of its Tabi."""
    return getattr(config.method, "tabi", config.method)


def _values(config: Config, path: str) -> list[Any]:
    """What a setting is, or its members if it is a list; nothing where it is null or the choice does not have it."""
    group, key = path.split(".")
    value = getattr(_cascade(config) if group == "method" else getattr(config, group), key, None)
    return value if isinstance(value, list) else [] if value is None else [value]


def _check_target(config: Config) -> None:
    if config.target.kind == "absolute" and config.target.value is None:
        raise ConfigError("target.kind=absolute needs target.value, the score to reach as a fraction (e.g. 0.9)")
    if config.target.kind == "paper" and config.task.paper_target is None:
        raise ConfigError(f"target.kind=paper: the paper has no target for task {config.task.name!r}")
    if config.target.value is not None and not 0 < config.target.value <= 1:
        raise ConfigError(f"target.value={config.target.value}: a fraction in (0, 1], as 0.9 for 90 %")
    for key, kind in (("value", "absolute"), ("slack", "relative")):
        value = getattr(config.target, key)
        if value is not None and config.target.kind != kind:
            raise ConfigError(f"target.{key}={value} is for target.kind={kind}, but target.kind={config.target.kind}")


def _check_plan(config: Config) -> None:
    """A plan is for `method`, and is there before any work is done."""
    if config.plan is None:
        return
    if config.compare and config.method.name not in config.compare:
        raise ConfigError(f"plan is for method={config.method.name}, which compare={config.compare} leaves out")
    if not Path(config.plan).expanduser().is_file():
        raise ConfigError(f"plan={config.plan}: no such file; it is the plan.json beside a record")
