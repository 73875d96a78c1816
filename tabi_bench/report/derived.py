"""What follows from a session's profile and Tabi's plan without running a model: thresholds, break-even, calibration.

All on full text, as a stored profile has no outputs on pruned text. Routing of score tasks needs the models' pooled
vectors, which are not stored: for them there is None.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.cascade.point import Point
from tabi_bench.evaluation.calibration import auroc, ece, reliability
from tabi_bench.evaluation.deferral import area, deferral_curve, oracle_curve, random_curve
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.planning.targets import least_rerouting
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import Plan

GRID = 61  # thresholds per curve
SHARES = np.linspace(0, 1, 51)  # re-routed, of a pair
SLACKS = (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1)  # below the best single model


def routed(profile: Profile, plan: Plan) -> pd.DataFrame | None:
    """One row per query, each under the plan of its fold: the first and the last level's answers on full text.

    Columns: row, fold, label, small, large, both (the ensemble's answer), raw (confidence at T = 1), confidence, tau,
    small_ms, large_ms; levels: how many levels the plan has (with one, `both` repeats `small`).
    """
    if profile.is_regression:
        return None
    folds = plan.fold_of(profile.rows)
    parts = [_fold(profile, np.flatnonzero(folds == k), Point(**fold.point), k) for k, fold in enumerate(plan.folds)]
    return pd.concat(parts).sort_values("row", ignore_index=True)


def _fold(profile: Profile, at: np.ndarray, point: Point, number: int) -> pd.DataFrame:
    small, large = (profile.models[point.models[level]] for level in (0, -1))
    outputs = [outputs_of(m.logits[at], point.temperatures[level]) for m, level in ((small, 0), (large, -1))]
    several = len(point.models) > 1
    pair = replace(point, weights=[point.weights[0], point.weights[-1]])
    both = pair.combine_rows(outputs) if several else outputs[0]
    columns = {
        "row": profile.rows[at],
        "fold": number,
        "label": profile.labels[at],
        "small": predictions_from(outputs[0]),
        "large": predictions_from(outputs[1]),
        "both": predictions_from(both),
        "raw": rules.confidence(outputs_of(small.logits[at], 1.0), point.confidence),
        "confidence": rules.confidence(outputs[0], point.confidence),
        "tau": point.taus[0] if several else 0.0,
        "small_ms": small.latency(small.tokens[at]),
        "large_ms": large.latency(large.tokens[at]) if several else 0.0,
        "levels": len(point.models),
    }
    return pd.DataFrame(columns)


def threshold_curve(metric: str, queries: pd.DataFrame) -> pd.DataFrame:
    """tau against share (re-routed), score and mean_ms, at quantiles of the confidence. queries: from `routed`."""
    taus = np.unique(np.nanquantile(queries.confidence, np.linspace(0, 1, GRID)))
    points = []
    for tau in [*taus, np.nextafter(taus[-1], 2.0)]:
        on = np.asarray(rules.reroute(queries.confidence.to_numpy(), tau))
        value = score(metric, queries.label, np.where(on, queries.both, queries.small))
        mean_ms = float((queries.small_ms + on * queries.large_ms).mean())
        points.append({"tau": tau, "share": on.mean(), "score": value, "mean_ms": mean_ms})
    return pd.DataFrame(points)


def calibration(queries: pd.DataFrame) -> dict[str, Any]:
    """Of level 1's confidence: ece_before (T = 1), ece_after, auroc, and the bins of both (evaluation/calibration)."""
    right = (queries.small == queries.label).to_numpy()
    return {
        "n": len(right),
        "ece_before": ece(queries.raw, right),
        "ece_after": ece(queries.confidence, right),
        "auroc": auroc(queries.confidence, right),
        "bins": pd.concat(
            {"before": reliability(queries.raw, right), "after": reliability(queries.confidence, right)},
            names=["when", "bin"],
        ),
    }


def deferral(queries: pd.DataFrame) -> dict[str, np.ndarray]:
    """Accuracy against the share handed to the large model: curves (N + 1,) by order of queries."""
    small, both = (queries[c] == queries.label for c in ("small", "both"))
    return {
        "oracle": oracle_curve(small, both),
        "confidence": deferral_curve(queries.confidence.to_numpy(), small, both),
        "random": random_curve(small, both),
    }


def of_oracle(queries: pd.DataFrame) -> float | None:
    """Of the area between the oracle's and the random curve the share below confidence's; None where there is none."""
    areas = {order: area(curve) for order, curve in deferral(queries).items()}
    span = areas["oracle"] - areas["random"]
    return (areas["confidence"] - areas["random"]) / span if span > 0 else None


def of_oracle_reduction(queries: pd.DataFrame, metric: str, alone_ms: float) -> float | None:
    """A plan's reduction of mean latency against `alone_ms`, as a share of what re-routing by labels would save.

    The labels re-route wrong answers that the last level puts right, the cheapest first, until the plan's own score is
    reached. None where that saves nothing.
    """
    labels, small, large = (queries[column].to_numpy() for column in ("label", "small", "large"))
    routed = rules.reroute(queries.confidence.to_numpy(), queries.tau.to_numpy()) & (queries.levels > 1)
    goal = score(metric, labels, np.where(routed, queries.both, small))
    spent = (queries.small_ms + routed * queries.large_ms).mean()
    chosen, _ = least_rerouting(metric, labels, small, large, queries.large_ms.to_numpy(), goal)
    least = queries.small_ms.mean() + queries.large_ms.iloc[chosen].sum() / len(queries)
    return float((alone_ms - spent) / (alone_ms - least)) if alone_ms > least else None


def break_even(profile: Profile) -> pd.DataFrame:
    """Target against the least predicted mean latency (ms) of one model and of two levels.

    One row per slack below the best single model; NaN where no pair meets the target. In-sample, by the plain rule: it
    shows what is there to be found, not what a plan would reach on other queries. The cascade is the best pair at any
    threshold, full text, weighted ensemble.
    """
    singles = {n: score(profile.metric, profile.labels, predictions_from(m.logits)) for n, m in profile.models.items()}
    cascades = pd.DataFrame(columns=["score", "mean_ms"]) if profile.is_regression else pairs(profile)
    lines = []
    for slack in SLACKS:
        target = max(singles.values()) - slack
        alone = {profile.models[n].mean_ms: n for n, value in singles.items() if value >= target}
        line = {"slack": slack, "target": target, "single_ms": min(alone), "single": alone[min(alone)]}
        line |= {"cascade_ms": np.nan, "cascade": None}
        meeting = cascades[cascades.score >= target - 1e-12]
        if len(meeting):
            best = meeting.loc[meeting.mean_ms.idxmin()]
            line |= {"cascade_ms": best.mean_ms, "cascade": f"{best.small} > {best.large}"}
        lines.append(line)
    return pd.DataFrame(lines)


def pairs(profile: Profile) -> pd.DataFrame:
    """Every pair at thresholds that re-route 0, 2, ..., 100 %: small, large, share, score, mean_ms."""
    outputs, weights = {}, {}
    for name, model in profile.models.items():
        outputs[name] = outputs_of(model.logits, fit_temperature(model.logits, profile.labels))
        weights[name] = vote_weight(model.logits, profile.labels)
    curves = [_pair(profile, small, large, outputs, weights) for small, large in combinations(outputs, 2)]
    return pd.DataFrame(chain.from_iterable(curves), columns=["small", "large", "share", "score", "mean_ms"])


def _pair(profile: Profile, small: str, large: str, outputs: dict, weights: dict) -> list[dict[str, Any]]:
    """One point of the curve for each of SHARES."""
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
    return points
