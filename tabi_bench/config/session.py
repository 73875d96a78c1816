"""Schema of conf/config.yaml: one session."""

from __future__ import annotations

from dataclasses import dataclass, field

from tabi_bench.config.engine import EngineConfig
from tabi_bench.config.fields import among, number, share, text
from tabi_bench.config.method import MethodConfig
from tabi_bench.config.scenario import ScenarioConfig
from tabi_bench.config.source import SourceConfig
from tabi_bench.config.task import TaskConfig
from tabi_bench.config.zoo import ZooConfig


@dataclass
class TargetConfig:
    """The score that a plan must reach. relative: best single model on tune minus slack."""

    kind: str | None = field(metadata=among("relative", "paper", "absolute"))  # None: by the zoo
    value: float | None = field(metadata=share("a fraction in (0, 1], as 0.9 for 90 %", one=True))  # if absolute
    slack: float | None = field(metadata=number(least=0, most=1))  # relative: default is the task's own


@dataclass
class SearchConfig:
    """How plans are searched."""

    # standard errors by which the target must be met on tune
    margin_se: float = field(metadata=number(least=0, most=100))
    verify: bool  # also search exhaustively and report the regret


@dataclass
class CertifyConfig:
    """Of what the large model answers right, at most a share epsilon is spoilt, with probability 1 - delta."""

    epsilon: float | None = field(metadata=share())  # None: no certificate, and no rows set apart for it
    delta: float = field(metadata=share())


@dataclass
class CostConfig:
    """What the device costs."""

    usd_per_hour: float = field(metadata=number(least=0, most=1e6))


@dataclass
class Config:
    """One session. `systems`: the options of each system in serving order, the reference's first."""

    task: TaskConfig
    source: SourceConfig
    zoo: ZooConfig
    method: MethodConfig  # the one of `method=NAME`; where it is compared, the same as systems[NAME]
    engine: EngineConfig
    scenario: ScenarioConfig
    compare: list[str]  # names of the systems
    systems: dict[str, MethodConfig]
    target: TargetConfig
    search: SearchConfig
    certify: CertifyConfig
    cost: CostConfig
    seed: int = field(metadata=number(least=0, most=2**32 - 1))
    plan: str | None  # a saved plan.json for `method`
    results_dir: str
    cache_dir: str
    overwrite: bool
    prepare: bool
    derive: str | None  # a derived preset: what to draw from the records and profiles of results_dir
    label: str = field(metadata=text(r"\w[\w.-]*(/\w[\w.-]*)*", "a folder below results_dir"))  # of the records
