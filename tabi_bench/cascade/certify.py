"""Certification: with probability 1 - delta, the cascade spoils at most epsilon of what its large model answers right.

Learn then Test (Angelopoulos et al., 2021): the risk P(cascade wrong and full-text large right) of a sequence of
thresholds, from re-routing everything down to the plan's own, is tested by fixed-sequence testing with exact binomial
p-values. The sequence is fixed by the plan, the rows are used for nothing else. This is not the accuracy target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.cascade.rules import ALWAYS
from tabi_bench.evaluation.targets import predictions_of
from tabi_bench.tasks.folds import two_folds

if TYPE_CHECKING:
    from tabi_bench.config import CertifyConfig
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.system import FoldPlan

HALVINGS = 10  # of the doubt 1 - tau, between the plan's thresholds and re-routing everything
APART = 0.5  # scores: how far the cascade's may lie from the large model's
MOST_ROWS = 200_000


def set_apart(labels: np.ndarray, half: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows `half` (positions) in two: to tune on, and to certify on. labels: (N,) of all rows."""
    tune, held = two_folds(labels[half], seed)
    return half[tune], half[held]


def sequence(point: Point) -> list[Point]:
    """The points to test, safest first, the plan's own last: all thresholds rise together as their doubt halves."""
    if not point.taus or min(point.taus) >= ALWAYS:
        return [point]
    doubts = [0.5**k for k in range(HALVINGS, -1, -1)]
    steps = [[1 - doubt * (1 - tau) if tau < 1 else tau for tau in point.taus] for doubt in doubts[:-1]]
    return [replace(point, taus=taus) for taus in [[ALWAYS] * len(point.taus), *steps, point.taus]]


def losses(points: list[Point], held: Profile) -> np.ndarray:
    """(J, n) bool: does each point spoil each row of `held`? Of scores: is it more than 0.5 from the large model's?"""
    large = predictions_of(held.models[points[0].models[-1]].logits)
    said = np.stack([replay_point(point, held, np.arange(len(held.rows))).labels for point in points])
    if held.is_regression:
        return np.abs(said - large) > APART
    return (said != held.labels) & (large == held.labels)


def p_value(spoilt: int, n: int, epsilon: float) -> float:
    """Exact p that the risk is above epsilon, `spoilt` of n rows: P(Bin(n, epsilon) <= spoilt)."""
    return float(binom.cdf(spoilt, n, epsilon))


def fixed_sequence(spoilt: np.ndarray, n: int, delta: float, epsilon: float) -> int:
    """How many of the tests, in order, reject at level delta before the first that does not. spoilt: (J,) counts."""
    failed = [p_value(int(k), n, epsilon) > delta for k in spoilt]
    return failed.index(True) if any(failed) else len(failed)


def rows_needed(delta: float, epsilon: float, rate: float = 0.0) -> int | None:
    """The fewest rows that certify if a share `rate` of them is spoilt; None if no number (up to 200,000) does."""
    if rate >= epsilon:
        return None
    n = np.arange(1, 1 + int(min(MOST_ROWS, 100 * np.log(1 / delta) * epsilon / (epsilon - rate) ** 2 + 10)))
    enough = binom.cdf(np.ceil(rate * n), n, epsilon) <= delta
    return int(n[enough.argmax()]) if enough.any() else None


def certify(fold: FoldPlan, held: Profile, options: CertifyConfig) -> dict[str, Any]:
    """What can be certified of a plan on rows that nothing else used.

    {certified: of the plan's own thresholds, n, spoilt, p: of them, taus, share: the least re-routing certified or
    None, needs: rows to certify the plan at the rate seen, or None, says}.
    """
    points = sequence(Point(**fold.point))
    bad, n = losses(points, held), len(held.rows)
    alone = len(points[0].models) == 1  # then nobody is re-routed, and its answers are the large model's own
    passed = len(points) if alone else fixed_sequence(bad.sum(axis=1), n, options.delta, options.epsilon)
    spoilt, found = int(bad[-1].sum()), {"n": n, "delta": options.delta, "epsilon": options.epsilon}
    found |= {"certified": passed == len(points), "spoilt": spoilt, "p": p_value(spoilt, n, options.epsilon)}
    found |= {"taus": None, "share": None, "needs": rows_needed(options.delta, options.epsilon, spoilt / n)}
    if passed:
        least = points[passed - 1]
        levels = replay_point(least, held, np.arange(n)).levels
        found |= {"taus": least.taus, "share": float((levels > 0).mean())}
    return found | {"says": "certified: one level, the large model itself" if alone else _says(found)}


def _says(found: dict[str, Any]) -> str:
    risk = f"at most {found['epsilon']:g} spoilt, confidence {1 - found['delta']:g}"
    if found["certified"]:
        return f"certified on {found['n']} rows ({risk})"
    seen = f"{found['spoilt']} of {found['n']} rows spoilt"
    if found["needs"] is None:
        why = f"cannot certify ({risk}): {seen}, and no number of rows would do at this rate"
    else:
        why = f"cannot certify ({risk}): {seen}; it needs {found['needs']} rows per fold at this rate"
    return f"{why}. Certified is re-routing {found['share']:.0%}" if found["taus"] else why
