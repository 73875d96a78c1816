"""Certification: with probability 1 - delta, the cascade spoils at most epsilon of what its large model answers right.

Learn then Test (Angelopoulos et al., 2021): the risk P(cascade wrong and full-text large right) at several thresholds,
from re-routing everything down to the plan's own, is tested by fixed-sequence testing with exact binomial p-values. The
plan and the order come from tune rows, the rows of the test are used for nothing else. This is not the accuracy target.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.cascade.rules import ALWAYS
from tabi_bench.config import CertifyConfig
from tabi_bench.evaluation.metrics import predictions_from
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import FoldPlan
from tabi_bench.tasks.folds import two_folds

HALVINGS = 10  # of the doubt 1 - tau, between the plan's thresholds and re-routing everything
APART = 0.5  # scores: how far the cascade's may lie from the large model's
MOST_ROWS = 200_000


def set_apart(labels: np.ndarray, half: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows `half` (positions) in two: to tune on, and to certify on. labels: (N,) of all rows."""
    tune, held = two_folds(labels[half], seed)
    return half[tune], half[held]


def family(point: Point) -> list[Point]:
    """The points to test, the plan's own last: all its thresholds rise together as their doubt halves."""
    if not point.taus or min(point.taus) >= ALWAYS:
        return [point]
    doubts = [0.5**k for k in range(HALVINGS, -1, -1)]
    steps = [[1 - doubt * (1 - tau) if tau < 1 else tau for tau in point.taus] for doubt in doubts[:-1]]
    return [replace(point, taus=taus) for taus in [[ALWAYS] * len(point.taus), *steps, point.taus]]


def losses(points: list[Point], held: Profile) -> np.ndarray:
    """(J, n) bool: does each point spoil each row of `held`? Of scores: is it more than 0.5 from the large model's?"""
    large = predictions_from(held.models[points[0].models[-1]].logits)
    predictions = np.stack([replay_point(point, held, np.arange(len(held.rows))).labels for point in points])
    if held.is_regression:
        return np.abs(predictions - large) > APART
    return (predictions != held.labels) & (large == held.labels)


def p_value(spoilt: int, n: int, epsilon: float) -> float:
    """Exact p that the risk is above epsilon, `spoilt` of n rows: P(Bin(n, epsilon) <= spoilt)."""
    return float(binom.cdf(spoilt, n, epsilon))


def fixed_sequence(spoilt: np.ndarray, n: int, delta: float, epsilon: float) -> int:
    """How many of the tests, in order, reject at level delta before the first that does not. spoilt: (J,) counts."""
    failed = [p_value(int(k), n, epsilon) > delta for k in spoilt]
    return failed.index(True) if any(failed) else len(failed)


def rows_needed(delta: float, epsilon: float, rate: float = 0.0, above: int = 0) -> int | None:
    """The fewest rows, more than `above`, that certify if a share `rate` is spoilt; None: not even 200,000 do."""
    if rate >= epsilon:
        return None
    n = np.arange(above + 1, MOST_ROWS)
    for part in np.array_split(n, 100):
        enough = binom.cdf(np.ceil(rate * part - 1e-9), part, epsilon) <= delta
        if enough.any():
            return int(part[enough.argmax()])
    return None


def certify(fold: FoldPlan, tuned: Profile, held: Profile, options: CertifyConfig) -> dict[str, Any]:
    """What can be certified of a plan made on the rows `tuned`, on the rows `held` that nothing else used.

    {certified: whether it is the plan itself, n, spoilt: rows by the plan, most: by any point tested up to it, taus,
    share: the least re-routing certified or None, needs: rows that would certify the plan at this rate, or None, says}.
    Points are tested in the order of their risk on `tuned`, of equals the safest first.
    """
    assert options.epsilon is not None, "else there is nothing to certify"
    points, n = family(Point(**fold.point)), len(held.rows)
    alone = len(points[0].models) == 1  # then nobody is re-routed, and its answers are the large model's own
    order = np.argsort(losses(points, tuned).mean(axis=1), kind="stable")
    spoilt = losses(points, held).sum(axis=1)
    passed = len(points) if alone else fixed_sequence(spoilt[order], n, options.delta, options.epsilon)
    own = int(np.flatnonzero(order == len(points) - 1)[0])  # when the plan's turn comes
    most = int(spoilt[order[: own + 1]].max())
    facts: dict[str, Any] = {**asdict(options), "certified": passed > own, "n": n, "most": most}
    facts |= {"spoilt": int(spoilt[-1]), "taus": None, "share": None, "needs": None}
    if not facts["certified"]:
        facts["needs"] = rows_needed(options.delta, options.epsilon, most / n, above=n)
    if passed:
        shares = [float((replay_point(points[k], held, np.arange(n)).levels > 0).mean()) for k in order[:passed]]
        facts |= {"taus": points[order[int(np.argmin(shares))]].taus, "share": min(shares)}
    return facts | {"says": "certified: one level, the large model itself" if alone else _says(facts)}


def _says(facts: dict[str, Any]) -> str:
    risk = f"at most {facts['epsilon']:g} spoilt, confidence {1 - facts['delta']:g}"
    if facts["certified"]:
        return f"certified on {facts['n']} rows ({risk})"
    seen = f"{facts['spoilt']} of {facts['n']} rows spoilt"
    if facts["most"] > facts["spoilt"]:
        seen += f", {facts['most']} at a threshold that is tested before"
    needs = "no number of rows would do" if facts["needs"] is None else f"it needs {facts['needs']} rows per fold"
    least = "" if facts["share"] is None else f"; certified is re-routing {facts['share']:.0%}"
    return f"cannot certify ({risk}): {seen}; {needs} at this rate{least}"
