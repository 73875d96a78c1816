"""One model answers everything: the model that INFaaS would choose for a target, or any that you name.

INFaaS (Romero et al., ATC 2021) picks a model variant per application from its profiled accuracy and latency; as in the
Tabi paper, what remains of it for one application is the fastest single model that meets the target. Both planners here
choose an operating point of the one-level cascade: the code that answers is Tabi's.
"""

from __future__ import annotations

import numpy as np

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import InfaasConfig, SingleConfig
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import FoldPlan, Infeasible, PlanError, Unreachable

from .common import best, fold_plan, predictions


def one_model(profile: Profile, target: Target, name: str) -> FoldPlan:
    """The plan that answers everything with the model `name`."""
    model = profile.models[name]
    labels = predictions(profile)[name]
    return fold_plan(profile, target, Point.of_one(name).plain(), labels, model.mean_ms)


def _failing(profile: Profile) -> str:
    names = [name for name, model in profile.models.items() if not np.isfinite(model.logits).all()]
    return f" {', '.join(names)} gave outputs that are not finite: leave them out with zoo.models." if names else ""


class Infaas(Cascade):
    """The fastest single model that meets the target, and `slo_ms` where it is given."""

    name = "infaas"

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: InfaasConfig) -> FoldPlan:
        """Fastest by profiled mean latency on these rows. Raises Unreachable, or Infeasible under `slo_ms`.

        A model that failed on some row does not count: there is no other to ask.
        """
        labels = predictions(profile)
        sound = [name for name, model in profile.models.items() if np.isfinite(model.logits).all()]
        meeting = [(profile.models[name].mean_ms, name) for name in sound if target.meets(labels[name])]
        if not meeting:
            raise Unreachable(
                f"{profile.task}: no single model meets the target {target.value:.4f} with its margin; best on tune: "
                f"{best(profile, labels)}.{_failing(profile)} Lower target.value, raise target.slack or set "
                "search.margin_se=0"
            )
        mean_ms, name = min(meeting)
        if options.slo_ms is not None and mean_ms > options.slo_ms:
            raise Infeasible(
                f"{profile.task}: the fastest model that meets the target, {name}, takes {mean_ms:.3f} ms, more than "
                f"slo_ms={options.slo_ms}"
            )
        return one_model(profile, target, name)


class Single(Cascade):
    """The model that you name, whether or not it meets the target."""

    name = "single"

    @classmethod
    def check(cls, options: SingleConfig, models: list[str]) -> None:
        """Raises PlanError for a model that the zoo does not have."""
        _named(options.model, models)

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: SingleConfig) -> FoldPlan:
        """Raises PlanError for a model that the zoo does not have."""
        return one_model(profile, target, _named(options.model, profile.names))


def _named(model: str, names: list[str]) -> str:
    """The model by name, or by position from either end."""
    if model in names:
        return model
    try:
        return names[int(model)]
    except (ValueError, IndexError):
        choices = f"one of {', '.join(names)}, or a position from 0 (smallest) to {len(names) - 1}; -1 is the largest"
        raise PlanError(f"model={model!r} is no model of this zoo; choose {choices}") from None
