"""Two-fold cross-fitting, driven in one place: each half of the rows is served by what was tuned on the other half."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tabi_bench.config import Config
from tabi_bench.planning.certify import certify, set_apart
from tabi_bench.planning.search import verify
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.lab import Lab
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import FoldPlan, Outcomes, Plan, System
from tabi_bench.tasks.folds import two_folds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One way to split the rows. tune, held, serves: positions; held: what only certification sees, if asked for."""

    tune: np.ndarray
    held: np.ndarray
    serves: np.ndarray
    view: Profile  # of the tune rows
    target: Target  # on these rows


def folds_of(profile: Profile, config: Config, margin_se: float) -> list[Fold]:
    """The two folds of a session. Raises Unreachable."""
    halves = two_folds(profile.labels, config.seed)
    folds = []
    for half, other in zip(halves, reversed(halves), strict=True):
        tune, held = half, half[:0]
        if config.certify.epsilon is not None:
            tune, held = set_apart(profile.labels, half, config.seed)
        view = profile.view(tune)
        folds.append(Fold(tune, held, other, view, target_on(view, config, margin_se)))
    return folds


def target_on(view: Profile, config: Config, margin_se: float) -> Target:
    """The session's target on the rows of `view`. Raises Unreachable."""
    slack = config.task.slack if config.target.slack is None else config.target.slack
    value = config.task.paper_target if config.target.kind == "paper" else config.target.value
    assert config.target.kind is not None, "chosen when the configuration was composed"
    return Target.of(view, config.target.kind, value, slack, margin_se, config.seed)


def plan_folds(system: type[System], folds: list[Fold], options: Any) -> list[FoldPlan]:
    """One operating point per fold. Raises Unreachable, Infeasible."""
    # what a fold serves are positions, which are the numbers of the rows
    return [replace(system.plan(fold.view, fold.target, options), serves=fold.serves.tolist()) for fold in folds]


def examine(plans: list[FoldPlan], folds: list[Fold], profile: Profile, config: Config, options: Any) -> None:
    """Certifies and verifies the plans of a cascade, where that is asked for."""
    for plan, fold in zip(plans, folds, strict=True):
        if config.certify.epsilon is not None:
            plan.predicted["certificate"] = certify(plan, fold.view, profile.view(fold.held), config.certify)
        if config.search.verify:
            plan.predicted["verified"] = dict(verify(fold.view, fold.target, options, plan))


def replay(system: type[System], plan: Plan, profile: Profile) -> Outcomes:
    """What the systems of `plan` answer on all rows of `profile`, each row by the operating point of its fold."""
    fold = plan.fold_of(profile.rows)
    parts = [
        system.replay(served.point, profile, profile.rows[fold == k])
        for k, served in enumerate(plan.folds)
        if (fold == k).any()
    ]
    order = np.argsort(np.concatenate([part.rows for part in parts]), kind="stable")
    names = [field.name for field in fields(Outcomes)]
    return Outcomes(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def expected_ms(system: type[System], plan: Plan, profile: Profile) -> tuple[float, float]:
    """Predicted mean milliseconds of a query alone, and of its share of a batch as the scenario serves."""
    alone, served = (replay(system, plan, known).latency_ms for known in (profile.at_batch(1), profile))
    return float(alone.mean()), float(served.mean())


def deploy(
    systems: Mapping[str, type[System]], plans: Mapping[str, Plan], lab: Lab, options: Mapping[str, Any]
) -> dict[str, list[System]]:
    """By method: the system that serves each row. Equal operating points of the same code share one system.

    A system that is to stand `alone` gets models of its own.
    """
    deployed: dict[tuple[Any, ...], System] = {}
    served = {}
    for name, plan in plans.items():
        system, by_fold = systems[name], []
        for fold in plan.folds:
            key = (system.run, json.dumps(fold.point, sort_keys=True), system.alone and name)
            if key not in deployed:
                deployed[key] = system.deploy(fold.point, lab.apart() if system.alone else lab, options[name])
            by_fold.append(deployed[key])
        rows = np.arange(len(lab.task.queries))
        served[name] = [by_fold[k] for k in plan.fold_of(rows)]
    return served
