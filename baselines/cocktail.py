"""Cocktail-style ensembles: several models answer every query, and a class-wise weighted majority decides.

After Gunasekaran et al., NSDI 2022. Members run in parallel there, and plan and replay predict that latency (the
slowest member); `answer` runs them in series on one device. Running them concurrently on streams is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.common import NonFiniteOutput, Points, best, decide, fold_plan, full_text, predictions
from tabi_bench.config import CocktailConfig
from tabi_bench.evaluation.metrics import score
from tabi_bench.system import Answer, FoldPlan, Infeasible, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine, Model
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query
    from tabi_bench.zoo.base import Zoo


def class_weights(labels: np.ndarray, says: np.ndarray, classes: int, smoothed: bool = True) -> np.ndarray:
    """(K,) weight of a member's vote per class: (correct of class k + 1) / (n_k + 2); unsmoothed: correct / n_k."""
    n = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels[says == labels], minlength=classes)
    return (correct + 1) / (n + 2) if smoothed else correct / np.maximum(n, 1)


def vote(says: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) labels by weighted majority. says: (M, N) labels, the most accurate member first; weights: (M, K).

    Among classes with equal weight, the vote of the most accurate member that names one of them decides.
    """
    members, n = says.shape
    cast = weights[np.arange(members)[:, None], says]  # (M, N)
    totals = np.zeros((n, weights.shape[1]))
    np.add.at(totals, (np.arange(n)[None, :], says), cast)
    leads = totals[np.arange(n)[None, :], says] >= totals.max(axis=1) - 1e-12
    return says[leads.argmax(axis=0), np.arange(n)]


def combine(says: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) answers of (M, N) members' answers: the vote, or for regression (weights (M, 1)) the weighted mean."""
    if weights.shape[1] == 1:
        return (weights * says).sum(axis=0) / weights.sum()
    return vote(says, weights)


class Cocktail:
    """Point: {"members": names, the most accurate first, "weights": {name: K numbers}}."""

    name = "cocktail"

    def __init__(self, points: Points, models: dict[str, Model]) -> None:
        self.points = points
        self.models = models

    @classmethod
    def plan(cls, profile: Profile, target: Any, options: CocktailConfig) -> FoldPlan:
        """The ensemble with the least latency in parallel that meets the target, ties by fewer members.

        Raises Infeasible where none does, or where fewer than two models keep `slo_ms`.
        """
        answers = predictions(profile)
        mean_ms = {name: model.mean_ms for name, model in profile.models.items()}
        slo = options.slo_ms if options.slo_ms is not None else max(mean_ms.values())
        scores = {name: score(profile.metric, profile.labels, says) for name, says in answers.items()}
        ranked = sorted((n for n in answers if mean_ms[n] <= slo), key=lambda n: -scores[n])
        weights = {n: _weights(profile, answers[n], scores[n], options.smoothed) for n in ranked}
        subsets = [s for size in range(2, len(ranked) + 1) for s in combinations(ranked, size)]
        for members in sorted(subsets, key=lambda s: (max(mean_ms[n] for n in s), len(s))):
            labels = combine(np.stack([answers[n] for n in members]), np.stack([weights[n] for n in members]))
            if target.meets(labels):
                point = {"members": list(members), "weights": {n: weights[n].tolist() for n in members}}
                fold = fold_plan(profile, target, point, labels, max(mean_ms[n] for n in members))
                fold.predicted["serial_ms"] = sum(mean_ms[n] for n in members)
                return fold
        raise Infeasible(
            f"{profile.task}: none of {len(subsets)} ensembles of models within {slo:.3f} ms meets the target "
            f"{target.value:.4f}; the best single model has {best(profile, answers)}"
        )

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: CocktailConfig) -> Cocktail:
        """Loads every member of every fold once. Raises PlanError for a latency that cannot be measured."""
        if options.latency not in ("auto", "serial"):
            raise PlanError(f"method.latency={options.latency!r}: members run in series only; choose auto or serial")
        names = sorted({name for fold in plan.folds for name in fold.point["members"]})
        return cls(Points(plan), {name: engine.load(zoo[name]) for name in names})

    def answer(self, query: Query) -> Answer:
        """Members run in series; stages level1, level2, ... tell each one's time. A non-finite member has no vote."""
        point = self.points[query.id]
        says, weights, stages, truncated = [], [], {}, False
        for number, name in enumerate(point["members"], start=1):
            start = perf_counter_ns()
            encoding = self.models[name].encode(query.texts)
            logits = self.models[name].forward(encoding).logits
            stages[f"level{number}"] = perf_counter_ns() - start
            truncated |= encoding.truncated
            if np.isfinite(logits).all():
                says.append(decide(logits))
                weights.append(point["weights"][name])
        if not says:
            raise NonFiniteOutput(f"all members returned non-finite logits for query {query.id}")
        start = perf_counter_ns()
        label = combine(np.array(says)[:, None], np.array(weights))[0].item()
        stages["decide"] = perf_counter_ns() - start
        failures = len(point["members"]) - len(says)
        return Answer(label, 0, failures=failures, truncated=truncated, stages_ns=stages)

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,); latency of members in parallel: the slowest."""
        at, fold = profile.at(rows), plan.fold_of(rows)
        labels = np.empty(len(rows), np.float64 if profile.n_outputs == 1 else np.int64)
        latency_ms = np.empty(len(rows))
        for k, served in enumerate(plan.folds):
            mine, names = fold == k, served.point["members"]
            models = [profile.models[name] for name in names]
            says = np.stack([decide(model.logits[at[mine]]) for model in models])
            labels[mine] = combine(says, np.array([served.point["weights"][name] for name in names]))
            latency_ms[mine] = np.max([model.latency(model.tokens[at[mine]]) for model in models], axis=0)
        return full_text(rows, labels, latency_ms)

    def describe(self) -> Mapping[str, Any]:
        """`measured`: how the trace's latency came about; the slowest stage of a query is the latency in parallel."""
        return {"models": list(self.models), "measured": "serial"}


def _weights(profile: Profile, says: np.ndarray, accuracy: float, smoothed: bool) -> np.ndarray:
    if profile.is_regression:
        return np.array([max(accuracy, 0.01)])
    return class_weights(profile.labels, says, profile.n_outputs, smoothed)
