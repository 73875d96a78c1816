"""An operating point's decisions on profiled rows, vectorised: the second driver of the rules in `rules.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.point import Point
from tabi_bench.profiling.profile import Pruned, PruneKey
from tabi_bench.system import Outcomes

if TYPE_CHECKING:
    from tabi_bench.profiling.profile import Profile


def replay_point(point: Point, profile: Profile, positions: np.ndarray) -> Outcomes:
    """What a cascade at `point` answers on rows (N,) of `profile`, and its predicted latency."""
    n, band = len(positions), profile.band(rules.BAND, positions)
    outputs = np.full((len(point.models), n, profile.n_outputs), np.nan)  # of levels that a row passed
    combined, levels = np.full((n, profile.n_outputs), np.nan), np.zeros(n, np.int64)
    latency_ms, kept, borderline = np.zeros(n), np.ones(n), np.zeros(n, bool)
    alive = np.arange(n)
    for level, name in enumerate(point.models):
        read = _read(point, profile, level, positions[alive])
        latency_ms[alive] += profile.models[name].latency(read.tokens, importance=point.wants_importance(level))
        if level > 0:
            latency_ms[alive] += profile.level_ms(point.alphas[level - 1] > 0)
        kept[alive] = read.kept_share
        borderline[alive] |= read.borderline
        outputs[level, alive] = outputs_of(read.logits, point.temperatures[level])
        answered = np.isfinite(read.logits).all(axis=1)
        combined[alive[answered]] = point.combine_rows(list(outputs[: level + 1, alive[answered]]))
        levels[alive[answered]] = level
        if level + 1 < len(point.models):
            sure = np.full(len(alive), np.nan)
            pooled = None if read.pooled is None else read.pooled[answered]
            ids = profile.rows[positions[alive[answered]]]
            sure[answered] = point.confidence_of(level, combined[alive[answered]], pooled, ids)
            tau = point.taus[level]
            borderline[alive] |= (np.abs(sure - tau) < band) & (tau != rules.NEVER)
            alive = alive[rules.reroute(sure, tau)]
    borderline |= rules.tied(combined, band)
    return Outcomes(profile.rows[positions], rules.label_of(combined), levels, latency_ms, kept, borderline)


def first_confidences(point: Point, profile: Profile) -> np.ndarray:
    """(n,) what the first level compares with its threshold on those rows where its output is finite."""
    model = profile.models[point.models[0]]
    answered = model.answered
    outputs = outputs_of(model.logits[answered], point.temperatures[0])
    if len(point.models) == 1:
        return rules.confidence(outputs)
    pooled = None if model.pooled is None else model.pooled[answered]
    return point.confidence_of(0, outputs, pooled, profile.rows[answered])


def _read(point: Point, profile: Profile, level: int, positions: np.ndarray) -> Pruned:
    """The level's outputs on what it reads of the rows at `positions`: pruned or full text."""
    name = point.models[level]
    if level > 0 and point.alphas[level - 1] > 0 and len(positions):
        small = point.models[point.source(level)]
        key = PruneKey(small, name, point.alphas[level - 1], point.importance, point.pruning)
        return profile.pruned(key, positions)
    model, n = profile.models[name], len(positions)
    pooled = None if model.pooled is None else model.pooled[positions]
    return Pruned(model.logits[positions], model.tokens[positions], np.ones(n), np.zeros(n, bool), pooled)
