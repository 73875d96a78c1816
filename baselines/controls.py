"""Controls of the cascade: what its routing is worth, from below (random) and from above (oracle).

Both stand on the plan of Tabi (its own search, or one done for them alone) and change only who is re-routed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import CascadeConfig, ControlConfig
from tabi_bench.evaluation.metrics import score
from tabi_bench.evaluation.targets import Target, predictions_of
from tabi_bench.system import FoldPlan, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.zoo.base import Zoo

_planned: deque[tuple[Profile, Target, CascadeConfig, FoldPlan]] = deque(maxlen=2)  # of the two folds of a session


def tabi_plan(profile: Profile, target: Target, options: CascadeConfig) -> FoldPlan:
    """Tabi's plan on the rows of `profile`; `random` and `oracle` of one session search once. Raises Unreachable."""
    for known, goal, chosen, plan in _planned:
        if known is profile and goal is target and chosen == options:
            return plan
    plan = Cascade.plan(profile, target, options)
    _planned.append((profile, target, options, plan))
    return plan


class RandomRouting(Cascade):
    """Tabi's models, pruning and ensemble, but queries are re-routed at random, in Tabi's shares."""

    name = "random"

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: ControlConfig) -> FoldPlan:
        """Each tau is the share of the queries seen by its level that Tabi re-routes on tune. Raises Unreachable."""
        tabi = tabi_plan(profile, target, options.cascade)
        taus = onward_shares(tabi.predicted["shares"])
        point = replace(Point(**tabi.point), dispatcher="random", taus=taus)
        outcomes = replay_point(point, profile, np.arange(len(profile.rows)))
        predicted = {
            "score": target.score(outcomes.labels),
            "latency_ms": float(outcomes.latency_ms.mean()),
            "shares": _shares(outcomes.levels, len(point.models)),
            "tabi": tabi.predicted,
        }
        return replace(tabi, point=point.plain(), predicted=predicted)


def onward_shares(shares: list[float]) -> list[float]:
    """(L - 1,) of the queries that a level saw, the share that it passed on; shares: (L,) returned by each level."""
    seen = np.cumsum(shares[::-1])[::-1]
    return [float(later / now) if now > 0 else 0.0 for now, later in pairwise(seen)]


def _shares(levels: np.ndarray, count: int) -> list[float]:
    return (np.bincount(levels, minlength=count) / len(levels)).tolist()


@dataclass(frozen=True)
class Told(Point):
    """A point whose dispatcher is told beforehand which queries to re-route."""

    told: frozenset[int] = frozenset()
    by_largest = False  # but by the table

    def confidence_of(
        self, level: int, output: np.ndarray, pooled: np.ndarray | None, ids: np.ndarray | int
    ) -> np.ndarray:
        """0 for the queries to re-route, 1 for all others."""
        if np.ndim(ids) == 0:
            return np.float64(ids not in self.told)
        return np.array([row not in self.told for row in np.asarray(ids).tolist()], np.float64)


class Oracle(Cascade):
    """Tabi's pair on full text, without ensemble; a table made from the labels says which queries to re-route.

    The least latency at which any dispatcher over this pair could reach Tabi's score. Its plan is Tabi's own. Tabi may
    still beat it through the ensemble of both models: `describe` says whether the score was reached.
    """

    name = "oracle"

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: ControlConfig) -> FoldPlan:
        """Raises Unreachable, and PlanError for more than two levels."""
        if options.cascade.levels > 2:
            raise PlanError(f"levels={options.cascade.levels}: the oracle routes between two models; set 2")
        plan = tabi_plan(profile, target, options.cascade)
        return replace(plan, predicted={"tabi": plan.predicted})

    @classmethod
    def decide(cls, plan: Plan, profile: Profile, plans: Mapping[str, Plan]) -> dict[str, Any]:
        """{"reroute": row numbers, "score": of Tabi, "reached": bool}: the one place where labels decide an answer.

        plans: of the session. The score to reach is that of its Tabi on all rows, or of Tabi as planned here.
        """
        tabi = Cascade.replay(plans.get("tabi", plan), profile, profile.rows)
        goal = score(profile.metric, profile.labels, tabi.labels)
        fold = plan.fold_of(profile.rows)
        small, large, cost_ms = (np.empty(len(fold)) for _ in range(3))
        for k, served in enumerate(plan.folds):
            mine, (first, *_), last = fold == k, served.point["models"], served.point["models"][-1]
            small[mine], large[mine] = (predictions_of(profile.models[m].logits[mine]) for m in (first, last))
            cost_ms[mine] = profile.models[last].latency(profile.models[last].tokens[mine]) + profile.overhead_ms
        chosen, reached = least_rerouting(profile.metric, profile.labels, small, large, cost_ms, goal)
        return {"reroute": profile.rows[chosen].tolist(), "score": goal, "reached": reached}

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: Any, table: dict[str, Any] | None = None) -> Oracle:
        """table: what `decide` found. Raises PlanError without one."""
        if table is None:
            raise PlanError("the oracle answers by a table made from the labels; pass table=Oracle.decide(...)")
        pairs = on_full_text(plan)
        system = super().deploy(pairs, zoo, engine, options)
        system.serve_by(_told(pairs, table))
        system.table = table
        return system

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray, table: dict[str, Any] | None = None) -> Outcomes:
        """What `answer` says on validation rows (N,) by `table`, made anew for the whole profile if it is not given."""
        points = _told(on_full_text(plan), table or cls.decide(plan, profile, {}))
        at, fold = profile.at(rows), plan.fold_of(rows)
        parts = [replay_point(point, profile, at[fold == k]) for k, point in enumerate(points)]
        back = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in range(len(points))]), kind="stable")
        names = ("rows", "labels", "levels", "latency_ms", "words_kept_share", "borderline")
        return Outcomes(**{name: np.concatenate([getattr(part, name) for part in parts])[back] for name in names})

    def describe(self) -> Mapping[str, Any]:
        """`reached`: whether routing alone reached Tabi's score; if not, Tabi has the rest from its ensemble."""
        return {**super().describe(), "score_to_reach": self.table["score"], "reached": self.table["reached"]}


def least_rerouting(
    metric: str, labels: np.ndarray, small: np.ndarray, large: np.ndarray, cost_ms: np.ndarray, goal: float
) -> tuple[np.ndarray, bool]:
    """The cheapest positions to answer by `large` instead of `small` until the score is `goal`, and whether it is.

    All (N,). Only answers that get better are candidates: wrong ones that become right, cheapest first; for scores
    (pearson) those that come closer, by squared error saved per millisecond. If all of them do not suffice, all.
    """
    if metric == "pearson":
        gain = (small - labels) ** 2 - (large - labels) ** 2
        rank = -gain / cost_ms
    else:
        gain = (large == labels) * 1.0 - (small == labels)
        rank = cost_ms
    better = np.flatnonzero(gain > 0)
    order = better[np.argsort(rank[better], kind="stable")]
    target = Target("absolute", goal, 0.0, metric, 0.0, labels, "", small)
    count = target.first_met(small, large, order, np.arange(len(order) + 1))
    return order[:count], count is not None


def on_full_text(plan: Plan) -> Plan:
    """The plan with the first and the last model of every fold, both on full text, the last one's answer alone."""
    folds = []
    for fold in plan.folds:
        tabi = Point(**fold.point)
        models = list(dict.fromkeys([tabi.models[0], tabi.models[-1]]))
        at = [tabi.models.index(name) for name in models]
        pair = Point(models, [tabi.temperatures[k] for k in at], [tabi.weights[k] for k in at], seed=tabi.seed)
        pair = replace(pair, taus=[0.5], alphas=[0.0]) if len(models) > 1 else pair
        folds.append(replace(fold, point=pair.plain()))
    return replace(plan, folds=folds)


def _told(pairs: Plan, table: dict[str, Any]) -> list[Told]:
    told = frozenset(table["reroute"])
    return [Told(**fold.point, told=told) for fold in pairs.folds]
