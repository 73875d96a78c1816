"""Cocktail-style ensembles: several models answer every query, and a class-wise weighted majority decides.

After Gunasekaran et al., NSDI 2022. Members run on machines of their own there: plan and replay predict that latency
(the slowest member's). On one device `answer` runs them at once on streams where the engine has them, else in series.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.common import NonFiniteOutput, Points, best, between_labels, decide, fold_plan, full_text, predictions
from tabi_bench.cascade.system import Stages
from tabi_bench.config import CocktailConfig
from tabi_bench.evaluation.metrics import score
from tabi_bench.system import Answer, FoldPlan, Infeasible, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Encoding, Engine, Model, Output
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

    def __init__(
        self, plan: Plan, models: dict[str, Model], together: dict[tuple[str, ...], Any] | None = None
    ) -> None:
        """together: what runs the members of each fold at the same time; None: they run in series."""
        self.plan_, self.points, self.models, self.together = plan, Points(plan), models, together
        self._served: dict[int, tuple[int, int]] = {}  # nanoseconds of each query: as run, and if in parallel

    @classmethod
    def plan(cls, profile: Profile, target: Any, options: CocktailConfig) -> FoldPlan:
        """The ensemble with the least mean latency in parallel that meets the target, ties by fewer members.

        Raises Infeasible where none does, or where fewer than two models keep `slo_ms`.
        """
        answers = predictions(profile)
        taken = {name: model.latency(model.tokens) for name, model in profile.models.items()}
        mean_ms = {name: float(ms.mean()) for name, ms in taken.items()}
        slo = options.slo_ms if options.slo_ms is not None else max(mean_ms.values())
        scores = {name: score(profile.metric, profile.labels, says) for name, says in answers.items()}
        ranked = sorted((n for n in answers if mean_ms[n] <= slo), key=lambda n: -scores[n])
        weights = {n: _weights(profile, answers[n], scores[n], options.smoothed) for n in ranked}
        subsets = [s for size in range(2, len(ranked) + 1) for s in combinations(ranked, size)]
        in_parallel = {s: float(np.max([taken[n] for n in s], axis=0).mean()) for s in subsets}
        for members in sorted(subsets, key=lambda s: (in_parallel[s], len(s))):
            labels = combine(np.stack([answers[n] for n in members]), np.stack([weights[n] for n in members]))
            if target.meets(labels):
                point = {"members": list(members), "weights": {n: weights[n].tolist() for n in members}}
                fold = fold_plan(profile, target, point, labels, in_parallel[members])
                fold.predicted["serial_ms"] = sum(mean_ms[n] for n in members)
                return fold
        raise Infeasible(
            f"{profile.task}: none of {len(subsets)} ensembles of models within {slo:.3f} ms meets the target "
            f"{target.value:.4f}; the best single model has {best(profile, answers)}"
        )

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: CocktailConfig) -> Cocktail:
        """Loads every member of every fold once. Raises PlanError for a latency that cannot be measured."""
        groups = {tuple(fold.point["members"]) for fold in plan.folds}
        models = {name: engine.load(zoo[name]) for name in sorted({name for group in groups for name in group})}
        if options.latency == "serial":
            return cls(plan, models)
        together = {group: engine.concurrent([models[name] for name in group]) for group in groups}
        if None not in together.values():
            return cls(plan, models, together)
        if options.latency == "concurrent":
            raise PlanError(
                f"method.latency=concurrent: engine={engine.name} has no streams; choose auto, serial, or engine=graph"
            )
        return cls(plan, models)

    def answer(self, query: Query) -> Answer:
        """In series stages level1, level2, ... tell each member's time. A non-finite member has no vote."""
        clock, point = Stages(), self.points[query.id]
        start, members = clock.last, point["members"]
        encodings = self._encodings(query, members)
        clock.mark("tokenise")
        if self.together is None:
            outputs = self._in_series(encodings, members, clock)
        else:
            outputs = self.together[tuple(members)].forward(encodings)
            clock.mark("members")
        truncated = any(encoding.truncated for encoding in encodings)
        heard = [(name, out.logits) for name, out in zip(members, outputs, strict=True) if out.finite]
        if not heard:
            raise NonFiniteOutput(f"all members returned non-finite logits for query {query.id}")
        says = np.array([decide(logits) for _, logits in heard])[:, None]
        label = combine(says, np.array([point["weights"][name] for name, _ in heard]))[0].item()
        clock.mark("decide")
        each = [ns for stage, ns in clock.ns.items() if stage.startswith("level")]
        total = clock.last - start
        self._served[query.id] = total, total - sum(each) + max(each, default=0)
        return Answer(label, 0, failures=len(members) - len(heard), truncated=truncated, stages_ns=clock.ns)

    def _encodings(self, query: Query, members: list[str]) -> list[Encoding]:
        """One per member; members with the same tokenizer share one."""
        made: dict[Any, Encoding] = {}
        for encode in (self.models[name].encode for name in members):
            if encode not in made:
                made[encode] = encode(query.texts)
        return [made[self.models[name].encode] for name in members]

    def _in_series(self, encodings: list[Encoding], members: list[str], clock: Stages) -> list[Output]:
        """Outputs of the members, one after the other."""
        outputs = []
        for number, (name, encoding) in enumerate(zip(members, encodings, strict=True), start=1):
            outputs.append(self.models[name].forward(encoding))
            clock.mark(f"level{number}")
        return outputs

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,); latency of members in parallel: the slowest."""
        at, fold = profile.at(rows), plan.fold_of(rows)
        labels = np.empty(len(rows), np.float64 if profile.n_outputs == 1 else np.int64)
        latency_ms, borderline = np.empty(len(rows)), np.empty(len(rows), bool)
        for k, served in enumerate(plan.folds):
            mine, names = fold == k, served.point["members"]
            models = [profile.models[name] for name in names]
            says = np.stack([decide(model.logits[at[mine]]) for model in models])
            labels[mine] = combine(says, np.array([served.point["weights"][name] for name in names]))
            latency_ms[mine] = np.max([model.latency(model.tokens[at[mine]]) for model in models], axis=0)
            borderline[mine] = np.any([between_labels(model.logits[at[mine]]) for model in models], axis=0)
        return full_text(rows, labels, latency_ms, borderline=borderline)

    def describe(self) -> Mapping[str, Any]:
        """`measured`: how members ran, which is the latency of the trace; `latency_ms`: the means of all three ways.

        parallel: the slowest member; serial: the sum; both are profiled ones on tune where members ran concurrently.
        """
        predicted = [fold.predicted for fold in self.plan_.folds]
        run, parallel = np.mean(list(self._served.values()), axis=0) / 1e6 if self._served else (None, None)
        if self.together is None:
            measured, means = "serial", {"parallel": parallel, "serial": run, "concurrent": None}
        else:
            parallel, serial = (float(np.mean([p[key] for p in predicted])) for key in ("latency_ms", "serial_ms"))
            measured, means = "concurrent", {"parallel": parallel, "serial": serial, "concurrent": run}
        folds = [{"members": fold.point["members"]} for fold in self.plan_.folds]
        return {"folds": folds, "measured": measured, "latency_ms": means}


def _weights(profile: Profile, says: np.ndarray, accuracy: float, smoothed: bool) -> np.ndarray:
    if profile.is_regression:
        return np.array([max(accuracy, 0.01)])
    return class_weights(profile.labels, says, profile.n_outputs, smoothed)
