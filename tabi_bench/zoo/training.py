"""One fine-tuning loop for every zoo: length-bucketed batches, AdamW, warm-up and decay, word dropout, distillation.

Everything random follows from (seed, step), so a training that was interrupted goes on to the same weights.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, matthews_corrcoef
from sklearn.model_selection import train_test_split
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.config import ConfigError, FineTuneConfig, LadderTrainConfig, TrainConfig
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.progress import progress
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.captured import CapturedSteps
from tabi_bench.zoo.families import family
from tabi_bench.zoo.words import align, without_short_texts

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0  # least time between two checkpoints: writing one of a small model costs more than it saves
POOL = 64  # batches whose rows are sorted by length together
MIN_WORDS = 3  # texts of at most so many words are never shortened, as in pruning
EVALUATION_BATCH = 256
KEPT = ("fingerprint", "step", "stale", "best", "best_weights", "history")  # plain values of a checkpoint
WIDTHS = 8  # widths of batches on a GPU are multiples of it
Recipe = TypeVar("Recipe", bound=FineTuneConfig)


class TrainingError(ValueError):
    """A training that diverged or cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Examples:
    """Tokenised rows: per row the token ids, segment ids and (-1: never dropped) the word of each token.

    labels: (N,) int64, or float for regression; None where only predictions are wanted. teacher: (N, K) another model's
    logits to learn from, or None.
    """

    ids: list[np.ndarray]
    type_ids: list[np.ndarray]
    words: list[np.ndarray]
    labels: np.ndarray | None = None
    teacher: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Examples:
        labels, teacher = (None if part is None else part[rows] for part in (self.labels, self.teacher))
        ids, type_ids, words = ([column[row] for row in rows] for column in (self.ids, self.type_ids, self.words))
        return Examples(ids, type_ids, words, labels, teacher)


@dataclass(frozen=True)
class TrainResult:
    """score: on the early-stop slice (accuracy, MCC, or minus the squared error); NaN where there is no slice.

    seconds: wall time of training, interrupted parts included. history: (step, score, loss) per evaluation.
    """

    score: float
    steps: int
    seconds: float
    history: list[tuple[int, float, float]] = field(default_factory=list)


def changed_recipe(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    """`recipe` with the changes of several settings, by their names, one after the other. Raises ConfigError."""
    try:
        for values in changes.values():
            recipe = replace(recipe, **values)
        return recipe
    except TypeError as error:
        raise ConfigError(f"{', '.join(changes)}: {error}; their keys are those of zoo.train") from None


@dataclass(frozen=True)
class Course:
    """How a training is scored on its slice, where it goes on from, and the title of its bar (empty: no bar)."""

    metric: str = "accuracy"
    checkpoint: Path | None = None  # removed at the end
    title: str = ""


BY_ACCURACY = Course()


# --- rows -------------------------------------------------------------------------------------------------------------


def encode(tokenizer: Tokenizer, texts: Sequence[Sequence[str]], labels: np.ndarray | None = None) -> Examples:
    """Tokenises rows of one or two texts each."""
    tokens = tokenizer.encode_batch([tuple(row) if len(row) > 1 else row[0] for row in texts])
    return Examples(
        [np.asarray(token.ids, np.int32) for token in tokens],
        [np.asarray(token.type_ids, np.int32) for token in tokens],
        [without_short_texts(align(row, token), row, MIN_WORDS) for token, row in zip(tokens, texts, strict=True)],
        labels,
    )


class Table:
    """Rows as padded tensors on the device, cut into batches of similar length."""

    def __init__(self, examples: Examples, pad_id: int, device: str):
        self.device = device
        self.lengths = np.array([len(row) for row in examples.ids])
        self.length = torch.tensor(self.lengths, device=device)
        tokens = {"input_ids": (examples.ids, pad_id), "token_type_ids": (examples.type_ids, 0)}
        tokens |= {"words": (examples.words, -1)}
        self.tokens = {name: self._pad(rows, value) for name, (rows, value) in tokens.items()}
        known = {"labels": examples.labels, "teacher": examples.teacher}
        self.known = {name: torch.as_tensor(rows, device=device) for name, rows in known.items() if rows is not None}

    def _pad(self, rows: list[np.ndarray], value: int) -> torch.Tensor:
        table = np.full((len(rows), -(-int(self.lengths.max()) // WIDTHS) * WIDTHS), value, np.int32)
        for row, values in enumerate(rows):
            table[row, : len(values)] = values
        return torch.from_numpy(table).to(self.device)

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Ids, segment ids, mask and words of some rows, (B, longest of them, rounded up on a GPU: fewer shapes).

        Their labels and their teacher's logits too, where the rows have them.
        """
        longest = int(self.lengths[rows].max())
        if self.device.startswith("cuda"):
            longest = -(-longest // WIDTHS) * WIDTHS
        index = torch.from_numpy(rows).to(self.device)
        mask = torch.arange(longest, device=self.device) < self.length[index, None]
        inputs = {name: column[index, :longest].long() for name, column in self.tokens.items()}
        inputs |= {name: column[index] for name, column in self.known.items()}
        return inputs | {"attention_mask": mask.long()}


def batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch's batches: row numbers, similar lengths together, order drawn from (seed, epoch)."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pools = np.array_split(order, max(1, math.ceil(len(order) / (POOL * batch_size))))
    pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    cut = [pool[i : i + batch_size] for pool in pools for i in range(0, len(pool), batch_size)]
    return [cut[i] for i in rng.permutation(len(cut))]


def drop_words(batch: dict[str, torch.Tensor], rate: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Removes words from each row, a share of them drawn from 0..2*rate, and closes the gaps (padding grows)."""
    words, mask = batch["words"], batch["attention_mask"].bool()
    share = torch.rand(len(words), 1, generator=generator, device=words.device) * 2 * rate
    # a text has no more words than characters: numbers beyond the row's width come from truncated texts and wrap around
    number = words.clamp(min=0) % words.shape[1]
    draw = torch.rand(words.shape, generator=generator, device=words.device).gather(1, number)
    keep = mask & ((draw >= share) | (words < 0))
    order = torch.sort(keep.int(), dim=1, descending=True, stable=True).indices
    moved = {key: batch[key].gather(1, order) for key in ("input_ids", "token_type_ids", "words")}
    return {**batch, **moved, "attention_mask": keep.gather(1, order).long()}


# --- model ------------------------------------------------------------------------------------------------------------


def _forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    keys = ["input_ids", "attention_mask"]
    if not model.config.num_hidden_layers or family(model.config.model_type).takes_types(model.config):
        keys.append("token_type_ids")
    return model(**{key: batch[key] for key in keys}).logits.float()


def _pad_id(model: PreTrainedModel) -> int:
    return family(model.config.model_type).padding(model.config)


def _autocast(device: str) -> torch.autocast:
    """Mixed precision on a GPU; on a CPU bf16 was 1.6 to 2.7 times slower than fp32."""
    if not device.startswith("cuda"):
        return torch.autocast("cpu", enabled=False)
    kind = torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.autocast("cuda", dtype=kind, cache_enabled=False)  # a captured step must cast its weights itself


def predict(model: nn.Module, examples: Examples, device: str) -> np.ndarray:
    """Logits (N, K) float32 of all rows, in row order; `model` already lies on `device`."""
    return _predict(model, Table(examples, _pad_id(model), device))


@torch.no_grad()
def _predict(model: nn.Module, table: Table) -> np.ndarray:
    was_training = model.training
    model.eval()
    order = np.argsort(table.lengths, kind="stable")
    chunks = [order[i : i + EVALUATION_BATCH] for i in range(0, len(order), EVALUATION_BATCH)]
    with _autocast(table.device):
        logits = torch.cat([_forward(model, table.batch(rows)) for rows in chunks]).cpu().numpy()
    model.train(was_training)
    result = np.empty_like(logits)
    result[order] = logits
    return result


def loss_of(
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher: torch.Tensor | None = None,
    weight: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """(1 - weight) * task loss + weight * distillation loss, for logits (B, K).

    Classification: cross entropy, and T^2 KL(teacher/T || student/T) (Hinton et al. 2015). Regression (K = 1): squared
    error to the label and to the teacher's score.
    """
    regression = logits.shape[1] == 1
    own = F.mse_loss(logits[:, 0], labels.float()) if regression else F.cross_entropy(logits, labels)
    if teacher is None or weight == 0:
        return own
    if regression:
        soft = F.mse_loss(logits, teacher)
    else:
        student, target = F.log_softmax(logits / temperature, 1), F.log_softmax(teacher / temperature, 1)
        soft = temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)
    return (1 - weight) * own + weight * soft


def score_of(logits: np.ndarray, labels: np.ndarray, metric: str = "accuracy") -> float:
    """What early stopping maximises: accuracy or MCC; minus the mean squared error for regression."""
    if logits.shape[1] == 1:
        return -float(np.mean((logits[:, 0] - labels) ** 2))
    rule = matthews_corrcoef if metric == "matthews" else accuracy_score
    return float(rule(labels, logits.argmax(1)))


def validation_score(model: nn.Module, tokenizer: Tokenizer, task: Task, device: str) -> float:
    """The model's score on validation in the task's own metric, a fraction; 0 where a correlation is not defined."""
    logits = predict(model, encode(tokenizer, task.texts("validation")), device)
    return score(task.config.metric, task.labels("validation"), predictions_from(logits))


# --- training ---------------------------------------------------------------------------------------------------------


@contextmanager
def _seen_tokens(model: nn.Module, examples: Examples) -> Iterator[Examples]:
    """The rows with tokens numbered among those that occur, to which the word embeddings are cut meanwhile.

    Other tokens get no gradient, yet the optimizer would go through them in every step: half the parameters of a small
    encoder. They keep the values that they had. A token up to the padding's keeps its number (RoBERTa counts places by
    it). Where one table of embeddings cannot be told to be the words', nothing is cut.
    """
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == model.config.vocab_size]
    if len(tables) != 1 or sum(p is tables[0].weight for _, p in model.named_parameters(remove_duplicate=False)) != 1:
        yield examples
        return
    table, whole = tables[0], tables[0].weight
    tokens = np.unique(np.concatenate([np.arange(_pad_id(model) + 1), *examples.ids]))
    seen = torch.from_numpy(tokens).to(whole.device)
    table.weight = nn.Parameter(whole.detach()[seen], whole.requires_grad)
    try:
        yield replace(examples, ids=[np.searchsorted(tokens, row).astype(np.int32) for row in examples.ids])
    finally:
        with torch.no_grad():
            whole[seen] = table.weight
        table.weight = whole


def split_slice(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on, and of the early-stop slice: 5 % of train, 200 to 2,000 rows, at most a fifth."""
    n = len(labels)
    size = min(max(n // 20, 200), 2000, n // 5)
    classes, counts = np.unique(labels, return_counts=True)
    even = np.issubdtype(labels.dtype, np.integer) and counts.min() >= 2 and len(classes) <= min(size, n - size)
    train, held = train_test_split(np.arange(n), test_size=size, random_state=seed, stratify=labels if even else None)
    return np.sort(train), np.sort(held)


def parameter_groups(model: PreTrainedModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights with decay and without, layer by layer; each layer learns `layer_decay` times as fast as the next one."""
    factor = config.layer_decay if isinstance(config, LadderTrainConfig) else 1.0
    layers = model.config.num_hidden_layers
    blocks = family(model.config.model_type).blocks(model) if layers and factor != 1.0 else []
    depth = {id(p): number + 1 for number, block in enumerate(blocks) for p in block.parameters()}
    depth |= {id(p): layers + 1 for p in model.classifier.parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((depth.get(id(parameter), 0), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": config.weight_decay * decays, "scale": factor ** (layers + 1 - level)}
        for (level, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


class _Run:
    """State of one training: what a checkpoint holds, and the best weights so far."""

    def __init__(self, model: nn.Module, config: TrainConfig, steps: int, fingerprint: str, checkpoint: Path | None):
        self.model, self.config, self.steps = model, config, steps
        self.fingerprint, self.checkpoint = fingerprint, checkpoint
        self.device = next(model.parameters()).device
        groups, on_gpu = parameter_groups(model, config), self.device.type == "cuda"
        for group in groups:
            group["lr"] = torch.tensor(0.0, device=self.device) if on_gpu else 0.0
        self.optimizer = torch.optim.AdamW(groups, fused=True, capturable=on_gpu)
        self.averaged = deepcopy(model) if config.average else None
        self.scaler = torch.amp.GradScaler(enabled=on_gpu and not torch.cuda.is_bf16_supported(False))
        self.step, self.stale, self.seconds = 0, 0, 0.0
        self.best: tuple[float, float] = (-math.inf, math.inf)
        self.best_weights: dict[str, torch.Tensor] = {}
        self.history: list[tuple[int, float, float]] = []
        self.saved_at = time.monotonic()

    def set_rate(self) -> None:
        """Linear warm-up, then linear decay to zero."""
        warmup = max(1, round(self.config.warmup_share * self.steps))
        share = min((self.step + 1) / warmup, (self.steps - self.step) / max(1, self.steps - warmup))
        for group in self.optimizer.param_groups:
            rate = self.config.learning_rate * share * group["scale"]
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # in place: captured steps read it there
            else:
                group["lr"] = rate

    def learn(self, inputs: dict[str, torch.Tensor]) -> None:
        """Loss, gradients, and the optimizer's step: what a captured step holds."""
        with _autocast(self.device.type):
            logits = _forward(self.model, inputs)
        taught = inputs.get("teacher"), self.config.distill, self.config.distill_temperature
        loss = loss_of(logits, inputs["labels"], *taught)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def update(self, learn: Callable[[], None]) -> None:
        """One step: `learn` changes the weights."""
        self.set_rate()
        learn()
        if self.averaged is not None:
            weight = 1 - self.config.average if self.step else 1.0  # the first step's weights begin the average
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), weight)
        self.step += 1

    @property
    def judged(self) -> nn.Module:
        """What is scored and kept: the model, or its moving average."""
        return self.model if self.averaged is None else self.averaged

    def judge(self, held: Table, labels: np.ndarray, metric: str) -> None:
        """Keeps the weights if they are the best on the slice (the lower loss among equals)."""
        logits = _predict(self.judged, held)
        loss = float(loss_of(torch.from_numpy(logits), torch.from_numpy(labels)))
        if not math.isfinite(loss):
            raise TrainingError(f"training diverged at step {self.step} (loss {loss}); lower zoo.train.learning_rate")
        score = score_of(logits, labels, metric)
        self.history.append((self.step, score, loss))
        self.stale += 1
        if (score, -loss) > (self.best[0], -self.best[1]):
            self.best, self.stale = (score, loss), 0
            self.best_weights = {key: value.detach().clone() for key, value in self.judged.state_dict().items()}

    @property
    def done(self) -> bool:
        return self.step >= self.steps or 0 < self.config.patience <= self.stale

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}

    def save(self, seconds: float) -> None:
        """Writes the checkpoint to a temporary name and moves it into place."""
        if self.checkpoint is None or time.monotonic() - self.saved_at < CHECKPOINT_SECONDS:
            return
        state = {name: getattr(self, name) for name in KEPT} | {"seconds": seconds}
        state |= {name: part.state_dict() for name, part in self._parts().items()}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_name(f"{self.checkpoint.name}.{os.getpid()}")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        self.saved_at = time.monotonic()

    def resume(self, device: str) -> None:
        """Goes on from the checkpoint if it is this very training's; anything else is said and left alone."""
        if self.checkpoint is None or not self.checkpoint.is_file():
            return
        try:
            state = torch.load(self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:
            log.warning("%s cannot be read (%s); training starts afresh", self.checkpoint, error)
            return
        if state["fingerprint"] != self.fingerprint:
            log.warning("%s belongs to another training; training starts afresh", self.checkpoint)
            return
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name in (*KEPT, "seconds"):
            setattr(self, name, state[name])
        log.info("resumed %s at step %d of %d", self.checkpoint, self.step, self.steps)


def _schedule(lengths: np.ndarray, config: TrainConfig, seed: int, start: int, steps: int) -> Iterator[np.ndarray]:
    """Row numbers of each step's batch from step `start` on."""
    per_epoch = len(batches(lengths, config.batch_size, seed, 0))
    for epoch in range(start // per_epoch, math.ceil(steps / per_epoch)):
        skip = max(0, start - epoch * per_epoch)
        yield from batches(lengths, config.batch_size, seed, epoch)[skip:]


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Captured steps and plain ones on one stream that is not the default one, which cannot be captured."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield
    torch.cuda.synchronize(device)


def _loop(run: _Run, table: Table, held: tuple[Table, np.ndarray] | None, course: Course, seed: int) -> float:
    """Steps until done; returns the seconds spent, earlier parts included. held: the held-out slice and its labels."""
    config, started = run.config, time.monotonic() - run.seconds
    marks = {max(1, round(run.steps * (i + 1) / config.evaluations)) for i in range(config.evaluations)} | {run.steps}
    capturable = table.device.startswith("cuda") and not run.scaler.is_enabled()
    captured = CapturedSteps(run.learn) if capturable else run.learn
    with progress(total=run.steps, initial=run.step, desc=course.title, unit="step", disable=not course.title) as bar:
        for rows in _schedule(table.lengths, config, seed, run.step, run.steps):
            if run.done:
                break
            torch.manual_seed(drawn := (seed * 1_000_003 + run.step) % 2**31)
            inputs = table.batch(rows)
            if config.word_dropout > 0:
                inputs = drop_words(inputs, config.word_dropout, torch.Generator(table.device).manual_seed(drawn))
            run.update(partial(captured if len(rows) == config.batch_size else run.learn, inputs))
            bar.update()
            if run.step in marks:
                if held is not None:
                    run.judge(*held, course.metric)
                    bar.set_postfix(score=f"{run.history[-1][1]:.3f}")
                run.save(time.monotonic() - started)
    return time.monotonic() - started


def train(
    model: nn.Module,
    examples: Examples,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    course: Course = BY_ACCURACY,
) -> TrainResult:
    """Fine-tunes `model` in place on labelled rows and leaves it in eval mode on `device` with its best weights.

    The teacher's logits, where rows have them, are soft targets with weight `config.distill`. With
    `config.patience > 0` a slice of the rows is held out, the weights that scored best on it are kept, and training
    ends after so many evaluations without improvement; with 0 every row is trained on and the last weights are kept.
    Raises TrainingError if the loss is not finite.
    """
    labels, title, checkpoint = examples.labels, course.title or "training", course.checkpoint
    if labels is None or len(examples) < 10:
        raise TrainingError(f"{title}: needs at least 10 labelled rows, got {len(examples)}")
    rows, slice_rows = split_slice(labels, seed) if config.patience > 0 else (np.arange(len(labels)), None)
    if model.config.num_hidden_layers:
        family(model.config.model_type).prepare(model)
    model.to(device).train()
    with _seen_tokens(model, examples) as known:
        table, held = Table(known.take(rows), _pad_id(model), device), None
        if slice_rows is not None:
            held = Table(known.take(slice_rows), _pad_id(model), device), labels[slice_rows]
        steps = math.ceil(config.epochs * len(batches(table.lengths, config.batch_size, seed, 0)))
        steps = min(steps, config.max_steps or steps)
        sizes = f"{len(examples)} {int(table.lengths.sum())} {sum(p.numel() for p in model.parameters())}"
        run = _Run(model, config, steps, f"{asdict(config)} {seed} {sizes}", checkpoint)
        with torch.random.fork_rng(enabled=True), _own_stream(run.device):
            run.resume(device)
            seconds = _loop(run, table, held, course, seed)
        if run.best_weights or run.averaged is not None:
            model.load_state_dict(run.best_weights or run.judged.state_dict())
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise TrainingError(f"{title}: weights are not finite; lower zoo.train.learning_rate")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    model.eval()
    return TrainResult(run.best[0] if held is not None else math.nan, run.step, seconds, run.history)
