"""Whether a session's numbers can mean anything: said above its table and in its records."""

from __future__ import annotations

import numpy as np

from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.evaluation.statistics import difference_se
from tabi_bench.profiling.profile import Profile

MEANINGLESS = "A reduction of latency means nothing here"
ERRORS = 2.0  # standard errors by which some model must beat a constant answer


def constant_answer(profile: Profile) -> np.ndarray:
    """(N,) the most frequent label, or the mean score, on every row."""
    if profile.is_regression:
        return np.full(len(profile.labels), profile.labels.mean())
    return np.full(len(profile.labels), np.bincount(profile.labels).argmax())


def implausible(profile: Profile, target: float | None = None) -> list[str]:
    """Sentences; none where some model beats the constant answer by two standard errors (paired, on all rows), which
    is below the target, and all outputs are finite."""
    constant = constant_answer(profile)
    base = score(profile.metric, profile.labels, constant)
    failed = {name: int((~model.answered).sum()) for name, model in profile.models.items()}
    lines = [
        f"{name} gives no finite output on {rows} of {len(profile.labels)} rows, which count as wrong."
        for name, rows in failed.items()
        if 0 < rows < len(profile.labels)
    ]
    if weak := _no_better_than(constant, base, profile):
        return lines + weak  # a target below such models is no news
    if target is not None and target <= base:
        lines.append(
            f"The target, {profile.metric} {target:.4f}, is met without looking at the text ({base:.4f}). "
            f"{MEANINGLESS}: lower target.slack, or set target.kind=absolute."
        )
    return lines


def _no_better_than(constant: np.ndarray, base: float, profile: Profile) -> list[str]:
    best, beats = "", -np.inf
    for name, model in profile.models.items():
        predictions = predictions_from(model.logits)
        gain = score(profile.metric, profile.labels, predictions) - base
        error = difference_se(profile.metric, profile.labels, predictions, constant, seed=profile.seed)
        if gain > ERRORS * error:
            return []
        if gain > beats:
            best, beats = name, gain
    kind = "the mean score" if profile.is_regression else "the most frequent label"
    return [
        f"No model beats {kind} on every row ({profile.metric} {base:.4f}) by two standard errors; the best, {best}, "
        f"has {base + beats:.4f}. {MEANINGLESS}: train longer, or choose other models."
    ]
