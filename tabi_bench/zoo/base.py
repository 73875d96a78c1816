"""Who can answer: a Zoo is a ladder of models, each a directory in the Hugging Face layout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from tabi_bench.cache import content_key

INT8 = "-int8"  # ends the name of a model that has float32 beside it
FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}  # how transformers reads whatever lies there


class ModelError(ValueError):
    """A folder that is not a usable model; the message names it and says what to do."""


@dataclass(frozen=True)
class ModelSpec:
    """One model of the ladder, on disk.

    `path` holds config.json, model.safetensors and tokenizer.json. `label_order[k]` is the model's own output column
    for the task's label k; `scale` = (a, b) maps a regression head's output y to a*y + b. Both are folded into the
    head's weights when the model is loaded, so that every engine returns logits in the task's own order.
    """

    name: str
    path: Path
    family: str  # config.json's model_type (tabi_bench/zoo/families)
    layers: int
    params: int
    content_hash: str  # of weights, configuration and tokenizer
    max_length: int = 128
    label_order: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None
    int8: bool = False  # run in int8 by an engine that has it

    @property
    def in_int8(self) -> ModelSpec:
        """The same model in int8, as a model of its own."""
        name, digest = f"{self.name}{INT8}", content_key(self.content_hash, "int8")
        return replace(self, name=name, content_hash=digest, int8=True)


@dataclass(frozen=True)
class Zoo:
    """Models ordered from the smallest to the largest, and what it took to get them."""

    name: str
    models: tuple[ModelSpec, ...]
    train_s: float = 0.0  # seconds of fine-tuning behind these weights, as stored beside them
    notes: dict = field(default_factory=dict)

    def __getitem__(self, name: str) -> ModelSpec:
        return next(model for model in self.models if model.name == name)

    @property
    def with_int8(self) -> Zoo:
        """Beside every model with layers the same in int8, which comes before it: it is the faster one."""
        both = [(spec.in_int8, spec) if spec.layers else (spec,) for spec in self.models]
        return replace(self, models=tuple(chain.from_iterable(both)))

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models]
