"""The cascade as a System: n levels, planned offline, answering online, replayed on profiled outputs.

Tabi (Wang et al., EuroSys 2023) is the two-level case: the small model answers first; a sure answer returns early, any
other query is re-routed to the large model, which reads the text without its unimportant words; the levels vote.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.config import CascadeConfig
from tabi_bench.system import Answer, FoldPlan, Outcomes, Plan, PlanError, ask

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
        self._serves = [fold.serves for fold in plan.folds]
        self.serve_by([Point(**fold.point) for fold in plan.folds])
        self._reported: set[str] = set()

    def serve_by(self, points: list[Point]) -> None:
        """Decides by `points` from now on, one per fold."""
        self.points = points
        served = [(Serving(point, self.models), rows) for point, rows in zip(points, self._serves, strict=True)]
        self._serving_of = {row: serving for serving, rows in served for row in rows or ()}
        self._other = next((serving for serving, rows in served if rows is None), None)

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
        serving = self._serving_of.get(query.id, self._other)
        if serving is None:
            raise PlanError(f"no fold of this plan serves query {query.id}; it was made for other data")
        if not serving.last and (alone := self._alone(serving, query)) is not None:
            return alone
        clock, answer = Stages(), Answer(float("nan"), -1)
        readings: list[Reading] = []  # of the levels that answered
        for level in serving.levels:
            reading = self._read(serving, level, query, readings, answer, clock)
            if reading is None:
                answer.failures += 1
                continue
            readings.append(reading)
            answer.label, sure = serving.verdict(readings, query.id)
            answer.level = level
            if level == serving.last or not rules.reroute(sure, serving.point.taus[level]):
                break
            clock.mark("decide")
        if not readings:
            models = ", ".join(serving.point.models)
            raise NoAnswer(f"query {query.id}: none of {models} gave a finite output; see the log")
        clock.mark("decide")
        answer.stages_ns = clock.ns
        return answer

    def _alone(self, serving: Serving, query: Query) -> Answer | None:
        """The answer of a plan of one level, as short as one model's: no temperature moves a label.

        None: the long way says what failed.
        """
        model = serving.models[0]
        try:
            encoding, output, stages = ask(model, query)
        except Exception:  # it is met again, and told, on the long way
            return None
        if not output.finite:
            return None
        label = rules.label_of(output.logits).item() if output.verdict is None else output.verdict[0]
        return Answer(label, 0, truncated=encoding.truncated, stages_ns=stages)

    def _read(
        self, serving: Serving, level: int, query: Query, readings: list[Reading], answer: Answer, clock: Stages
    ) -> Reading | None:
        """What `level` says, None if it raised or is not finite."""
        model, temperature = serving.models[level], serving.point.temperatures[level]
        try:
            if model.temperature != temperature:  # folds share models but not temperatures
                model.set_temperature(temperature)
            encoding = self._encoding(serving, level, query, readings, answer, clock)
            clock.mark("tokenise")
            output = model.forward(encoding, want_importance=serving.wants[level])
            answer.truncated |= encoding.truncated
        except Exception as error:  # whatever an engine raises: fail expensive, never wrong
            self._report(serving.point.models[level], error)
            return None
        finally:
            clock.mark(serving.stages[level])
        if not output.finite:
            self._report(serving.point.models[level], "a non-finite output")
            return None
        return Reading(level, model.encode, encoding, output)

    def _encoding(
        self, serving: Serving, level: int, query: Query, readings: list[Reading], answer: Answer, clock: Stages
    ) -> Encoding:
        """What `level` reads: the original text, pruned by the latest level that saw it whole.

        A text that an earlier level read as it is, with the same tokenizer, is not tokenised again.
        """
        model, point = serving.models[level], serving.point
        if level and point.alphas[level - 1] > 0:
            source = next((reading for reading in readings if reading.level == serving.sources[level]), None)
            if source is not None:
                texts = self._pruned(point, level, query, source, answer)
                clock.mark("prune")
                return model.encode(texts)
        answer.words_kept = answer.words
        for reading in readings:
            if reading.encode is model.encode and reading.encoding.texts == query.texts:
                return reading.encoding
        return model.encode(query.texts)

    @staticmethod
    def _pruned(point: Point, level: int, query: Query, source: Reading, answer: Answer) -> tuple[str, ...]:
        """The texts without the words that `source` found unimportant."""
        words, importance = source.encoding.words, source.output.importance
        keep = rules.kept_words(importance, words, point.alphas[level - 1], point.pruning, point.seed, query.id)
        answer.words, answer.words_kept = len(keep), int(keep.sum())
        return rules.pruned_texts(query.texts, words, keep)

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


class Reading(NamedTuple):
    """What one level read and said."""

    level: int
    encode: Callable  # by what the text became pieces
    encoding: Encoding
    output: Output


class Serving:
    """A point with its models at hand, and what of it does not depend on the query."""

    def __init__(self, point: Point, models: dict[str, Model]) -> None:
        self.point, self.models = point, [models[name] for name in point.models]
        self.levels, self.last = range(len(point.models)), len(point.models) - 1
        self.wants = [point.wants_importance(level) for level in self.levels]
        self.sources = [point.source(level) if level else 0 for level in self.levels]
        self.stages = [f"level{level + 1}" for level in self.levels]
        self.takes_verdict = point.by_largest  # the first level's own, where the device worked it out

    def verdict(self, readings: list[Reading], query: int) -> tuple[float, float]:
        """(label or score, confidence) after the levels read; NaN for the confidence of the last, which nobody asks."""
        level, _, _, output = readings[-1]
        if output.verdict is not None and len(readings) == 1 and self.takes_verdict:
            return output.verdict
        levels = [reading.level for reading in readings]
        said = [_says(reading.output, self.point.temperatures[reading.level]) for reading in readings]
        combined = self.point.combine(said, levels)
        sure = float("nan")
        if level != self.last:
            sure = float(self.point.confidence_of(level, combined, output.pooled, query))
        return rules.label_of(combined).item(), sure


def _says(output: Output, temperature: float) -> np.ndarray:
    """(K,) probabilities, or the score (1,)."""
    return outputs_of(output.logits, temperature) if output.probabilities is None else output.probabilities
