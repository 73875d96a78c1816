"""Schema of conf/method: the systems of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tabi_bench.config.fields import Choice, ConfigError, among, number, share

if TYPE_CHECKING:
    from tabi_bench.config.session import Config


@dataclass
class MethodConfig(Choice):
    """Base of every method, and the options of one without knobs. `code` is its System."""

    read_when_served: ClassVar[tuple[str, ...]] = ()  # settings that a saved plan does not hold

    @property
    def importance_options(self) -> tuple[str, ...]:
        """Which kinds of importance its systems may read."""
        return ()


@dataclass
class CascadeConfig(MethodConfig):
    """Models asked one after the other until one is sure."""

    levels: int = field(metadata=among(1, 2, 3))
    fewer_levels: bool  # also search plans of fewer levels, down to one model alone
    calibrate: bool
    confidence: str = field(metadata=among("max", "margin", "entropy"))
    dispatcher: str = field(metadata=among("threshold", "sigmoid"))
    sigmoid_k: float = field(metadata=number(above=0))
    alphas: list[float] = field(metadata=number(least=0))
    importance: str = field(metadata=among("last", "mean"))  # over layers
    pruning: str = field(metadata=among("importance", "random", "stopwords"))  # the last two: controls, as many words
    ensembles: list[str] = field(metadata=among("weighted", "large", "log_odds", "tuned"))  # searched

    def check(self, config: Config, path: str) -> None:
        for key, values in (("alphas", self.alphas), ("ensembles", self.ensembles)):
            if not values:
                raise ConfigError(f"{path}.{key}=[]: name at least one, they are what is searched")

    def unread(self, config: Config) -> dict[str, str]:
        unread = {}
        if self.dispatcher != "sigmoid":
            unread["sigmoid_k"] = f"dispatcher={self.dispatcher} has no slope"
        if not any(self.alphas):
            unread |= dict.fromkeys(("importance", "pruning"), "alphas=[0.0] prunes nothing")
        if config.task.is_regression:
            unread |= dict.fromkeys(("calibrate", "confidence"), f"{config.task.metric} is a score, without classes")
        if self.levels == 1:
            names = ("calibrate", "confidence", "dispatcher", "alphas", "ensembles", "fewer_levels")
            unread |= dict.fromkeys(names, "levels=1 asks one model alone")
        return unread

    @property
    def importance_options(self) -> tuple[str, ...]:
        return (self.importance,) if any(self.alphas) else ()


@dataclass
class SingleConfig(MethodConfig):
    """One model of the zoo."""

    model: str  # by name or by position (0: the smallest, -1: the largest)


@dataclass
class InfaasConfig(MethodConfig):
    """The fastest single model that meets the target."""

    slo_ms: float | None = field(metadata=number(above=0))


@dataclass
class CocktailConfig(MethodConfig):
    """A weighted majority of several models."""

    read_when_served = ("latency",)
    slo_ms: float | None = field(metadata=number(above=0))  # None: the slowest model's profiled mean
    smoothed: bool
    latency: str = field(metadata=among("auto", "serial", "concurrent"))  # how members run

    def unread(self, config: Config) -> dict[str, str]:
        return {"smoothed": "scores are averaged, not voted on"} if config.task.is_regression else {}


@dataclass
class RampConfig:
    """Stage two of early exit's training: the off-ramps, on the frozen model's hidden states."""

    rows: int = field(metadata=number(least=1))  # of train at most, drawn by the seed
    epochs: float = field(metadata=number(above=0))
    batch_size: int = field(metadata=number(least=1))
    learning_rate: float = field(metadata=number(above=0))
    weight_decay: float = field(metadata=number(least=0))
    dropout: float = field(metadata=share(zero=True))  # on what a ramp reads


@dataclass
class DeebertConfig(MethodConfig):
    """Early exit from one model at the first active off-ramp whose entropy is below a threshold."""

    max_ramps: int = field(metadata=number(least=1))  # active ramps at most
    thresholds: int = field(metadata=number(least=1))  # tried per set of ramps: evenly spaced entropies seen on tune
    train: RampConfig


@dataclass
class ControlConfig(MethodConfig):
    """A system that stands on the plan of a cascade."""

    stands_on: str  # the method whose options `cascade` holds: those of systems.<stands_on>
    cascade: CascadeConfig = field(metadata={"elsewhere": True})

    @property
    def importance_options(self) -> tuple[str, ...]:
        return self.cascade.importance_options


@dataclass
class OracleConfig(ControlConfig):
    """Routes between two models."""

    def check(self, config: Config, path: str) -> None:
        if self.cascade.levels > 2:
            levels = f"systems.{self.stands_on}.levels={self.cascade.levels}"
            raise ConfigError(f"{levels}: {self.name} routes between two models; set 2")


@dataclass
class PruningConfig(CascadeConfig):
    """One pair at fixed thresholds, on full text and on text pruned by each of `alphas`."""

    controls: list[str] = field(metadata=among("importance", "random", "stopwords"))

    def check(self, config: Config, path: str) -> None:
        super().check(config, path)
        if not any(self.alphas) or not self.controls:
            raise ConfigError(f"{path}: alphas above 0 and controls, at least one of each, stand beside full text")

    def unread(self, config: Config) -> dict[str, str]:
        fixed = dict.fromkeys(("levels", "fewer_levels"), "two levels are compared on several texts")
        return super().unread(config) | fixed | {"pruning": "controls names what goes"}
