"""`zoo=encoders`: pre-trained encoders, each cut to its first layers and fine-tuned on the task.

The deepest cut of every encoder is trained on the labels alone; the best of them by the slice of train that was held
out teaches all other models. Each model is cached on its own, by the content of data, encoder and recipe.
`python -m tabi_bench.zoo.train` trains the ladders of several tasks side by side.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from tabi_bench import device as devices
from tabi_bench.cache import cached, content_key
from tabi_bench.config import ConfigError, EncodersZooConfig, LadderTrainConfig, read_file
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import ModelSpec, Zoo
from tabi_bench.zoo.encoder import BASE, carry_over, encoder_folder, first_layers, without_layers
from tabi_bench.zoo.loading import ModelError, load_model, load_tokenizer, spec_of
from tabi_bench.zoo.training import Course, changed_recipe, encode, predict, train, validation_score

log = logging.getLogger(__name__)

RECIPE = 4  # raised when the code below changes what is learnt: older cached models are then left alone
NOTES, LOGITS = "training.json", "train_logits.npy"


def load(config: EncodersZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The ladder for `task`, fine-tuned at first use. Raises ModelError without an encoder."""
    ladder = Ladder(config, task, Path(cache_dir).expanduser(), seed, device)
    ladder.check()
    models = {ladder.spec(cut): ladder.notes(cut) for cut in ladder.models}
    order = sorted(models, key=lambda spec: (spec.layers > 0, spec.params))
    names = {spec.name: models[spec] for spec in order}
    return Zoo(config.name, tuple(order), ladder.seconds(), {"distilled": config.distill, "training": names})


@dataclass(frozen=True)
class CutEncoder:
    """One model: an encoder, by its name in the configuration, cut to its first `layers` layers.

    taught: it learns from the best model's logits too; the same cut may also be trained alone, to find the best.
    """

    encoder: str
    layers: int
    taught: bool = False

    @property
    def name(self) -> str:
        return f"{self.encoder}-{self.layers}"


@dataclass(frozen=True, eq=False)
class Ladder:
    """The models of one task: where each is cached, and how it is made."""

    config: EncodersZooConfig
    task: Task
    cache_dir: Path
    seed: int
    device: str
    quiet: bool = False  # no bar: those of several processes would overwrite each other

    # what there is

    @cached_property
    def encoders(self) -> dict[str, ModelSpec]:
        """The encoders by name, as they lie on disk. Raises ModelError, hub.HubError."""
        folders = {name: encoder_folder(encoder.source, self.cache_dir) for name, encoder in self.config.used.items()}
        return {name: spec_of(folder, name, self.config.max_length) for name, folder in folders.items()}

    @property
    def candidates(self) -> list[CutEncoder]:
        """The deepest cut of each encoder, trained on the labels alone: the best one teaches."""
        return [CutEncoder(name, max(encoder.layers)) for name, encoder in self.config.used.items()]

    @property
    def students(self) -> list[CutEncoder]:
        """The other cuts that are wanted."""
        return [cut for cut in self.others if self.config.wants(cut.name)]

    @property
    def others(self) -> list[CutEncoder]:
        """Every other cut, and the model without layers if it is asked for."""
        taught = self.config.distill
        cuts = [CutEncoder(n, k, taught) for n, e in self.config.used.items() for k in set(e.layers) - {max(e.layers)}]
        if self.config.layerless:
            base = next((name for name, encoder in self.encoders.items() if encoder.family == BASE), None)
            if base is None:
                raise ModelError("zoo.layerless=true needs an encoder with BERT's embeddings among zoo.encoders")
            cuts.append(CutEncoder(base, 0, taught))
        return cuts

    @cached_property
    def teacher(self) -> CutEncoder:
        """The best candidate by its slice of train (all have the same one); trained if it is not there yet."""
        known = {cut: self.notes(cut)["slice_score"] for cut in self.candidates} if len(self.candidates) > 1 else {}
        return max(self.candidates, key=lambda cut: known.get(cut, 0.0))

    @property
    def models(self) -> list[CutEncoder]:
        """All models that are wanted. Finding out who teaches may train the candidates."""
        candidates = self.candidates
        if self.config.distill:
            candidates = [cut if cut == self.teacher else replace(cut, taught=True) for cut in candidates]
        return [*(cut for cut in candidates if self.config.wants(cut.name)), *self.students]

    # how a model is made

    def recipe(self, cut: CutEncoder) -> LadderTrainConfig:
        """How a model is trained here: zoo.train, changed by its encoder, then by the task. Raises ConfigError."""
        config, task = self.config, self.task.name
        changes = {f"zoo.encoders.{cut.encoder}.train": config.used[cut.encoder].train}
        base = changed_recipe(config.train, changes | {f"zoo.tasks.{task}": config.tasks.get(task, {})})
        rate = base.learning_rate * config.rates.get(task, 1.0) * (config.student_rate if cut.taught else 1.0)
        rate = rate if cut.layers else config.layerless_rate
        return replace(base, learning_rate=rate, distill=base.distill if cut.taught else 0.0)

    @cached_property
    def start(self) -> Ladder | None:
        """MNLI's ladder from the same source, where `zoo.via_mnli` names this task. Raises ConfigError, DataError."""
        if self.task.name not in self.config.via_mnli or self.task.source == "generated":
            return None
        where = f"zoo.via_mnli: {self.task.name}"
        if self.task.name == "mnli":
            raise ConfigError(f"{where} cannot learn from itself")
        if self.task.origin is None:
            raise ConfigError(f"{where}: its source is not known, so neither is mnli's data")
        task = load_task(read_file("task", "mnli"), self.task.origin, self.seed)
        if len(task.config.texts) != len(self.task.config.texts):
            raise ConfigError(f"{where} has another number of texts than mnli")
        return replace(self, task=task)

    def check(self) -> None:
        """Raises ConfigError, DataError or ModelError for what no model could be trained from, before any is."""
        self.config.check_names(sorted(cut.name for cut in (*self.candidates, *self.others)))
        for cut in (*self.candidates, *self.students):
            stored = self.encoders[cut.encoder]
            if cut.layers > stored.layers:
                raise ModelError(f"zoo.encoders: {cut.layers} layers asked of {stored.path}, which has {stored.layers}")
            self.recipe(cut)
        if self.start:
            self.start.check()

    def key(self, cut: CutEncoder) -> str:
        """Hash of everything that the model is made from; a taught one's includes its teacher's."""
        data = (self.task.train_hash, self.task.config.metric, self.task.config.labels)
        parts = [RECIPE, data, self.encoders[cut.encoder].content_hash, self.config.max_length, cut.layers]
        parts += [asdict(self.recipe(cut)), self.seed, self.key(self.teacher) if cut.taught else None]
        return content_key(*parts, self.start.key(self.start.own(cut)) if self.start else None)

    def own(self, cut: CutEncoder) -> CutEncoder:
        """The model of the same cut in this ladder, where another one may teach."""
        alone = replace(cut, taught=False)
        return alone if alone == self.teacher else cut

    def folder(self, cut: CutEncoder) -> Path:
        """The model's folder in the cache, trained if it is not there yet."""
        path = self.cache_dir / "encoders" / f"{self.task.name}-{cut.name}-{self.key(cut)}"
        return cached(path, lambda temporary: self._build(cut, temporary, path.with_suffix(".checkpoint")))

    def spec(self, cut: CutEncoder) -> ModelSpec:
        return spec_of(self.folder(cut), cut.name, self.config.max_length)

    def notes(self, cut: CutEncoder) -> dict:
        """What was stored beside the model: scores and the rows they are of, steps, seconds, recipe."""
        return json.loads((self.folder(cut) / NOTES).read_text(encoding="utf-8"))

    def seconds(self) -> float:
        """Seconds of training behind the ladder, candidates and mnli's models included."""
        ladders = [self, self.start] if self.start else [self]
        return sum(one.notes(cut)["seconds"] for one in ladders for cut in {*one.candidates, *one.models})

    def _build(self, cut: CutEncoder, folder: Path, checkpoint: Path) -> None:
        recipe, task, encoder = self.recipe(cut), self.task, self.encoders[cut.encoder]
        tokenizer = load_tokenizer(encoder.path, encoder.max_length)
        teacher = np.load(self.folder(self.teacher) / LOGITS) if recipe.distill else None
        model, rows = self._start(cut), encode(tokenizer, task.texts("train"), task.labels("train"))
        rows = replace(rows, teacher=teacher)
        course = Course(task.config.metric, checkpoint, "" if self.quiet else f"{task.name} {cut.name}")
        result = train(model, rows, recipe, seed=self.seed, device=self.device, course=course)
        model.to("cpu", torch.float16).save_pretrained(folder)  # half the disk; the third decimal of logits differs
        shutil.copyfile(encoder.path / "tokenizer.json", folder / "tokenizer.json")
        stored = load_model(spec_of(folder, "stored"), torch.float32, self.device)
        if cut in self.candidates:
            np.save(folder / LOGITS, predict(stored, rows, self.device))
        labels = task.labels("validation")
        notes = {
            "validation_rows": len(labels),
            "majority_share": None if task.is_regression else float(np.bincount(labels).max() / len(labels)),
            "metric": task.config.metric,
            "validation_score": validation_score(stored, tokenizer, task, self.device),
            "slice_score": result.score,
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "recipe": asdict(recipe),
            "teacher": self.teacher.name if cut.taught else None,
            "via_mnli": self.start is not None,
            "device": devices.describe(devices.resolve(self.device))["name"],
            "torch": torch.__version__,
        }
        (folder / NOTES).write_text(json.dumps(notes, indent=1), encoding="utf-8")

    def _start(self, cut: CutEncoder) -> PreTrainedModel:
        """The cut encoder, or mnli's model. A regression's head starts at the mean label: else an epoch is lost."""
        labels, folder = self.task.config.labels, self.encoders[cut.encoder].path
        if cut.layers:
            model = first_layers(folder, cut.layers, labels, self.seed)
        else:
            model = without_layers(folder, labels, self.seed, len(self.task.config.texts))
        if self.start:
            carry_over(model, load_model(self.start.spec(self.start.own(cut)), torch.float32, "cpu"))
        if self.task.is_regression:
            torch.nn.init.constant_(model.classifier.bias, float(self.task.labels("train").mean()))
        return model


def tasks_needed(config: EncodersZooConfig, task: str) -> list[str]:
    """The task, and others whose data its ladder is made from."""
    return [task, "mnli"] if task in config.via_mnli else [task]
