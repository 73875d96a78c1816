"""The cascade as a System: n levels, planned offline, answering online, replayed on profiled outputs.

Tabi (Wang et al., EuroSys 2023) is the two-level case: the small model answers first; a sure answer returns early, any
other query is re-routed to the large model, which reads the text without its unimportant words; the levels vote.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.config import CascadeConfig
from tabi_bench.system import Answer, FoldPlan, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Encoding, Engine, Model, Output
    from tabi_bench.evaluation.targets import Target
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query
    from tabi_bench.zoo.base import Zoo

log = logging.getLogger(__name__)


class NoAnswer(RuntimeError):
    """Every level failed on a query."""


class Cascade:
    """Levels of models, each with its own threshold; one operating point per fold."""

    name = "tabi"

    def __init__(self, plan: Plan, models: dict[str, Model]) -> None:
        """models: by name, loaded with importance where some fold's point wants it."""
        self.name = plan.method
        self.models = models
        self.points = [Point(**fold.point) for fold in plan.folds]
        self._ladders = [[models[name] for name in point.models] for point in self.points]
        self._fold_by_query = {row: k for k, fold in enumerate(plan.folds) for row in fold.serves or ()}
        self._other = next((k for k, fold in enumerate(plan.folds) if fold.serves is None), None)
        self._reported: set[str] = set()

    # --- offline ---

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: CascadeConfig) -> FoldPlan:
        """The fastest operating point that meets the target on the rows of `profile`. Raises Unreachable."""
        from tabi_bench.cascade.search import search

        return search(profile, target, options)

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: Any) -> Cascade:
        """Loads each model that some fold names, once."""
        points = [Point(**fold.point) for fold in plan.folds]
        regression = any(point.agreement for point in points)
        reads = {
            name: point.importance
            for point in points
            for level, name in enumerate(point.models)
            if point.wants_importance(level)
        }
        names = dict.fromkeys(name for point in points for name in point.models)
        if any(point.pruning == "stopwords" for point in points):
            rules.stop_words()  # its import must not fall into the first query
        return cls(
            plan, {name: engine.load(zoo[name], importance=reads.get(name), pooled=regression) for name in names}
        )

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,), by the same rules, from profiled outputs."""
        at, fold = profile.at(rows), plan.fold_of(rows)
        parts = {k: replay_point(Point(**served.point), profile, at[fold == k]) for k, served in enumerate(plan.folds)}
        back = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in parts]), kind="stable")
        fields = {
            name: np.concatenate([getattr(part, name) for part in parts.values()])[back]
            for name in ("labels", "levels", "latency_ms", "words_kept_share", "borderline")
        }
        return Outcomes(rows=np.asarray(rows), **fields)

    # --- online ---

    def answer(self, query: Query) -> Answer:
        """Level by level until one is sure. A level that raises or returns a non-finite output counts as unsure.

        Raises NoAnswer when every level failed, PlanError for a query that no fold serves.
        """
        fold = self._fold_by_query.get(query.id, self._other)
        if fold is None:
            raise PlanError(f"no fold of this plan serves query {query.id}; it was made for other data")
        point, clock, answer = self.points[fold], Stages(), Answer(float("nan"), -1)
        readings: dict[int, tuple[Encoding, Output]] = {}  # by level, where importance was asked for
        outputs, levels, combined = [], [], None
        for level, model in enumerate(self._ladders[fold]):
            texts = self._texts(point, level, query, readings, answer, clock)
            output = self._read(point, level, model, texts, readings, answer, clock)
            if output is None:
                answer.failures += 1
                continue
            outputs.append(_says(output, point.temperatures[level]))
            levels.append(level)
            combined = point.combine(outputs, levels)
            answer.level = level
            if level + 1 == len(point.models):
                break
            sure = point.confidence_of(level, combined, output.pooled, query.id)
            if not rules.reroute(sure, point.taus[level]):
                break
            clock.mark("decide")
        if combined is None:
            raise NoAnswer(f"query {query.id}: none of {', '.join(point.models)} gave a finite output; see the log")
        answer.label = rules.label_of(combined).item()
        clock.mark("decide")
        answer.stages_ns = clock.ns
        return answer

    def _texts(
        self, point: Point, level: int, query: Query, readings: dict, answer: Answer, clock: Stages
    ) -> tuple[str, ...]:
        """What `level` reads: the original text, pruned by the latest level that saw it whole."""
        if level == 0 or point.alphas[level - 1] == 0 or point.source(level) not in readings:
            answer.words_kept = answer.words
            return query.texts
        encoding, output = readings[point.source(level)]
        words = encoding.words
        keep = rules.kept_words(output.importance, words, point.alphas[level - 1], point.pruning, point.seed, query.id)
        answer.words, answer.words_kept = len(keep), int(keep.sum())
        texts = rules.pruned_texts(query.texts, words, keep)
        clock.mark("prune")
        return texts

    def _read(
        self,
        point: Point,
        level: int,
        model: Model,
        texts: tuple[str, ...],
        readings: dict,
        answer: Answer,
        clock: Stages,
    ) -> Output | None:
        """The model's output, None if it raised or is not finite."""
        wanted = point.wants_importance(level)
        try:
            _set_temperature(model, point.temperatures[level])
            encoding = model.encode(texts)
            answer.truncated |= encoding.truncated
            clock.mark("tokenise")
            output = model.forward(encoding, want_importance=wanted)
        except Exception as error:  # whatever an engine raises: fail expensive, never wrong
            self._report(point.models[level], error)
            return None
        finally:
            clock.mark(f"level{level + 1}")
        if wanted:
            readings[level] = (encoding, output)
        if not np.isfinite(output.logits).all():
            self._report(point.models[level], "a non-finite output")
            return None
        return output

    def _report(self, model: str, error: object) -> None:
        """Says it once per model; every occurrence is counted in its Answer."""
        if model not in self._reported:
            self._reported.add(model)
            log.warning("%s failed (%s): its queries go to the next level", model, error)

    def describe(self) -> Mapping[str, Any]:
        """The operating point of each fold, without the regression's coefficients."""
        fields = ("models", "temperatures", "weights", "taus", "alphas", "ensemble", "share", "dispatcher", "pruning")
        return {"folds": [{field: getattr(point, field) for field in fields} for point in self.points]}


class Stages:
    """Splits the time of one answer into named stages, in nanoseconds."""

    __slots__ = ("last", "ns")

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.last = perf_counter_ns()

    def mark(self, stage: str) -> None:
        """Books the time since the last mark under `stage`."""
        now = perf_counter_ns()
        self.ns[stage] = self.ns.get(stage, 0) + now - self.last
        self.last = now


def _set_temperature(model: Model, temperature: float) -> None:
    """Folds share models but not temperatures; the engine is told only when it changes."""
    if getattr(model, "temperature", None) != temperature:
        model.set_temperature(temperature)


def _says(output: Output, temperature: float) -> np.ndarray:
    """(K,) probabilities, or the score (1,)."""
    return outputs_of(output.logits, temperature) if output.probabilities is None else output.probabilities
