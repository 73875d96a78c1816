"""Cocktail-style ensembles: several models answer every query, and a class-wise weighted majority decides.

After Gunasekaran et al., NSDI 2022. Members run on machines of their own there: plan and replay predict that latency
(the slowest member's). On one device `answer` runs them at once on streams where the engine has them, else in series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.cascade.rules import BAND, label_of
from tabi_bench.config import CocktailConfig
from tabi_bench.device import Begun
from tabi_bench.engines.base import Encoding, Model, Output, Together
from tabi_bench.evaluation.metrics import score
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.lab import Lab
from tabi_bench.profiling.profile import Profile
from tabi_bench.records.record import Record
from tabi_bench.system import Answer, Clock, FoldPlan, Infeasible, Item, NoAnswer, Outcomes, Plan, PlanError, System

from .common import best, between_labels, fold_plan, predictions


def class_weights(labels: np.ndarray, answers: np.ndarray, classes: int, smoothed: bool = True) -> np.ndarray:
    """(K,) weight of a member's vote per class: (correct of class k + 1) / (n_k + 2); unsmoothed: correct / n_k."""
    n = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels[answers == labels], minlength=classes)
    return (correct + 1) / (n + 2) if smoothed else correct / np.maximum(n, 1)


def vote(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) labels by weighted majority. answers: (M, N) labels, the most accurate member first; weights: (M, K).

    Among classes with equal weight, the vote of the most accurate member that names one of them decides.
    """
    members, n = answers.shape
    cast = weights[np.arange(members)[:, None], answers]  # (M, N)
    totals = np.zeros((n, weights.shape[1]))
    np.add.at(totals, (np.arange(n)[None, :], answers), cast)
    leads = totals[np.arange(n)[None, :], answers] >= totals.max(axis=1) - 1e-12
    return answers[leads.argmax(axis=0), np.arange(n)]


def combine(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) answers of (M, N) members' answers: the vote, or for regression (weights (M, 1)) the weighted mean."""
    if weights.shape[1] == 1:
        return (weights * answers).sum(axis=0) / weights.sum()
    return vote(answers, weights)


class Cocktail(System):
    """Point: {"members": names, the most accurate first, "weights": {name: K numbers}}."""

    name = "cocktail"

    def __init__(self, point: dict[str, Any], models: dict[str, Model], together: Together | None = None) -> None:
        """together: what runs the members at the same time; None: they run in series."""
        self.members, self.models, self.together = point["members"], models, together
        self.weights = np.array([point["weights"][name] for name in self.members])
        self.encoders = [models[name].encode for name in self.members]

    @classmethod
    def check_point(cls, point: dict[str, Any], models: list[str]) -> None:
        """See System."""
        members = point.get("members")
        if not isinstance(members, list) or len(set(map(str, members))) != len(members) or len(members) < 2:
            raise PlanError(f"members={members}: a list of two or more different models")
        if any(name not in models for name in members):
            raise PlanError(f"members={members}: the zoo has {', '.join(models)}")
        try:
            weights = np.array([point["weights"][name] for name in members], np.float64)
            fits = weights.ndim == 2 and np.isfinite(weights).all() and (weights >= 0).all()
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise PlanError(f"weights={point.get('weights')}: for each member as many numbers as classes, none below 0")

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: CocktailConfig) -> FoldPlan:
        """The ensemble with the least mean latency in parallel that meets the target, ties by fewer members.

        Raises Infeasible where none does, or where fewer than two models keep `slo_ms`.
        """
        answers = predictions(profile)
        taken = {name: model.latency(model.tokens) for name, model in profile.models.items()}
        mean_ms = {name: float(ms.mean()) for name, ms in taken.items()}
        slo = options.slo_ms if options.slo_ms is not None else max(mean_ms.values())
        scores = {name: score(profile.metric, profile.labels, labels) for name, labels in answers.items()}
        sound = [name for name, model in profile.models.items() if np.isfinite(model.logits).all()]
        ranked = sorted((n for n in sound if mean_ms[n] <= slo), key=lambda n: -scores[n])
        weights = {n: _weights(profile, answers[n], scores[n], options.smoothed) for n in ranked}
        subsets = [s for size in range(2, len(ranked) + 1) for s in combinations(ranked, size)]
        together = np.sum if profile.in_batches else np.max  # a device full of batches runs members one after another
        in_parallel = {s: float(together([taken[n] for n in s], axis=0).mean()) for s in subsets}
        for members in sorted(subsets, key=lambda s: (in_parallel[s], len(s))):
            labels = combine(np.stack([answers[n] for n in members]), np.stack([weights[n] for n in members]))
            if target.meets(labels):
                point = {"members": list(members), "weights": {n: weights[n].tolist() for n in members}}
                fold = fold_plan(profile, target, point, labels, in_parallel[members])
                fold.predicted["serial_ms"] = float(sum(mean_ms[n] for n in members))
                return fold
        raise Infeasible(
            f"{profile.task}: none of {len(subsets)} ensembles of models within {slo:.3f} ms meets the target "
            f"{target.value:.4f}; the best single model has {best(profile, answers)}"
        )

    @classmethod
    def deploy(cls, point: dict[str, Any], lab: Lab, options: CocktailConfig) -> Cocktail:
        """Loads every member. Raises PlanError for a latency that cannot be measured."""
        models = {name: lab.load(name) for name in point["members"]}
        if options.latency == "serial":
            return cls(point, models)
        together = lab.engine.concurrent(list(models.values()))
        if together is None and options.latency == "concurrent":
            raise PlanError(
                f"systems.cocktail.latency=concurrent: engine={lab.engine.name} has no streams; choose auto or serial, "
                "or engine=graph"
            )
        return cls(point, models, together)

    def run(self, stage: int, items: list[Item]) -> list[Answer | Item]:
        """All members on each item. In series stages level1, level2, ... are each member's time."""
        if self.together is None or len(items) > 1:
            return Cocktail.begin(self, stage, items).result()
        clock = Clock()
        encodings = [items[0].encoding(encode) for encode in self.encoders]
        clock.mark("tokenise")
        outputs = self.together.forward(encodings)
        clock.mark("members")
        answer = self._decide(items[0], encodings, outputs)
        clock.mark("decide")
        clock.share(items)
        return [answer]

    def begin(self, stage: int, items: list[Item]) -> Begun[list[Answer | Item]]:
        """See System: the members in series."""
        clock = Clock()
        encodings = [[item.encoding(encode) for encode in self.encoders] for item in items]
        clock.mark("tokenise")
        parts, begun = [f"level{number + 1}" for number in range(len(self.members))], []
        for part, name, of_member in zip(parts, self.members, zip(*encodings, strict=True), strict=True):
            begun.append(self.models[name].begin_batch(of_member))
            clock.mark(part)

        def result(since_ns: int = 0) -> list[Answer | Item]:
            clock.last = max(clock.last, since_ns)
            outputs = []
            for part, member in zip(parts, begun, strict=True):
                outputs.append(member.result())
                clock.mark(part)
            of_items = zip(items, encodings, zip(*outputs, strict=True), strict=True)
            answers: list[Answer | Item] = [self._decide(*parts) for parts in of_items]
            clock.mark("decide")
            clock.share(items)
            return answers

        return Begun(result, begun[-1].ready)

    def _decide(self, item: Item, encodings: list[Encoding], outputs: Sequence[Output]) -> Answer:
        """A member without a finite output has no vote."""
        item.so_far.truncated = any(encoding.truncated for encoding in encodings)
        votes = [k for k, output in enumerate(outputs) if output.finite]
        if not votes:
            raise NoAnswer(f"all members returned non-finite logits for query {item.query.id}")
        answers = np.array([label_of(outputs[k].logits) for k in votes])[:, None]
        label = combine(answers, self.weights[votes])[0].item()
        item.so_far.failures = len(outputs) - len(votes)
        return item.answer(label, 0)

    @classmethod
    def replay(cls, point: dict[str, Any], profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,); latency of members in parallel: the slowest."""
        at, models = profile.at(rows), [profile.models[name] for name in point["members"]]
        answers = np.stack([label_of(model.logits[at]) for model in models])
        labels = combine(answers, np.array([point["weights"][name] for name in point["members"]]))
        together = np.sum if profile.in_batches else np.max
        latency_ms = together([model.latency(model.tokens[at]) for model in models], axis=0)
        band, logits = profile.band(BAND, at), [model.logits[at] for model in models]
        unsure = [between_labels(of_one, band) | ~np.isfinite(of_one).all(axis=1) for of_one in logits]
        return Outcomes.of_full_text(rows, labels, latency_ms, borderline=np.any(unsure, axis=0))

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """`measured`: how members ran, which is the latency of the trace; `latency_ms`: the means of all three ways.

        parallel: the slowest member; serial: the sum; both are profiled ones on tune where members ran concurrently.
        """
        folds = [{"members": fold.point["members"]} for fold in plan.folds]
        mean_ms = float(trace.latency_ms.mean())
        if "stage_members_ms" in trace:
            parallel = float(np.mean([fold.predicted["latency_ms"] for fold in plan.folds]))
            serial = float(np.mean([fold.predicted["serial_ms"] for fold in plan.folds]))
            means: dict[str, float | None] = {"parallel": parallel, "serial": serial, "concurrent": mean_ms}
            return {"folds": folds, "measured": "concurrent", "latency_ms": means}
        members = trace[[column for column in trace if column.startswith("stage_level")]]
        parallel = float((trace.latency_ms - members.sum(axis=1) + members.max(axis=1)).mean())
        means = {"parallel": parallel, "serial": mean_ms, "concurrent": None}
        return {"folds": folds, "measured": "serial", "latency_ms": means}

    @classmethod
    def conclude(cls, own: Record, session: Mapping[str, Record]) -> None:
        """In words: how members ran, and what the other ways would take."""
        system = own.details["system"]
        ways = {way: ms for way, ms in system["latency_ms"].items() if ms is not None}
        means = ", ".join(f"{way} {ms:.3f} ms" for way, ms in ways.items())
        streams = "" if "concurrent" in ways else f"; engine {own.engine} runs nothing concurrently"
        system["remarks"] = [f"its row is {system['measured']}; mean {means}{streams}"]


def _weights(profile: Profile, answers: np.ndarray, accuracy: float, smoothed: bool) -> np.ndarray:
    if profile.is_regression:
        return np.array([max(accuracy, 0.01)])
    return class_weights(profile.labels, answers, profile.n_outputs, smoothed)
