"""One model answers everything: the model that INFaaS would choose for a target, or any that you name.

INFaaS (Romero et al., ATC 2021) picks a model variant per application from its profiled accuracy and latency; as in the
Tabi paper, what remains of it for one application is the fastest single model that meets the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.common import Points, best, between_labels, decide, fold_plan, full_text, predictions, said
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.race import race
from tabi_bench.config import InfaasConfig, SingleConfig
from tabi_bench.system import Answer, FoldPlan, Infeasible, Outcomes, Plan, PlanError, Unreachable, ask

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine, Model
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query
    from tabi_bench.zoo.base import Zoo


class OneModel:
    """Answers with the model of the query's fold. Its point: {"model": name}."""

    name = "single"

    def __init__(self, points: Points, models: dict[str, Model]) -> None:
        self.points = points
        self.models = models

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: Any) -> OneModel:
        """Loads the model of each fold once."""
        names = sorted({fold.point["model"] for fold in plan.folds})
        return cls(Points(plan), {name: engine.load(zoo[name]) for name in names})

    def answer(self, query: Query) -> Answer:
        """Raises NonFiniteOutput: with one level there is nobody to re-route to."""
        name = self.points[query.id]["model"]
        encoding, output, stages = ask(self.models[name], query)
        return Answer(said(output, name, query.id), 0, truncated=encoding.truncated, stages_ns=stages)

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,), from profiled logits."""
        at, fold = profile.at(rows), plan.fold_of(rows)
        labels = np.empty(len(rows), np.float64 if profile.n_outputs == 1 else np.int64)
        latency_ms, borderline = np.empty(len(rows)), np.zeros(len(rows), bool)
        for k, served in enumerate(plan.folds):
            mine, model = fold == k, profile.models[served.point["model"]]
            labels[mine] = decide(model.logits[at[mine]])
            latency_ms[mine] = model.latency(model.tokens[at[mine]])
            borderline[mine] = between_labels(model.logits[at[mine]])
        return full_text(rows, labels, latency_ms, borderline=borderline)

    def describe(self) -> Mapping[str, Any]:
        return {"models": list(self.models)}


class Infaas(OneModel):
    """The fastest single model that meets the target, and `slo_ms` where it is given."""

    name = "infaas"

    @classmethod
    def plan(cls, profile: Profile, target: Any, options: InfaasConfig) -> FoldPlan:
        """Fastest: by profiled mean latency on these rows, then in a race of those that are about as fast.

        Raises Unreachable, or Infeasible under `slo_ms`.
        """
        answers = predictions(profile)
        meeting = [name for name, labels in answers.items() if target.meets(labels)]
        if not meeting:
            raise Unreachable(
                f"{profile.task}: no single model meets the target {target.value:.4f} with its margin; best on tune: "
                f"{best(profile, answers)}. Lower target.value, raise target.slack or set search.margin_se=0"
            )
        ranked = sorted((profile.models[name].mean_ms, name) for name in meeting)
        mean_ms, name = ranked[0]
        if options.slo_ms is not None and mean_ms > options.slo_ms:
            raise Infeasible(
                f"{profile.task}: the fastest model that meets the target, {name}, takes {mean_ms:.3f} ms, more than "
                f"method.slo_ms={options.slo_ms}"
            )
        fast = [(ms, name) for ms, name in ranked if options.slo_ms is None or ms <= options.slo_ms]
        kept, raced = race(profile, [(ms, Point([name], [1.0], [1.0])) for ms, name in fast])
        mean_ms, name = fast[kept]
        plan = fold_plan(profile, target, {"model": name}, answers[name], mean_ms)
        plan.predicted["race"] = raced
        return plan


class Single(OneModel):
    """The model that you name, whether or not it meets the target."""

    @classmethod
    def check(cls, options: SingleConfig, names: list[str]) -> None:
        """Raises PlanError for a model that the zoo does not have."""
        _named(options.model, names)

    @classmethod
    def plan(cls, profile: Profile, target: Any, options: SingleConfig) -> FoldPlan:
        """Raises PlanError for a model that the zoo does not have."""
        name = _named(options.model, profile.names)
        model = profile.models[name]
        return fold_plan(profile, target, {"model": name}, decide(model.logits), model.mean_ms)


def _named(model: str, names: list[str]) -> str:
    """The model by name, or by position from either end."""
    if model in names:
        return model
    try:
        return names[int(model)]
    except (ValueError, IndexError):
        choices = f"one of {', '.join(names)}, or a position from 0 (smallest) to {len(names) - 1}; -1 is the largest"
        raise PlanError(f"method.model={model!r} is no model of this zoo; choose {choices}") from None
