"""Controls: what routing is worth, from below (random) and from above (oracle), and the measurement's own noise.

Random and oracle stand on Tabi's plan (its own search, or one done for them alone) and change only who is re-routed.
`reference_again` serves a session's reference a second time: any difference between the two is noise (A/A).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import ControlConfig
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.planning.folds import replay
from tabi_bench.planning.tabi import Tabi
from tabi_bench.planning.targets import Target, least_rerouting
from tabi_bench.profiling.profile import Profile
from tabi_bench.records.record import Record
from tabi_bench.system import FoldPlan, Plan, Predicted, System

from .common import shares_of


def tabi_plan(profile: Profile, target: Target, options: ControlConfig) -> FoldPlan:
    """Tabi's plan on the rows of `profile`; the controls of one session search once. Raises Unreachable."""
    key = (options.stands_on, profile.rows.tobytes(), target.margin_se, target.value, repr(options.cascade))
    return profile.once(key, lambda: Tabi.plan(profile, target, options.cascade))


class RandomRouting(Cascade):
    """Tabi's models, pruning and ensemble, but queries are re-routed at random, in Tabi's shares."""

    name = "random"

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: ControlConfig) -> FoldPlan:
        """Each tau is the share of the queries seen by its level that Tabi re-routes on tune. Raises Unreachable."""
        tabi = tabi_plan(profile, target, options)
        taus = onward_shares(tabi.predicted["shares"])
        point = replace(Point(**tabi.point), dispatcher="random", taus=taus)
        return replace(tabi, point=point.plain(), predicted=_replayed(point, profile, profile.rows))


def onward_shares(shares: list[float]) -> list[float]:
    """(L - 1,) of the queries that a level saw, the share that it passed on; shares: (L,) returned by each level."""
    seen = np.cumsum(shares[::-1])[::-1]
    return [float(later / now) if now > 0 else 0.0 for now, later in pairwise(seen)]


class Oracle(Cascade):
    """Tabi's pair on full text, without ensemble; a table made from the labels says which queries to re-route.

    The least latency at which any dispatcher over this pair could reach Tabi's score. Tabi may still beat it through
    the ensemble of both models: `conclude` says whether the score was reached.
    """

    name = "oracle"

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: ControlConfig) -> FoldPlan:
        """Tabi's own plan, until `tell`. Raises Unreachable."""
        return tabi_plan(profile, target, options)

    @classmethod
    def tell(cls, plan: Plan, profile: Profile, plans: Mapping[str, Plan]) -> Plan:
        """Each fold's pair with its table: the one place where labels decide an answer.

        The score to reach is that of the session's Tabi on all rows, or of Tabi as planned here.
        """
        tabi = replay(Tabi, plans.get(Tabi.name, plan), profile)
        goal = score(profile.metric, profile.labels, tabi.labels)
        fold = plan.fold_of(profile.rows)
        small, large, cost_ms = (np.empty(len(fold)) for _ in range(3))
        pairs = [on_full_text(Point(**served.point)) for served in plan.folds]
        for k, pair in enumerate(pairs):
            rows, first, last = fold == k, *(profile.models[pair.models[level]] for level in (0, -1))
            small[rows], large[rows] = (predictions_from(model.logits[rows]) for model in (first, last))
            cost_ms[rows] = last.latency(last.tokens[rows]) + profile.overhead_ms
        chosen, _ = least_rerouting(profile.metric, profile.labels, small, large, cost_ms, goal)
        routed = [
            replace(pair, reroute=profile.rows[chosen[fold[chosen] == k]].tolist()) for k, pair in enumerate(pairs)
        ]
        folds = [
            replace(served, point=point.plain(), predicted=_replayed(point, profile, np.asarray(served.serves)))
            for served, point in zip(plan.folds, routed, strict=True)
        ]
        return replace(plan, folds=folds, options={**plan.options, "score_to_reach": goal})

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """`score_to_reach`: Tabi's, on all rows, by the profile; the table itself is in the plan."""
        return {**super().describe(plan, trace), "score_to_reach": plan.options["score_to_reach"]}

    @classmethod
    def conclude(cls, own: Record, session: Mapping[str, Record]) -> None:
        """Tabi's share of the reduction that routing by labels reached, and how far that went."""
        system = own.details["system"]
        system["reached"] = own.accuracy["value"] >= system["score_to_reach"] - 1e-9
        if Tabi.name not in session:
            return
        tabi, best = (record.reference["reduction_pct"] for record in (session[Tabi.name], own))
        note = "routing alone reaches Tabi's score"
        if not system["reached"]:
            note = "routing alone does not reach Tabi's score: the remainder comes from its ensemble"
        elif tabi > best:
            note = "Tabi is faster than routing alone at its score: pruning or the ensemble outdo it"
        system |= {"tabi_reduction_pct": tabi, "share": tabi / best if best > 0 else None}
        share = "" if system["share"] is None else f"Tabi has {system['share']:.0%} of its reduction; "
        system["remarks"] = [f"{share}{note}"]


def _replayed(point: Point, profile: Profile, rows: np.ndarray) -> Predicted:
    """What the point yields on some rows."""
    positions = profile.at(rows)
    outcomes = replay_point(point, profile, positions)
    return {
        "score": score(profile.metric, profile.labels[positions], outcomes.labels),
        "latency_ms": float(outcomes.latency_ms.mean()),
        "shares": shares_of(outcomes.levels, len(point.models)),
    }


def on_full_text(tabi: Point) -> Point:
    """The first and the last model of a point, both on full text, the last one's answer alone, routed by a table."""
    models = list(dict.fromkeys([tabi.models[0], tabi.models[-1]]))
    if len(models) == 1:
        return Point.of_one(models[0])
    temperatures, weights = ([values[0], values[-1]] for values in (tabi.temperatures, tabi.weights))
    return Point(models, temperatures, weights, taus=[0.5], alphas=[0.0], dispatcher="table", seed=tabi.seed)


class ReferenceAgain(System):
    """The session's reference once more: planned alike, answered by models loaded for it alone."""

    name = "reference_again"

    @classmethod
    def beside(cls, reference: type[System]) -> type[System]:
        """The reference's class under this name, sharing no model with it."""
        return type(cls.__name__, (reference,), {"name": cls.name, "alone": True, "__doc__": cls.__doc__})
