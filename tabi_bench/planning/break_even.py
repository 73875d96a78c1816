"""When a cascade pays: the re-route share above which it loses to its large model, and the targets at which it wins.

From the profile alone: full text, weighted ensemble, plain rule, in-sample. It shows what is there to be found.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.profiling.profile import Profile

SHARES = np.linspace(0, 1, 51)
TOLERANCE = 1e-12


def break_even(profile: Profile) -> pd.DataFrame:
    """One row per pair of models: small, large, share, above, upto.

    share: of re-routed queries above which the cascade is slower than the large model alone (below 0: always). It wins,
    faster than any single model for the target, at some targets in (above, upto]; NaN if at none, and for regression.
    """
    singles = [
        (model.mean_ms, score(profile.metric, profile.labels, predictions_from(model.logits)))
        for model in profile.models.values()
    ]
    curves = None if profile.is_regression else pairs(profile)
    lines = []
    for small, large in combinations(profile.names, 2):
        first, second = (profile.models[name].mean_ms for name in (small, large))
        line = {"small": small, "large": large, "share": break_even_share(first, second, profile.overhead_ms)}
        curve = [] if curves is None else curves[(curves.small == small) & (curves.large == large)]
        above, upto = winning_targets(curve, singles) if len(curve) else (np.nan, np.nan)
        lines.append(line | {"above": above, "upto": upto})
    return pd.DataFrame(lines, columns=["small", "large", "share", "above", "upto"])


def break_even_share(small_ms: float, large_ms: float, overhead_ms: float = 0.0) -> float:
    """r* at which small + r (large + overhead) = large, all mean milliseconds; 1 where the cascade wins at any share.

    overhead: less than nothing where levels share more (tokens) than dispatching and combining cost.
    """
    saved, paid = large_ms - small_ms, large_ms + overhead_ms
    return 1.0 if paid <= saved else saved / paid


def winning_targets(curve: pd.DataFrame, singles: list[tuple[float, float]]) -> tuple[float, float]:
    """(above, upto) of the targets at which some point of `curve` (score, mean_ms) is faster than any single model.

    singles: (ms, score) of each. A point wins at targets that it meets and no single model as fast as it meets; targets
    beyond the best single model count for nobody.
    """
    highest = max(value for _, value in singles)
    won = []
    for reached, ms in zip(curve.score, curve.mean_ms, strict=True):
        rival = max((value for single_ms, value in singles if single_ms <= ms), default=-np.inf)
        if min(reached, highest) > rival + TOLERANCE:
            won.append((rival, min(reached, highest)))
    return (min(low for low, _ in won), max(high for _, high in won)) if won else (np.nan, np.nan)


def pairs(profile: Profile) -> pd.DataFrame:
    """Every pair at thresholds that re-route 0, 2, ..., 100 %: small, large, share, score, mean_ms."""
    outputs, weights = {}, {}
    for name, model in profile.models.items():
        outputs[name] = outputs_of(model.logits, fit_temperature(model.logits, profile.labels))
        weights[name] = vote_weight(model.logits, profile.labels)
    curves = [_pair(profile, small, large, outputs, weights) for small, large in combinations(outputs, 2)]
    columns = ["small", "large", "share", "score", "mean_ms"]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def _pair(profile: Profile, small: str, large: str, outputs: dict, weights: dict) -> pd.DataFrame:
    order = np.argsort(rules.confidence(outputs[small]), kind="stable")
    predictions = predictions_from(outputs[small]).copy()
    both = predictions_from(rules.combine([outputs[small], outputs[large]], [weights[small], weights[large]]))
    first, second = (profile.models[name] for name in (small, large))
    extra = second.latency(second.tokens)[order] + profile.overhead_ms
    later = np.concatenate([[0.0], np.cumsum(extra)]) / len(order)
    points = []
    for share in SHARES:
        k = round(share * len(order))
        predictions[order[:k]] = both[order[:k]]
        value = score(profile.metric, profile.labels, predictions)
        line = {"small": small, "large": large, "share": share, "score": value}
        points.append(line | {"mean_ms": first.mean_ms + later[k]})
    return pd.DataFrame(points)
