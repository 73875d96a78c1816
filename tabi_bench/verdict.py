"""Does a cascade pay here? One sentence, from a session's records or from traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabi_bench.names import printed
from tabi_bench.planning.plausible import MEANINGLESS
from tabi_bench.records.record import Record

NEAR, RANKS = 1.5, 0.6  # ratio of latencies and AUROC below which a small model has nothing to offer


def verdict(session: Sequence[Record]) -> str | None:
    """The sentence on the first searched cascade of a session; None where there is none that was measured."""
    measured = [r for r in session if r.status == "ok"]
    cascade = next((r for r in measured if "levels" in r.config["method"]), None)
    if cascade is None or cascade.reference["method"] == cascade.method:
        return None
    if any(MEANINGLESS in warning for warning in cascade.warnings):
        return "Not decided: the warnings above the table say why its numbers mean nothing."
    points = cascade.details["system"]["folds"]
    reference = next((r for r in measured if r.method == cascade.reference["method"]), None)
    alone = _alone(reference)
    if not any(len(point["models"]) > 1 for point in points):
        single = points[0]["models"][0]
        reason = why_not(cascade.details["zoo"]["models"], single, cascade.details.get("small_level"))
        return f"Do not cascade: no pair meets the target in less time than {single} alone; {reason}."
    ref, tried = cascade.reference, described(points)
    score = {"met": "meets", "within noise": "is within the noise of"}.get(cascade.outcome or "", "misses")
    if cascade.outcome == "missed":
        return f"Do not cascade by this plan: {tried} misses the target on rows that it was not tuned on."
    saved = reduction(ref["reduction_pct"], ref["reduction_low"], ref["reduction_high"])
    low, high = ref["reduction_low"], ref["reduction_high"]
    if low is None or high is None or low <= 0 <= high:
        advice = "measure more queries (scenario.min_queries) on a quiet machine"
        return f"Not decided: {tried} takes {saved} than {alone}; {advice}."
    if high < 0:
        return f"Do not cascade: {tried} takes {saved} than {alone}."
    return f"A cascade pays here: {tried}, {saved} than {alone}, at a score that {score} the target."


def _alone(reference: Record | None) -> str:
    """The reference, by the model that it runs where it is one."""
    if reference is None:
        return "the reference"
    points = reference.details.get("system", {}).get("folds", [])
    models = {name for point in points for name in point.get("models", [])}
    return f"{models.pop()} alone" if len(models) == 1 else printed(reference.method)


def described(points: Sequence[dict[str, Any]]) -> str:
    """Operating points in words: their models, and where each re-routes; halves of a session may differ."""
    taus: dict[str, list[str]] = {}
    for point in points:
        limits = ", then below ".join(f"{tau:.2f}" for tau in point["taus"])
        taus.setdefault(" before ".join(point["models"]), []).append(limits)
    parts = [f"{names}, re-route below {' / '.join(dict.fromkeys(limits))}" for names, limits in taus.items()]
    return " or ".join(part if " before " in part else f"{part.split(',')[0]} alone" for part in parts)


def reduction(percent: float, low: float | None, high: float | None) -> str:
    """A reduction of mean latency and its interval in words; of more time, both turned round."""
    kind = "less" if percent >= 0 else "more"
    ends = [] if low is None or high is None else sorted([low, high] if percent >= 0 else [-low, -high])
    interval = f" [{ends[0]:.0f}, {ends[1]:.0f}]" if ends else ""
    return f"{abs(percent):.0f} %{interval} {kind} time"


def why_not(models: Sequence[dict[str, Any]], single: str, small_level: dict[str, Any] | None) -> str:
    """What stands in the way of a cascade before `single`: models hold name, score and mean_ms, as in a record."""
    own = next(model for model in models if model["name"] == single)
    faster = [model for model in models if model["mean_ms"] < own["mean_ms"]]
    if not faster:
        return "it is the fastest model that there is"
    best = max(faster, key=lambda model: model["score"])
    ratio = own["mean_ms"] / min(model["mean_ms"] for model in faster)
    if ratio < NEAR:
        return f"the ratio of costs is too small (it takes only {ratio:.1f} times as long as the fastest)"
    if small_level is not None and small_level["auroc_right"] < RANKS:
        auroc = f"AUROC {small_level['auroc_right']:.2f}"
        return f"the confidence of {small_level['model']} does not rank right above wrong ({auroc})"
    return f"the smaller models are too weak ({best['name']} scores {best['score']:.3f}, {single} {own['score']:.3f})"
