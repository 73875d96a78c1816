"""The lab: runs every model of a zoo over the validation queries, times it by length, and makes the Profile of that.

Outputs come from the engine call that serving makes (batch 1, same bucket), and are cached by the content of model,
data and engine. Latencies are measured anew each time, with all models interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tabi_bench import device
from tabi_bench.cache import cached, content_key
from tabi_bench.engines import rounding
from tabi_bench.engines.base import Engine, Model, SegmentedModel
from tabi_bench.profiling.batches import batch_curves, drift
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile, Pruned, PruneKey, Ragged, T
from tabi_bench.profiling.pruned import PrunedRunner, PruneRule
from tabi_bench.progress import progress
from tabi_bench.tasks.base import Query, Task
from tabi_bench.zoo.base import ModelSpec, Zoo

Variants = dict[str, dict[str | None, Model]]  # by model, by importance option
BLOCK = 5  # calls of one cell in a row; the first fifth of a block is not counted
HOST_BLOCK = 40  # of a model on the host: its tables' rows and code return to the processor's caches in tens of calls
FEW, HARDLY = 8, 2  # texts that stand for a length, and tokens by which more of them may differ from it


def engine_key(engine: Engine) -> dict[str, str]:
    """What of an engine can change a model's outputs."""
    import torch

    return {
        "engine": engine.name,
        "dtype": engine.dtype,
        "device": engine.device.split(":")[0],
        "torch": torch.__version__,
    }


@dataclass(frozen=True)
class LiveProfile(Profile):
    """A profile whose lab is at hand: passes on pruned text are run, or recalled, when a search asks for them."""

    lab: Lab | None = None

    def pruned(self, key: PruneKey, positions: np.ndarray) -> Pruned:
        """See Profile."""
        return self._lab.pruned(key, self.rows[positions])

    def pruned_tokens(self, key: PruneKey, positions: np.ndarray) -> np.ndarray:
        """See Profile."""
        return self._lab.pruned.tokens(key, self.rows[positions])

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """See Profile."""
        if key not in self._lab.memo:
            self._lab.memo[key] = make()
        return self._lab.memo[key]

    @property
    def _lab(self) -> Lab:
        assert self.lab is not None, "a LiveProfile is made by a Lab"
        return self.lab


@dataclass(frozen=True)
class Lab:
    """What runs models in a session: profiles are measured by it, systems load their models from it.

    instance: models of another instance share no weights with these; memo: what was worked out once in this session.
    """

    task: Task
    zoo: Zoo
    engine: Engine
    cache_dir: Path
    seed: int
    rounds: int  # over all models and lengths, when they are timed
    batches: tuple[int, ...] = (1,)  # sizes at which models are timed; plans minimise the time per query at the last
    mixed: bool = False  # whether batches hold queries of any length: their padding is in the time
    instance: str = ""
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def load(self, name: str, *, importance: str | None = None, pooled: bool = False) -> Model:
        """A model of the zoo by its name; see `Engine.load`."""
        return self.engine.load(self.zoo[name], importance=importance, pooled=pooled, instance=self.instance)

    def load_segments(self, name: str, ramps: dict[int, Any]) -> SegmentedModel:
        """A model cut after its active off-ramps; see `Engine.load_segments`."""
        return self.engine.load_segments(self.zoo[name], ramps, instance=self.instance)

    def apart(self) -> Lab:
        """The same lab, whose models share nothing with this one's."""
        return replace(self, instance="again")

    def exclusive(self) -> AbstractContextManager[None]:
        """One timing at a time on this device. Take it after every cache lock, never before one."""
        return device.exclusive(device.describe(self.engine.device)["id"])

    @property
    def pruned(self) -> PrunedRunner:
        """Runs large models on pruned text; there once `profile` was called."""
        return self.memo["pruned"]

    def outputs(self, importance: Sequence[str]) -> tuple[Variants, dict[str, dict[str, Any]]]:
        """Every model, loaded (by importance option), and its outputs on the validation rows, cached or run now."""
        options: Sequence[str | None] = importance or (None,)
        pooled = self.task.is_regression
        loaded = {
            name: {option: self.load(name, importance=option, pooled=pooled) for option in options}
            for name in self.zoo.names
        }
        outputs = {}
        for spec in self.zoo.models:
            silent = spec is self.zoo.models[-1] or spec.layers == 0  # asked by nobody, or has no attention
            outputs[spec.name] = _outputs(self, spec, loaded[spec.name], () if silent else tuple(importance))
        return loaded, outputs

    def profile(self, importance: Sequence[str], prune: PruneRule) -> LiveProfile:
        """The profile of all models on the whole validation split.

        importance: the options ("last", "mean") that some system of the session reads; empty: none. prune: the
        cascade's rule, for outputs on pruned text.
        """
        task, zoo = self.task, self.zoo
        loaded, outputs = self.outputs(importance)
        curves = _latency_curves(self, loaded, outputs)
        in_batches = batch_curves(self, loaded, outputs, curves) if self.batches[-1] > 1 else {}
        models = {}
        for spec in zoo.models:
            model = ModelProfile(spec.name, spec.params, spec.layers, latency=curves[spec.name], **outputs[spec.name])
            if in_batches:
                moved = drift(self, next(iter(loaded[spec.name].values())), model.logits)
                model = replace(model, in_batches=in_batches[spec.name], drift=moved)
            models[spec.name] = model.at_batch(self.batches[-1])
        hashes = [spec.content_hash for spec in zoo.models]
        key = content_key(task.content_hash, hashes, engine_key(self.engine), self.seed)
        self.memo["pruned"] = PrunedRunner(
            prune=prune,
            queries=task.queries,
            models={name: next(iter(variants.values())) for name, variants in loaded.items()},
            importance={name: model.importance for name, model in models.items()},
            folder=self.cache_dir / "pruned" / key,
            seed=self.seed,
        )
        return LiveProfile(
            task=task.name,
            metric=task.config.metric,
            n_outputs=task.n_outputs,
            rows=np.arange(len(task.queries)),
            labels=task.labels("validation"),
            models=models,
            seed=self.seed,
            lab=self,
        )


def _outputs(
    lab: Lab, spec: ModelSpec, variants: dict[str | None, Model], importance: tuple[str, ...]
) -> dict[str, Any]:
    """The fields of a ModelProfile besides latency, from the cache or run now."""
    key = content_key(
        lab.task.content_hash,
        spec.content_hash,
        spec.label_order,
        spec.scale,
        spec.max_length,
        importance,
        engine_key(lab.engine) | ({"host": rounding.VERSION} if spec.layers == 0 else {}),
    )

    def build(folder: Path) -> None:
        np.savez(folder / "outputs.npz", **_run(lab.task.queries, spec.name, variants, importance))

    with np.load(cached(lab.cache_dir / "outputs" / key, build) / "outputs.npz") as stored:
        arrays = dict(stored)
    ragged = {o: Ragged(arrays.pop(f"{o}_values"), arrays.pop(f"{o}_offsets")) for o in importance}
    return {**arrays, "importance": ragged}


def _run(queries: list[Query], name: str, variants: dict, importance: tuple[str, ...]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for option in importance or (next(iter(variants)),):
        model, results, encodings = variants[option], [], []
        for query in progress(queries, desc=f"profile {name}", unit="query"):
            encodings.append(model.encode(query.texts))
            results.append(model.forward(encodings[-1], want_importance=bool(importance)))
        if importance:
            ragged = Ragged.of([result.importance for result in results])
            arrays |= {f"{option}_values": ragged.values, f"{option}_offsets": ragged.offsets}
    arrays["logits"] = np.stack([result.logits for result in results]).astype(np.float32)
    arrays["tokens"] = np.array([encoding.n_tokens for encoding in encodings])
    arrays["truncated"] = np.array([encoding.truncated for encoding in encodings])
    if results[0].pooled is not None:
        arrays["pooled"] = np.stack([result.pooled for result in results])
    return arrays


def _latency_curves(lab: Lab, loaded: Variants, outputs: dict[str, dict[str, Any]]) -> dict[str, LatencyCurve]:
    """Times encode + forward of every model at every length, interleaved, on real queries of about that length."""
    queries, engine, rounds = lab.task.queries, lab.engine, lab.rounds
    cells = []  # (model, with importance, index of length, calls in a row, texts)
    lengths, rows = {}, {}
    for name, variants in loaded.items():
        tokens = outputs[name]["tokens"]
        lengths[name] = np.array(engine.lengths(int(tokens.max())))
        model = next(iter(variants.values()))
        block = BLOCK if model.spec.layers else HOST_BLOCK
        rows[name] = _rows(tokens, lengths[name], engine.pads, (rounds + 1) * block)
        samples = [[queries[row].texts for row in some] for some in rows[name]]
        for text in chain.from_iterable(samples):  # or the model that meets a word first would pay for it
            model.encode(text)
        for kind in (False, True) if outputs[name]["importance"] else (False,):
            cells += [(name, kind, i, block, model, texts) for i, texts in enumerate(samples)]
    with lab.exclusive():
        times = _time_cells(cells, rounds)
    curves = {}
    for name, grid in lengths.items():
        plain = np.array([times[name, False, i] for i in range(len(grid))])
        with_importance = np.array([times.get((name, True, i), plain[i]) for i in range(len(grid))])
        if not engine.pads:
            grid = np.array([outputs[name]["tokens"][some].mean() for some in rows[name]])
        curves[name] = _curve(grid, plain, with_importance, engine.pads)
    return curves


def _curve(lengths: np.ndarray, ms: np.ndarray, ms_importance: np.ndarray, step: bool) -> LatencyCurve:
    """Lengths without queries of their own are sampled by the same neighbours; the curve keeps distinct lengths."""
    distinct, first = np.unique(lengths, return_index=True)
    return LatencyCurve(distinct, ms[first], ms_importance[first], step)


def _rows(tokens: np.ndarray, grid: np.ndarray, pads: bool, calls: int) -> list[np.ndarray]:
    """Per length of `grid` the rows that stand for it: of its bucket, spread evenly, or of about its length.

    As many as there are `calls`, where there are so many: few texts over and over would find their words and
    embeddings in the processor's caches, as serving does not.
    """
    chosen = []
    for shorter, length in zip([0, *grid[:-1]], grid, strict=True):
        bucket = np.flatnonzero((tokens > shorter) & (tokens <= length))
        if pads and len(bucket):
            chosen.append(bucket[np.linspace(0, len(bucket) - 1, min(calls, len(bucket))).astype(int)])
            continue
        away = np.abs(tokens - length)
        nearest = np.argsort(away, kind="stable")[:calls]
        chosen.append(np.concatenate([nearest[:FEW], nearest[FEW:][away[nearest[FEW:]] <= HARDLY]]))
    return chosen


def _time_cells(cells: list[tuple], rounds: int) -> dict[tuple, float]:
    """Median milliseconds per cell, in blocks as in serving: a model that others displaced from the caches is not slow.

    Every round visits all cells once, so that drift falls on all alike; the first round warms up.
    """
    taken: dict[tuple, list[float]] = {}
    with device.quiet_collector():
        for number in range(rounds + 1):
            for name, kind, index, block, model, texts in cells:
                for call in range(block):
                    text = texts[(number * block + call) % len(texts)]
                    start = perf_counter()
                    model.forward(model.encode(text), want_importance=kind)
                    if number and call >= block // 5:
                        taken.setdefault((name, kind, index), []).append(1e3 * (perf_counter() - start))
    return {key: float(np.median(values)) for key, values in taken.items()}
