"""What follows from a session's profile and Tabi's plan without running a model: thresholds, break-even, calibration.

All on full text, as a stored profile has no outputs on pruned text. Routing of score tasks needs the models' pooled
vectors, which are not stored: for them there is None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.point import Point
from tabi_bench.config import read_file
from tabi_bench.evaluation.calibration import auroc, ece, reliability
from tabi_bench.evaluation.deferral import area, deferral_curve, oracle_curve, random_curve
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.planning.break_even import pairs
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.profile import Profile
from tabi_bench.registry import lookup
from tabi_bench.system import Infeasible, Plan, Unreachable

GRID = 101  # thresholds per curve
SLACKS = (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1)  # below the best single model


def routed(profile: Profile, plan: Plan) -> pd.DataFrame | None:
    """One row per query, each under the plan of its fold: the first and the last level's answers on full text.

    Columns: row, fold, label, small, both (the ensemble's answer), raw (confidence at T = 1), confidence, small_ms,
    large_ms; levels: how many levels the plan has (with one, `both` repeats `small`).
    """
    if profile.is_regression:
        return None
    parts = [_fold(profile, fold, k) for k, fold in enumerate(plan.folds)]
    return pd.concat(parts).sort_values("row", ignore_index=True)


def _fold(profile: Profile, fold: Any, number: int) -> pd.DataFrame:
    rows = profile.rows if fold.serves is None else np.asarray(fold.serves)
    at, point = profile.at(rows), fold.point
    small, large = (profile.models[point["models"][level]] for level in (0, -1))
    first = outputs_of(small.logits[at], point["temperatures"][0])
    levels = [first, outputs_of(large.logits[at], point["temperatures"][-1])]
    ends = [[point[field][0], point[field][-1]] for field in ("models", "temperatures", "weights")]
    both = Point(*ends, ensemble=point["ensemble"], share=point.get("share", 0.5)).combine_rows(levels)
    several = len(point["models"]) > 1
    columns = {
        "row": rows,
        "fold": number,
        "label": profile.labels[at],
        "small": predictions_from(first),
        "both": predictions_from(both if several else first),
        "raw": rules.confidence(outputs_of(small.logits[at], 1.0), point["confidence"]),
        "confidence": rules.confidence(first, point["confidence"]),
        "small_ms": small.latency(small.tokens[at]),
        "large_ms": large.latency(large.tokens[at]) if several else 0.0,
        "levels": len(point["models"]),
    }
    return pd.DataFrame(columns)


def oracle_share(profile: Profile, tabi: Plan, infaas: Plan) -> float | None:
    """Tabi's predicted reduction of mean latency as a share of the oracle's at Tabi's score, both replayed.

    None where routing by labels is no faster than INFaaS (one model is the plan), and where Tabi prunes or routes by
    what a stored profile lacks.
    """
    oracle = lookup("method", "oracle")
    try:
        told = oracle.decide(tabi, profile, {"tabi": tabi})
        ours = lookup("method", "tabi").replay(tabi, profile, profile.rows).latency_ms.mean()
    except LookupError:
        return None
    best = oracle.replay(tabi, profile, profile.rows, told).latency_ms.mean()
    reference = lookup("method", "infaas").replay(infaas, profile, profile.rows).latency_ms.mean()
    return float((reference - ours) / (reference - best)) if best < reference * (1 - 1e-9) else None


def threshold_curve(metric: str, queries: pd.DataFrame) -> pd.DataFrame:
    """tau against share (re-routed), score and mean_ms, at quantiles of the confidence. queries: from `routed`."""
    taus = np.unique(np.nanquantile(queries.confidence, np.linspace(0, 1, GRID)))
    found = []
    for tau in [*taus, np.nextafter(taus[-1], 2.0)]:
        on = rules.reroute(queries.confidence.to_numpy(), tau)
        said = np.where(on, queries.both, queries.small)
        mean_ms = float((queries.small_ms + on * queries.large_ms).mean())
        found.append({"tau": tau, "share": on.mean(), "score": score(metric, queries.label, said), "mean_ms": mean_ms})
    return pd.DataFrame(found)


def calibration(queries: pd.DataFrame) -> dict[str, Any]:
    """Of level 1's confidence: ece_before (T = 1), ece_after, auroc, and the bins of both (evaluation/calibration)."""
    right = (queries.small == queries.label).to_numpy()
    return {
        "n": len(right),
        "ece_before": ece(queries.raw, right),
        "ece_after": ece(queries.confidence, right),
        "auroc": auroc(queries.confidence, right),
        "bins": pd.concat({w: reliability(queries[c], right) for w, c in (("before", "raw"), ("after", "confidence"))}),
    }


def deferral(queries: pd.DataFrame) -> dict[str, Any]:
    """Accuracy against the share that goes on to the last level: curves (N + 1,) by order, and their areas."""
    small, both = (queries[c] == queries.label for c in ("small", "both"))
    curves = {
        "confidence": deferral_curve(queries.confidence.to_numpy(), small, both),
        "oracle": oracle_curve(small, both),
        "random": random_curve(small, both),
    }
    return {"curves": curves, "areas": {order: area(curve) for order, curve in curves.items()}}


# --- break-even -------------------------------------------------------------------------------------------------------


def break_even(profile: Profile) -> pd.DataFrame:
    """Target against the least predicted mean latency (ms) of every kind of system: infaas, cocktail, cascade.

    One row per slack below the best single model; NaN where a kind has no point that meets the target. In-sample, by
    the plain rule: it shows what is there to be found, not what a plan would reach on other queries. The cascade is
    the best pair at any threshold, full text, weighted ensemble.
    """
    singles = {n: score(profile.metric, profile.labels, predictions_from(m.logits)) for n, m in profile.models.items()}
    cascades = None if profile.is_regression else pairs(profile)
    found = []
    for slack in SLACKS:
        target = max(singles.values()) - slack
        alone = {profile.models[n].mean_ms: n for n, value in singles.items() if value >= target}
        line = {"slack": slack, "target": target, "infaas_ms": min(alone), "infaas": alone[min(alone)]}
        line |= {"cocktail_ms": _cocktail_ms(profile, target), "cascade_ms": np.nan, "cascade": None}
        if cascades is not None:
            meeting = cascades[cascades.score >= target - 1e-12]
            if len(meeting):
                best = meeting.loc[meeting.mean_ms.idxmin()]
                line |= {"cascade_ms": best.mean_ms, "cascade": f"{best.small} > {best.large}"}
        found.append(line)
    return pd.DataFrame(found)


def _cocktail_ms(profile: Profile, target: float) -> float:
    """Latency in parallel of Cocktail's ensemble for a target; NaN where there is none."""
    cocktail = lookup("method", "cocktail")
    try:
        goal = Target.of(profile, "absolute", target - 1e-12, 0.0, margin_se=0.0)
        return cocktail.plan(profile, goal, read_file("method", "cocktail")).predicted["latency_ms"]
    except (Infeasible, Unreachable):
        return float("nan")
