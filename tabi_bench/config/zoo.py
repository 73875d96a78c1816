"""Schema of conf/zoo: the ladder of models that can answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabi_bench.config.fields import ConfigError, number, share, text

if TYPE_CHECKING:
    from tabi_bench.config.session import Config


@dataclass
class FineTuneConfig:
    """Fine-tuning: one loop for every zoo (tabi_bench/zoo/training.py)."""

    epochs: float = field(metadata=number(above=0))
    max_steps: int | None = field(metadata=number(least=1))
    batch_size: int = field(metadata=number(least=1))
    learning_rate: float = field(metadata=number(above=0))
    weight_decay: float = field(metadata=number(least=0))
    warmup_share: float = field(metadata=share(zero=True, one=True))
    average: float = field(
        metadata=share(zero=True)
    )  # decay per step of the moving average of the weights that is kept; 0: none
    word_dropout: float = field(
        metadata=share(zero=True)
    )  # share of words dropped from a training text, drawn per text from 0..2x this
    patience: int = field(
        metadata=number(least=0)
    )  # evaluations without improvement on a slice of train; 0: no early stop
    evaluations: int = field(metadata=number(least=1))  # on that slice, per training


@dataclass
class TrainConfig(FineTuneConfig):
    """Fine-tuning where a teacher's logits are learnt too."""

    distill: float = field(metadata=share(zero=True, one=True))  # weight of the teacher's soft targets
    distill_temperature: float = field(metadata=number(above=0))


@dataclass
class ZooConfig:
    """Base of every zoo. `code` makes a Zoo of (zoo, task, cache_dir, seed, device)."""

    name: str
    code: str
    max_length: int = field(metadata=number(least=8))
    models: list[str]  # subset by name; empty: the whole ladder

    def check(self, config: Config) -> None:
        """Raises ConfigError for what cannot be used together."""

    def unread(self, config: Config) -> dict[str, str]:
        """Settings that this choice does not read, and why."""
        return {}


@dataclass
class TinyZooConfig(ZooConfig):
    """Thin BERT-shaped models, layers x hidden, trained from scratch (shipped for source=generated)."""

    shapes: list[str] = field(metadata=text(r"[1-9]\d*x[1-9]\d*", "layers x hidden, as 4x48"))  # the smallest first
    intermediate: int = field(metadata=number(least=1))  # width of the feed-forward layers, times the hidden size
    vocabulary: int = field(metadata=number(least=100))  # word pieces at most
    cue_steps: int = field(
        metadata=number(least=0)
    )  # generated rows: first so many steps of naming the phrase that decides
    train: TrainConfig

    def unread(self, config: Config) -> dict[str, str]:
        made = {} if config.source.name == "generated" else {"zoo.cue_steps": "only generated rows name their cues"}
        return made if len(self.shapes) > 1 else made | dict.fromkeys(TEACHING, "zoo.shapes names one model alone")


TEACHING = ("zoo.train.distill", "zoo.train.distill_temperature")


@dataclass
class MinilmZooConfig(ZooConfig):
    """The pre-trained MiniLM-L6 encoder cut to its first layers and fine-tuned."""

    path: str | None
    layers: list[int] = field(metadata=number(least=0))
    distill: bool  # the smaller models also learn from the largest one's logits, with weight train.distill
    student_rate: float = field(metadata=number(above=0))  # times train.learning_rate for the smaller models
    layerless_rate: float = field(
        metadata=number(above=0)
    )  # learning rate of the model without layers, beneath a larger one
    via_mnli: list[str]  # tasks whose models start from mnli's with as many layers
    train: TrainConfig
    tasks: dict[str, Any]  # what differs from `train`, by task

    def unread(self, config: Config) -> dict[str, str]:
        found = {} if 0 in self.layers else {"zoo.layerless_rate": "zoo.layers has no 0, the model without layers"}
        if not self.distill:
            found |= dict.fromkeys(TEACHING, "zoo.distill=false")
        if len(set(self.layers)) == 1:
            found |= dict.fromkeys((*TEACHING, "zoo.student_rate", "zoo.distill"), "zoo.layers names one model alone")
        return found


@dataclass
class PaperZooConfig(ZooConfig):
    """The paper's twelve models (tabi_bench/zoo/paper.py)."""

    cells: dict[str, Any]  # cells[model][task]: id, revision, at_least, reported
    backbones: dict[str, Any]  # by model: id, revision, via_mnli
    train: FineTuneConfig
    recipes: dict[str, Any]  # what differs from `train`, by model
    tasks: dict[str, Any]  # and by task
    random_weights: bool  # the shapes alone: latency without accuracy

    def unread(self, config: Config) -> dict[str, str]:
        if not self.random_weights:
            return {}
        names = ("cells", "backbones", "recipes", "tasks", *(f"train.{key}" for key in vars(self.train)))
        return {f"zoo.{name}": "zoo.random_weights=true draws the weights" for name in names}


@dataclass
class CustomZooConfig(ZooConfig):
    """Your own fine-tuned models: local folders or hub ids, in any order."""

    paths: list[str]

    def check(self, config: Config) -> None:
        if not self.paths:
            raise ConfigError("zoo=custom needs zoo.paths=[DIR_OR_HUB_ID,...], models fine-tuned on the task")
