"""DeeBERT's off-ramps: trained on a frozen model's hidden states, read and timed on the engine that serves.

A ramp has the shape of its model's own head: a linear layer on the mean of the hidden states for a mean-pooled model, a
dense layer with tanh and a linear layer on the first position for all others.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from tabi_bench import device
from tabi_bench.cache import cached, content_key
from tabi_bench.profiling.lab import engine_key
from tabi_bench.profiling.profile import SegmentTimes
from tabi_bench.zoo.families import family
from tabi_bench.zoo.loading import load_model, load_tokenizer
from tabi_bench.zoo.models import MeanPooled, mean_pool
from tabi_bench.zoo.training import Table, batches, encode

if TYPE_CHECKING:
    from tabi_bench.config import RampConfig
    from tabi_bench.engines.base import SegmentedModel
    from tabi_bench.profiling.lab import Lab
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Task
    from tabi_bench.zoo.base import ModelSpec

log = logging.getLogger(__name__)
REPETITIONS = 25  # timed passes through all cuts
RECIPE = 1  # raised when the code below changes what is learnt
READING_BATCH = 256


class Ramp(nn.Module):
    """Logits (B, K) of hidden states (B, L, H) after a layer."""

    def __init__(self, width: int, outputs: int, mean: bool, dropout: float = 0.0):
        super().__init__()
        self.mean = mean
        self.dense = nn.Identity() if mean else nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, outputs)

    def forward(self, hidden: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        """keep: (B, L), 0 for padding."""
        return self.head(read(hidden, keep, self.mean))

    def head(self, vector: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of what `read` reads (B, H)."""
        dense = self.dense(vector)
        return self.classifier(self.dropout(dense if self.mean else dense.tanh()))


def read(hidden: torch.Tensor, keep: torch.Tensor | None, mean: bool) -> torch.Tensor:
    """(B, H) that a head reads of hidden states (B, L, H): their mean, or the first position."""
    return mean_pool(hidden, keep) if mean else hidden[:, 0]


@dataclass(frozen=True)
class Ramps:
    """A model's off-ramps by layer (1-based), and the seconds that their training took."""

    hash: str
    modules: dict[int, Ramp]
    train_s: float


def trained(lab: Lab, ramps_hash: str) -> Ramps | None:
    """The ramps of this hash, if `add_ramps` has brought them to this lab: plans name ramps, only weights answer."""
    return lab.memo.get(("ramps", ramps_hash))


def add_ramps(lab: Lab, profile: Profile, options: RampConfig) -> Profile:
    """The profile with the ramps' logits and times of every model that has two layers and can be cut."""
    models, segments = dict(profile.models), dict(profile.segments)
    task, engine = lab.task, lab.engine
    for spec in lab.zoo.models:
        if spec.layers < 2 or not family(spec.family).cuttable:
            continue
        ramps = train_ramps(task, spec, lab.cache_dir, options, lab.seed, engine.device)
        lab.memo["ramps", ramps.hash] = ramps
        cut = lab.load_segments(spec.name, ramps.modules)
        logits = _logits(lab, cut, ramps)
        models[spec.name] = replace(models[spec.name], ramps=logits, ramps_hash=ramps.hash)
        segments[spec.name] = time_segments(lab, spec, cut, models[spec.name].tokens)
    return replace(profile, models=models, segments=segments)


# --- training ---------------------------------------------------------------------------------------------------------


def train_ramps(task: Task, spec: ModelSpec, cache_dir: Path, options: RampConfig, seed: int, on: str = "cpu") -> Ramps:
    """Stage two: the ramps of all layers but the last, on the frozen model's hidden states of train. Cached."""
    key = content_key(
        RECIPE, task.content_hash, spec.content_hash, spec.label_order, spec.max_length, asdict(options), seed
    )

    def build(folder: Path) -> None:
        started = perf_counter()
        modules = _train(task, spec, options, seed, on)
        weights = {f"{layer}.{k}": v for layer, ramp in modules.items() for k, v in ramp.state_dict().items()}
        save_file({k: v.cpu().contiguous() for k, v in weights.items()}, folder / "ramps.safetensors")
        notes = {"train_s": perf_counter() - started, "mean": next(iter(modules.values())).mean}
        (folder / "ramps.json").write_text(json.dumps(notes), encoding="utf-8")
        log.info("%s: %d off-ramps trained in %.1f s", spec.name, len(modules), notes["train_s"])

    folder = cached(Path(cache_dir) / "ramps" / key, build)
    notes, weights = (
        json.loads((folder / "ramps.json").read_text(encoding="utf-8")),
        load_file(folder / "ramps.safetensors"),
    )
    modules = {}
    for layer in range(1, spec.layers):
        own = {k.removeprefix(f"{layer}."): v for k, v in weights.items() if k.startswith(f"{layer}.")}
        outputs, width = own["classifier.weight"].shape
        modules[layer] = Ramp(width, outputs, notes["mean"])
        modules[layer].load_state_dict(own)
    return Ramps(key, modules, notes["train_s"])


def _train(task: Task, spec: ModelSpec, options: RampConfig, seed: int, on: str) -> dict[int, Ramp]:
    labels = task.labels("train")
    rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[: options.rows])
    model = load_model(spec, torch.float32, on)
    mean = isinstance(model, MeanPooled)
    texts, wanted = task.texts("train"), torch.tensor(labels[rows])
    vectors = hidden_vectors(model, spec, [texts[row] for row in rows], mean, on)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            layer: _fit(Ramp(vectors[0].shape[1], task.n_outputs, mean, options.dropout), x, wanted, options, seed, on)
            for layer, x in enumerate(vectors, start=1)
        }


@torch.no_grad()
def hidden_vectors(
    model: nn.Module, spec: ModelSpec, texts: list[tuple[str, ...]], mean: bool, on: str
) -> list[torch.Tensor]:
    """What a ramp after each layer but the last reads of N texts: (N, H) float32 on the CPU, one per layer."""
    table = Table(encode(load_tokenizer(spec.path, spec.max_length), texts), model.config.pad_token_id or 0, on)
    order = np.argsort(table.lengths, kind="stable")
    typed = family(spec.family).takes_types(model.config)
    keys = ("input_ids", "attention_mask", "token_type_ids") if typed else ("input_ids", "attention_mask")
    parts = []
    for start in range(0, len(order), READING_BATCH):
        batch = table.batch(order[start : start + READING_BATCH])
        hidden = model(**{key: batch[key] for key in keys}, output_hidden_states=True).hidden_states
        parts.append([read(states, batch["attention_mask"], mean).float().cpu() for states in hidden[1:-1]])
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    return [torch.cat(layer)[back] for layer in zip(*parts, strict=True)]


def _fit(ramp: Ramp, x: torch.Tensor, labels: torch.Tensor, options: RampConfig, seed: int, on: str) -> Ramp:
    """AdamW on vectors x (N, H) and labels (N,), cross entropy, learning rate falling linearly to zero."""
    ramp.to(on).train()
    x, labels = x.to(on), labels.to(on)
    optimizer = torch.optim.AdamW(ramp.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    per_epoch = -(-len(x) // options.batch_size)
    steps = max(1, round(options.epochs * per_epoch))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    same_length = np.zeros(len(x))
    for step in range(steps):
        if step % per_epoch == 0:
            epoch = batches(same_length, options.batch_size, seed, step // per_epoch)
        rows = torch.from_numpy(epoch[step % per_epoch]).to(on)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(ramp.head(x[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return ramp.eval().requires_grad_(False)


# --- reading and timing -----------------------------------------------------------------------------------------------


def _logits(lab: Lab, cut: SegmentedModel, ramps: Ramps) -> dict[int, np.ndarray]:
    """{layer: (N, K)} of every ramp on the validation queries, by the calls that serving makes. Cached."""

    def build(folder: Path) -> None:
        outputs = []
        for query in lab.task.queries:
            cut.start(cut.encode(query.texts))
            outputs.append([cut.step() for _ in ramps.modules])
        np.save(folder / "logits.npy", np.asarray(outputs, np.float32))

    key = content_key(ramps.hash, lab.task.content_hash, engine_key(lab.engine))
    folder = cached(lab.cache_dir / "ramp_outputs" / key, build)
    stored = np.load(folder / "logits.npy")
    return {layer: stored[:, number] for number, layer in enumerate(ramps.modules)}


def time_segments(lab: Lab, spec: ModelSpec, cut: SegmentedModel, tokens: np.ndarray) -> SegmentTimes:
    """Times the model whole, in one segment and cut after each layer, interleaved, at the median of `tokens` (N,).

    At the batch size that is served, none leaving, per query. What cutting adds is booked to the ramps, in equal parts:
    each is a head, a synchronisation and a read of its logits.
    """
    whole, one, size = lab.load(spec.name), lab.load_segments(spec.name, {}), lab.batches[-1]
    near = np.argsort(np.abs(tokens - np.median(tokens)), kind="stable")[: max(8, size)]
    spent = []
    with lab.exclusive(), device.quiet_collector():
        for repetition in range(REPETITIONS + 3):
            texts = [lab.task.queries[row].texts for row in np.resize(np.roll(near, -repetition), size)]
            start = perf_counter()
            encodings = [whole.encode(text) for text in texts]
            if size > 1:
                whole.forward_batch(encodings)
            else:
                whole.forward(encodings[0])
            spent.append([perf_counter() - start, *_steps_s(one, texts), *_steps_s(cut, texts)])
    whole_s, one_s, *after_s = np.median(spent[3:], axis=0) / size
    cuts = np.arange(spec.layers)
    ramp_s = max(0.0, (after_s[-1] - one_s) / cuts[-1])
    passed = np.minimum(cuts + 1, cuts[-1])  # ramps behind each layer, its own included
    share = np.maximum.accumulate(np.array(after_s) - passed * ramp_s) / whole_s
    return SegmentTimes(share, 1e3 * ramp_s)


def _steps_s(model: SegmentedModel, texts: list[tuple[str, ...]]) -> list[float]:
    """Seconds from raw texts to the end of each segment."""
    start = perf_counter()
    encodings = [model.encode(text) for text in texts]
    if len(texts) > 1:
        model.start_batch(encodings)
    else:
        model.start(encodings[0])
    ends = []
    for _ in range(model.n_segments):
        if len(texts) > 1:
            model.step_batch()
        else:
            model.step()
        ends.append(perf_counter() - start)
    return ends
