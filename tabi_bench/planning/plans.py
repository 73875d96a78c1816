"""All plans of a session: each method's operating points, what has none, and the plain rule beside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from tabi_bench.config import Config
from tabi_bench.evaluation.metrics import score
from tabi_bench.planning.folds import examine, folds_of, plan_folds, replay
from tabi_bench.planning.plan_file import texts_of
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import Infeasible, Plan, PlanError, System

log = logging.getLogger(__name__)


@dataclass
class Plans:
    """made: by method; infeasible: why a method has no plan; seconds: of planning, by method.

    plain: by method, what it would yield under search.margin_se=0, replayed; None where it has no such plan.
    """

    made: dict[str, Plan] = field(default_factory=dict)
    infeasible: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    plain: dict[str, dict[str, Any] | None] = field(default_factory=dict)


def make_plans(
    config: Config,
    systems: Mapping[str, type[System]],
    profile: Profile,
    fingerprint: dict[str, Any],
    given: dict[str, Plan],
) -> Plans:
    """Plans every method of the session, but those `given`. Raises Unreachable where no model reaches the target."""
    plans = Plans()
    folds = folds_of(profile, config, config.search.margin_se)
    for name, system in systems.items():
        start = perf_counter()
        if name in given:
            plans.made[name] = given[name]
            continue
        try:
            chosen = plan_folds(system, folds, config.systems[name])
        except Infeasible as reason:
            log.warning("%s: %s", name, reason)
            plans.infeasible[name] = str(reason)
            continue
        if system.searched:
            examine(chosen, folds, profile, config, config.systems[name])
        plans.made[name] = Plan(name, profile.task, chosen, config.seed, fingerprint, asdict(config.systems[name]))
        plans.seconds[name] = perf_counter() - start
        log.info("%s: planned in %.1f s", name, plans.seconds[name])
    plans.made = {name: systems[name].tell(plan, profile, plans.made) for name, plan in plans.made.items()}
    _refuse_silence(plans.made, profile)
    if config.search.margin_se and not given:
        plans.plain = _plain_rule(config, systems, profile)
    return plans


def _refuse_silence(plans: Mapping[str, Plan], profile: Profile) -> None:
    """Refuses plans that serve rows on which each of their models fails. Raises PlanError."""
    fails = {name: ~model.answered for name, model in profile.models.items()}
    for method, plan in plans.items():
        for fold in plan.folds:
            asked = [name for name in fails if name in set(texts_of(fold.point))]
            rows = slice(None) if fold.serves is None else np.isin(profile.rows, fold.serves)
            silent = int(np.all([fails[name][rows] for name in asked], axis=0).sum()) if asked else 0
            if silent:
                raise PlanError(
                    f"{method}: on {silent} rows that it serves none of {', '.join(asked)} gives a finite output; try "
                    "engine.dtype=float32, or leave the model out with zoo.models"
                )


def _plain_rule(
    config: Config, systems: Mapping[str, type[System]], profile: Profile
) -> dict[str, dict[str, Any] | None]:
    """What each method would yield under margin_se=0: score, latency_ms and its reduction_pct against the first's."""
    folds = folds_of(profile, config, 0.0)
    results: dict[str, dict[str, Any] | None] = {}
    reference: float | None = None
    for name, system in systems.items():
        try:
            plan = Plan(name, profile.task, plan_folds(system, folds, config.systems[name]), config.seed, {})
        except Infeasible:
            results[name] = None
            continue
        outcomes = replay(system, plan, profile)
        latency = float(outcomes.latency_ms.mean())
        reference = latency if reference is None else reference
        results[name] = {
            "score": score(profile.metric, profile.labels, outcomes.labels),
            "latency_ms": latency,
            "reduction_pct": 100 * (1 - latency / reference),
        }
    return results
