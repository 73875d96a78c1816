"""Milliseconds per query by batch size and length, measured as in serving: tokenising included, device synchronised."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from tabi_bench import device
from tabi_bench.profiling.profile import LatencyCurve
from tabi_bench.progress import progress

if TYPE_CHECKING:
    from tabi_bench.engines.base import Model
    from tabi_bench.profiling.lab import Lab


MIXED = -1  # in place of a length: a batch of all lengths


def batch_curves(
    lab: Lab, loaded: dict[str, dict[str | None, Model]], outputs: dict[str, dict[str, Any]], alone: dict
) -> dict[str, dict[int, LatencyCurve]]:
    """By model and batch size (1: the curve `alone`), on real queries of about each length, all models interleaved."""
    cells, grids = [], {}
    for name, variants in loaded.items():
        tokens, model = outputs[name]["tokens"], next(iter(variants.values()))
        grids[name] = np.unique(np.clip(lab.engine.lengths(int(tokens.max())), None, int(tokens.max())))
        kinds = (False, True) if outputs[name]["importance"] else (False,)
        for size in lab.batches:
            samples = [_nearest(tokens, length, size) for length in grids[name]]
            texts = [[lab.task.queries[row].texts for row in rows] for rows in samples]
            cells += [(name, size, kind, i, model, t) for kind in kinds for i, t in enumerate(texts) if size > 1]
            if lab.mixed and size > 1:
                cells += [
                    (name, size, False, MIXED, model, [lab.task.queries[row].texts for row in _any(tokens, size)])
                ]
    with lab.exclusive():
        times = _time(cells, lab.rounds)
    curves: dict[str, dict[int, LatencyCurve]] = {}
    for name, grid in grids.items():
        curves[name] = {1: alone[name]}
        for size in (size for size in lab.batches if size > 1):
            plain = np.array([times[name, size, False, i] for i in range(len(grid))])
            scored = np.array([times.get((name, size, True, i), plain[i]) for i in range(len(grid))])
            curve = LatencyCurve(grid, plain, scored, lab.engine.pads)
            if (name, size, False, MIXED) in times:  # what batches of one length take, times what mixing them adds
                tokens = outputs[name]["tokens"]
                more = times[name, size, False, MIXED] / curve(tokens[_any(tokens, size)]).mean()
                curve = LatencyCurve(grid, more * plain, more * scored, lab.engine.pads)
            curves[name][size] = curve
    return curves


def _any(tokens: np.ndarray, size: int) -> np.ndarray:
    """(size,) rows spread evenly over the token counts (N,): the lengths that a batch of arrivals holds."""
    return np.argsort(tokens, kind="stable")[np.linspace(0, len(tokens) - 1, size).astype(int)]


def _nearest(tokens: np.ndarray, length: int, size: int) -> np.ndarray:
    """(size,) rows whose token counts (N,) are at most `length` and nearest to it, over again where there are few."""
    inside = np.flatnonzero(tokens <= length)
    pool = inside if len(inside) else np.arange(len(tokens))
    order = pool[np.argsort(np.abs(tokens[pool] - length), kind="stable")]
    return np.resize(order[:size], size)


def _time(cells: Sequence[tuple], rounds: int) -> dict[tuple, float]:
    """Median milliseconds per query of each cell; the first round warms up (and captures graphs)."""
    taken: dict[tuple, list[float]] = {}
    with device.quiet_collector(), progress(total=(rounds + 1) * len(cells), desc="timing", unit="batch") as bar:
        for number in range(rounds + 1):
            for name, size, kind, index, model, texts in cells:
                start = perf_counter()
                model.forward_batch([model.encode(text) for text in texts], want_importance=kind)
                ms = 1e3 * (perf_counter() - start) / size
                if number:
                    taken.setdefault((name, size, kind, index), []).append(ms)
                bar.update()
    return {key: float(np.median(values)) for key, values in taken.items()}


def drift(lab: Lab, model: Model, logits: np.ndarray) -> np.ndarray:
    """(N,) how far batches of the size served move the largest probability from that of logits (N, K) at batch one;
    infinite where they change the label. A score (K = 1) moves by itself."""
    size, moved = lab.batches[-1], np.zeros(len(logits))
    order = np.argsort([sum(map(len, query.texts)) for query in lab.task.queries], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        outputs = model.forward_batch([model.encode(lab.task.queries[row].texts) for row in rows])
        together, alone = np.stack([output.logits for output in outputs]).astype(np.float64), logits[rows]
        if logits.shape[1] == 1:
            moved[rows] = np.abs(together - alone)[:, 0]
            continue
        largest = [softmax(z.astype(np.float64), axis=1).max(axis=1) for z in (together, alone)]
        same = together.argmax(axis=1) == alone.argmax(axis=1)
        moved[rows] = np.where(same, np.abs(largest[0] - largest[1]), np.inf)
    return moved
