"""Schema of conf/zoo: the ladder of models that can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabi_bench.config.fields import Choice, ConfigError, number, share, text

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
    average: float = field(metadata=share(zero=True))  # decay per step of a moving average that is kept; 0: none
    word_dropout: float = field(metadata=share(zero=True))  # share of a text's words, drawn per text from 0..2x this
    patience: int = field(metadata=number(least=0))  # evaluations on a slice of train without a gain; 0: no early stop
    evaluations: int = field(metadata=number(least=1))  # on that slice, per training


@dataclass
class TrainConfig(FineTuneConfig):
    """Fine-tuning where a teacher's logits are learnt too."""

    distill: float = field(metadata=share(zero=True, one=True))  # weight of the teacher's soft targets
    distill_temperature: float = field(metadata=number(above=0))


@dataclass
class ZooConfig(Choice):
    """Base of every zoo. `code` makes a Zoo of (zoo, task, cache_dir, seed, device)."""

    max_length: int = field(metadata=number(least=8))
    models: list[str]  # subset by name; empty: the whole ladder

    def wants(self, model: str) -> bool:
        """Whether `models` names it, or nothing: then all are wanted."""
        return not self.models or model in self.models

    def check_names(self, known: Sequence[str]) -> None:
        """Raises ConfigError where `models` names one that is not among those known."""
        if unknown := set(self.models) - set(known):
            raise ConfigError(f"zoo.models names {sorted(unknown)}; zoo {self.name!r} has: {', '.join(known)}")


@dataclass
class TinyZooConfig(ZooConfig):
    """Thin BERT-shaped models, layers x hidden, trained from scratch (shipped for source=generated)."""

    shapes: list[str] = field(metadata=text(r"[1-9]\d*x[1-9]\d*", "layers x hidden, as 4x48"))  # the smallest first
    intermediate: int = field(metadata=number(least=1))  # width of the feed-forward layers, times the hidden size
    vocabulary: int = field(metadata=number(least=100))  # tokens at most
    cue_steps: int = field(metadata=number(least=0))  # generated rows: steps that name the deciding phrase come first
    train: TrainConfig

    def unread(self, config: Config) -> dict[str, str]:
        made = {} if config.source.name == "generated" else {"zoo.cue_steps": "only generated rows name their cues"}
        return made if len(self.shapes) > 1 else made | dict.fromkeys(TEACHING, "zoo.shapes names one model alone")


TEACHING = ("zoo.train.distill", "zoo.train.distill_temperature")


@dataclass
class LadderTrainConfig(TrainConfig):
    """Fine-tuning of a pre-trained encoder."""

    layer_decay: float = field(metadata=share(one=True))  # each layer learns so many times as fast as the one above it


@dataclass
class EncoderConfig:
    """One pre-trained encoder of a ladder."""

    source: str | None  # an installed package, a folder, or a hub id as owner/name@revision
    layers: list[int]  # cut to its first so many layers, for each of these
    train: dict[str, Any]  # what differs from zoo.train for this encoder


@dataclass
class EncodersZooConfig(ZooConfig):
    """Pre-trained encoders, each cut to its first layers; the best model by its slice of train teaches the others."""

    encoders: dict[str, EncoderConfig | None]  # by the name that their models have; null: left out
    layerless: bool  # also a model without layers, on the embeddings of the first encoder that can be its base
    distill: bool  # the others also learn from the best one's logits, with weight train.distill
    student_rate: float = field(metadata=number(above=0))  # times the learning rate, for models that learn from another
    layerless_rate: float = field(metadata=number(above=0))  # learning rate of the model without layers
    via_mnli: list[str]  # tasks whose models start from mnli's of the same name
    train: LadderTrainConfig
    rates: dict[str, float]  # times the learning rate, by task
    tasks: dict[str, Any]  # what differs from `train`, by task

    @property
    def used(self) -> dict[str, EncoderConfig]:
        """The encoders that are not left out."""
        return {name: encoder for name, encoder in self.encoders.items() if encoder is not None}

    def check(self, config: Config, path: str) -> None:
        if not self.used:
            raise ConfigError("zoo.encoders names none: '+zoo.encoders.NAME={source: DIR, layers: [6], train: {}}'")
        for name, encoder in self.used.items():
            if not encoder.layers or min(encoder.layers) < 1:
                raise ConfigError(f"zoo.encoders.{name}.layers={encoder.layers}: numbers of layers, from 1 on")

    def unread(self, config: Config) -> dict[str, str]:
        unread = {} if self.layerless else {"zoo.layerless_rate": "zoo.layerless=false"}
        if not self.distill:
            unread |= dict.fromkeys((*TEACHING, "zoo.student_rate"), "zoo.distill=false")
        if not self.layerless and sum(len(set(encoder.layers)) for encoder in self.used.values()) == 1:
            unread |= dict.fromkeys((*TEACHING, "zoo.student_rate", "zoo.distill"), "there is one model alone")
        return unread


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

    def check(self, config: Config, path: str) -> None:
        if not self.paths:
            raise ConfigError("zoo=custom needs zoo.paths=[DIR_OR_HUB_ID,...], models fine-tuned on the task")
