"""Builds a Profile: runs every model of a zoo over the validation queries, and times it by length.

Outputs come from the engine call that serving makes (batch 1, same bucket), and are cached by the content of model,
data and engine. Latencies are measured anew each time, with all models interleaved.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from tabi_bench import device
from tabi_bench.cache import cached, content_key
from tabi_bench.engines import rounding
from tabi_bench.engines.base import Engine, Model
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile, Ragged
from tabi_bench.profiling.pruned import PrunedRunner, PruneRule
from tabi_bench.tasks.base import Query, Task
from tabi_bench.zoo.base import ModelSpec, Zoo

log = logging.getLogger(__name__)
BLOCK = 5  # calls of one cell in a row; the first fifth of a block is not counted
HOST_BLOCK = 40  # of a model on the host: its tables' rows and code return to the processor's caches in tens of calls
FEW, HARDLY = 8, 2  # texts that stand for a length, and pieces by which more of them may differ from it


def engine_key(engine: Engine) -> dict[str, str]:
    """What of an engine can change a model's outputs."""
    import torch

    return {
        "engine": engine.name,
        "dtype": engine.dtype,
        "device": engine.device.split(":")[0],
        "torch": torch.__version__,
    }


def build_profile(
    task: Task,
    zoo: Zoo,
    engine: Engine,
    cache_dir: Path,
    importance: Sequence[str],
    prune: PruneRule,
    seed: int,
    rounds: int,
) -> Profile:
    """The profile of all models of `zoo` on the whole validation split of `task`.

    importance: the options ("last", "mean") that some system of the session reads; empty: none. prune: the cascade's
    rule, for outputs on pruned text. rounds: over all models and lengths, when they are timed.
    """
    loaded, outputs = run_models(task, zoo, engine, cache_dir, importance)
    curves = _latency_curves(task.queries, loaded, outputs, engine, rounds)
    models = {
        spec.name: ModelProfile(spec.name, spec.params, spec.layers, latency=curves[spec.name], **outputs[spec.name])
        for spec in zoo.models
    }
    key = content_key(task.content_hash, [spec.content_hash for spec in zoo.models], engine_key(engine), seed)
    runner = PrunedRunner(
        prune=prune,
        queries=task.queries,
        models={name: next(iter(variants.values())) for name, variants in loaded.items()},
        importance={name: model.importance for name, model in models.items()},
        folder=cache_dir / "pruned" / key,
        n_outputs=task.n_outputs,
        seed=seed,
    )
    return Profile(
        task=task.name,
        metric=task.config.metric,
        n_outputs=task.n_outputs,
        rows=np.arange(len(task.queries)),
        labels=task.labels("validation"),
        words=np.array([sum(len(text.split()) for text in query.texts) for query in task.queries]),
        models=models,
        run_pruned=runner,
        seed=seed,
    )


def run_models(
    task: Task, zoo: Zoo, engine: Engine, cache_dir: Path, importance: Sequence[str]
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Every model, loaded (by importance option), and its outputs on the validation rows, from the cache or run now."""
    loaded = {spec.name: _load(engine, spec, task, importance) for spec in zoo.models}
    outputs = {}
    for spec in zoo.models:
        silent = spec is zoo.models[-1] or spec.layers == 0  # asked by nobody, or has no attention
        wanted = () if silent else tuple(importance)
        outputs[spec.name] = _outputs(task, spec, loaded[spec.name], engine, cache_dir, wanted)
    return loaded, outputs


def _load(engine: Engine, spec: ModelSpec, task: Task, importance: Sequence[str]) -> dict[str | None, Model]:
    """The model once per importance option (once, without any, if there is none)."""
    return {option: engine.load(spec, importance=option, pooled=task.is_regression) for option in importance or (None,)}


def _outputs(
    task: Task, spec: ModelSpec, variants: dict, engine: Engine, cache_dir: Path, importance: tuple[str, ...]
) -> dict:
    """The fields of a ModelProfile besides latency, from the cache or run now."""
    key = content_key(
        task.content_hash,
        spec.content_hash,
        spec.label_order,
        spec.scale,
        spec.max_length,
        importance,
        engine_key(engine) | ({"host": rounding.VERSION} if spec.layers == 0 else {}),
    )

    def build(folder: Path) -> None:
        np.savez(folder / "outputs.npz", **_run(task.queries, spec.name, variants, importance))

    with np.load(cached(cache_dir / "outputs" / key, build) / "outputs.npz") as stored:
        arrays = dict(stored)
    ragged = {o: Ragged(arrays.pop(f"{o}_values"), arrays.pop(f"{o}_offsets")) for o in importance}
    return {**arrays, "importance": ragged}


def _run(queries: list[Query], name: str, variants: dict, importance: tuple[str, ...]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for option in importance or (next(iter(variants)),):
        model, results, encodings = variants[option], [], []
        for query in tqdm(queries, desc=f"profile {name}", unit="query", disable=None, leave=False):
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


def _latency_curves(
    queries: list[Query], loaded: dict, outputs: dict, engine: Engine, rounds: int
) -> dict[str, LatencyCurve]:
    """Times encode + forward of every model at every length, interleaved, on real queries of about that length."""
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
    with device.exclusive(device.describe(engine.device)["id"], log):
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
    found = []
    for shorter, length in zip([0, *grid[:-1]], grid, strict=True):
        bucket = np.flatnonzero((tokens > shorter) & (tokens <= length))
        if pads and len(bucket):
            found.append(bucket[np.linspace(0, len(bucket) - 1, min(calls, len(bucket))).astype(int)])
            continue
        away = np.abs(tokens - length)
        nearest = np.argsort(away, kind="stable")[:calls]
        found.append(np.concatenate([nearest[:FEW], nearest[FEW:][away[nearest[FEW:]] <= HARDLY]]))
    return found


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
