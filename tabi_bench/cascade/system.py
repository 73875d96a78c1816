"""The cascade as a System: n levels, one operating point, answering online, replayed on profiled outputs.

Tabi (Wang et al., EuroSys 2023) is the two-level case: the small model answers first; a sure answer returns early, any
other query is re-routed to the large model, which reads the text without its unimportant words; the levels vote. One
model alone is the one-level case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import replay_point
from tabi_bench.device import Begun
from tabi_bench.engines.loaded import work_out
from tabi_bench.system import Answer, Clock, Item, NoAnswer, Outcomes, Plan, System

if TYPE_CHECKING:
    import pandas as pd

    from tabi_bench.engines.base import Encoding, Model, Output
    from tabi_bench.profiling.lab import Lab
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query

log = logging.getLogger(__name__)
DESCRIBED = ("models", "temperatures", "weights", "taus", "alphas", "ensemble", "share", "dispatcher", "pruning")


class Reading(NamedTuple):
    """What one level read of a query, and its output."""

    level: int
    encoding: Encoding
    output: Output


class Level:
    """One model of the cascade, and what of the point concerns it alone."""

    def __init__(self, point: Point, index: int, model: Model) -> None:
        self.index, self.model, self.stage = index, model, f"level{index + 1}"
        self.is_last = index == len(point.models) - 1
        self.tau = rules.NEVER if self.is_last else point.taus[index]
        self.temperature = point.temperatures[index]
        self.wants_importance = point.wants_importance(index)
        self.alpha = point.alphas[index - 1] if index else 0.0
        self.source = point.source(index) if index else 0
        model.set_temperature(self.temperature)


class Cascade(System):
    """Levels of models, each with its own threshold. Who plans it gives it its name: `planning.tabi`, the baselines."""

    def __init__(self, point: Point, models: list[Model]) -> None:
        """models: of the levels, loaded with importance where the point wants it; each a handle of its own."""
        self.point = point
        self.levels = [Level(point, index, model) for index, model in enumerate(models)]
        self.stages, self.encoders = len(self.levels), (models[0].encode,)
        self._takes_verdict = point.by_largest  # the first level's own, where the device works it out
        self._reported: set[str] = set()

    # --- offline ---

    @classmethod
    def check_point(cls, point: dict[str, Any], models: list[str]) -> None:
        """See System."""
        Point.checked(point, models)

    @classmethod
    def deploy(cls, point: dict[str, Any], lab: Lab, options: Any) -> Cascade:
        """Loads the model of each level."""
        return cls.of(Point(**point), lab.load)

    @classmethod
    def of(cls, chosen: Point, load: Callable[..., Model]) -> Self:
        """A cascade at a point; load(name, importance=, pooled=) gives the models, see `Engine.load`."""
        if chosen.pruning == "stopwords":
            rules.stop_words()  # its import must not fall into the first query
        models = []
        for level, name in enumerate(chosen.models):
            importance = chosen.importance if chosen.wants_importance(level) else None
            models.append(load(name, importance=importance, pooled=bool(chosen.agreement)))
        return cls(chosen, models)

    # --- online ---

    def answer(self, query: Query) -> Answer:
        """Level by level until one is sure: `run` at batch one, without lists around it."""
        item = Item(query)
        while True:
            result = self._run_one(self.levels[item.stage], item)
            if isinstance(result, Answer):
                return result

    def run(self, stage: int, items: list[Item]) -> list[Answer | Item]:
        """One level on a batch. A level that raises or returns a non-finite output counts as unsure.

        Raises NoAnswer where every level failed on a query.
        """
        if len(items) == 1:
            return [self._run_one(self.levels[stage], items[0])]
        return Cascade.begin(self, stage, items).result()

    def begin(self, stage: int, items: list[Item]) -> Begun[list[Answer | Item]]:
        """See System."""
        level, clock = self.levels[stage], Clock()
        self._encode_batch(level, items, clock.ns)
        encodings = [item.encodings[stage] for item in items]
        there = [encoding for encoding in encodings if encoding is not None]
        clock.mark("tokenise")
        begun = Begun.done(None)  # one by one, where the batch is refused
        if there:
            begun = self._try(level, level.model.begin_batch, there, level.wants_importance) or begun
        clock.mark(level.stage)

        def result(since_ns: int = 0) -> list[Answer | Item]:
            clock.last = max(clock.last, since_ns)
            outputs = self._try(level, begun.result)
            if outputs is None:  # one text of the batch, or its size
                outputs = [self._try(level, level.model.forward, one, level.wants_importance) for one in there]
            clock.mark(level.stage)
            remaining = iter(outputs)
            of_items = [None if encoding is None else next(remaining) for encoding in encodings]
            results = self._decide_batch(level, items, encodings, of_items)
            clock.mark("decide")
            clock.share(items)
            return results

        return Begun(result, begun.ready)

    def read_ahead(self, stage: int, items: list[Item]) -> None:
        """See System: what the stage reads, pruned where it is to be, as the batch will hold it."""
        self._encode_batch(self.levels[stage], items, {})

    def _encode_batch(self, level: Level, items: list[Item], ns: dict[str, int]) -> None:
        """Puts what the level reads into the `encodings` of each item that has none yet; None where that failed."""
        items = [item for item in items if level.index not in item.encodings]
        keeps = self._try(level, self._kept, level, items, ns) or [None] * len(items)  # else each on its own
        for item, keep in zip(items, keeps, strict=True):
            item.encodings[level.index] = self._try(level, self._encode, level, item, ns, keep)

    def _run_one(self, level: Level, item: Item) -> Answer | Item:
        """`run` at batch one. Its own clock, as an early return may take no longer than its model needs."""
        encoding = output = None
        ns = item.so_far.stages_ns
        start = encoded = perf_counter_ns()
        try:
            if level.index:
                encoding = item.encodings.get(level.index) or self._encode(level, item, ns)
            elif item.encodings:
                encoding = item.encoding(level.model.encode)
            else:  # nobody read ahead: the same without a call more
                encode = level.model.encode
                encoding = item.encodings[encode] = encode(item.query.texts)
            encoded = perf_counter_ns()
            output = level.model.forward(encoding, level.wants_importance)
        except Exception as error:  # whatever an engine raises: fail expensive, never wrong
            self._report(level, error)
        ran = perf_counter_ns()
        if encoding is None:
            encoded = ran
        ns["tokenise"] = ns.get("tokenise", 0) + encoded - start
        ns[level.stage] = ran - encoded
        result = self._decide(level, item, encoding, output)
        ns["decide"] = ns.get("decide", 0) + perf_counter_ns() - ran
        return result

    def _try(self, level: Level, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # as in _run_one
            self._report(level, error)
            return None

    def _encode(self, level: Level, item: Item, ns: dict[str, int], keep: np.ndarray | None = None) -> Encoding:
        """What the level reads: the original text, pruned by the latest level that saw it whole.

        A text that an earlier level read with the same tokenizer is not tokenised again (see `Encoding.without`). ns:
        of the caller's clock, which books all of this as tokenising; pruning is moved to a stage of its own. keep: what
        `_kept` gave for the item, where it was asked already.
        """
        if level.alpha > 0:
            source = self._source(level, item)
            if source is not None:
                keep = self._kept(level, [item], ns)[0] if keep is None else keep
                assert keep is not None
                return source.encoding.without(keep, level.model.encode)
        item.so_far.words_kept = item.so_far.words  # counted when an earlier level's text was pruned
        return item.encoding(level.model.encode)

    @staticmethod
    def _source(level: Level, item: Item) -> Reading | None:
        """What the level that prunes for this one read, unless it failed."""
        return next((reading for reading in item.read if reading.level == level.source), None)

    def _kept(self, level: Level, items: list[Item], ns: dict[str, int]) -> list[np.ndarray | None]:
        """Of each item, (W,) bool, False for the words that its source found unimportant; None without a source."""
        start, point = perf_counter_ns(), self.point
        sources = [self._source(level, item) for item in items] if level.alpha > 0 else []
        pruned = [(item, source) for item, source in zip(items, sources, strict=False) if source is not None]
        if not pruned:
            return [None] * len(items)
        importance = work_out([source.output for _, source in pruned])
        if point.pruning == "importance":  # one call of the rule for all texts of all items
            counts = [len(text) for _, source in pruned for text in source.encoding.words]
            together = rules.prune(np.concatenate(importance), counts, level.alpha)
            parts = [together[part] for part in rules.segments([len(scores) for scores in importance])]
        else:
            parts = [
                rules.kept_words(scores, source.encoding.words, level.alpha, point.pruning, point.seed, item.query.id)
                for (item, source), scores in zip(pruned, importance, strict=True)
            ]
        for (item, _), keep in zip(pruned, parts, strict=True):
            item.so_far.words, item.so_far.words_kept = len(keep), int(np.count_nonzero(keep))
        taken = perf_counter_ns() - start
        ns["prune"] = ns.get("prune", 0) + taken
        ns["tokenise"] = ns.get("tokenise", 0) - taken  # which is booked whole after it
        remaining = iter(parts)
        return [None if source is None else next(remaining) for source in sources]

    def _decide(self, level: Level, item: Item, encoding: Encoding | None, output: Output | None) -> Answer | Item:
        """The answer after this level, or the item on its way to the next one."""
        if not self._read(level, item, encoding, output):
            return self._failed(level, item, output)
        assert output is not None
        if self.stages == 1:
            label = rules.label_of(output.logits).item() if output.verdict is None else output.verdict[0]
            return item.answer(label, 0)
        return self._routed(level, item, *self._verdict(level, item))

    def _decide_batch(
        self, level: Level, items: list[Item], encodings: list[Encoding | None], outputs: list[Output | None]
    ) -> list[Answer | Item]:
        """`_decide` for each item; what several levels say of several queries is combined in one call."""
        if self.stages == 1 or (level.index == 0 and self._takes_verdict):
            return [self._decide(level, *parts) for parts in zip(items, encodings, outputs, strict=True)]
        read = [self._read(level, *parts) for parts in zip(items, encodings, outputs, strict=True)]
        verdicts = iter(self._verdicts(level, [item for item, good in zip(items, read, strict=True) if good]))
        return [
            self._routed(level, item, *next(verdicts)) if good else self._failed(level, item, output)
            for item, output, good in zip(items, outputs, read, strict=True)
        ]

    @staticmethod
    def _read(level: Level, item: Item, encoding: Encoding | None, output: Output | None) -> bool:
        """Whether the level gave an output that can be used, which is kept."""
        if output is None or encoding is None:
            return False
        if encoding.truncated:
            item.so_far.truncated = True
        if not output.finite:
            return False
        item.read.append(Reading(level.index, encoding, output))
        return True

    @staticmethod
    def _routed(level: Level, item: Item, label: float, sure: float) -> Answer | Item:
        if level.is_last or not rules.reroute(sure, level.tau):
            return item.answer(label, level.index)
        item.stage += 1
        return item

    def _failed(self, level: Level, item: Item, output: Output | None) -> Answer | Item:
        """On to the next level; after the last, what the levels before it say."""
        if output is not None:
            self._report(level, "a non-finite output")
        item.so_far.failures += 1
        if not level.is_last:
            item.stage += 1
            return item
        if not item.read:
            models = ", ".join(self.point.models)
            raise NoAnswer(
                f"query {item.query.id}: none of {models} gave a finite output, and there is no other level to ask; "
                "try engine.dtype=float32, or leave the model out with zoo.models"
            )
        last = self.levels[item.read[-1].level]
        return item.answer(self._verdict(last, item)[0], last.index)

    def _verdict(self, level: Level, item: Item) -> tuple[float, float]:
        """(label or score, what is compared with tau) after the levels read; NaN in place of what nobody compares."""
        readings, output = item.read, item.read[-1].output
        if self._takes_verdict and output.verdict is not None and len(readings) == 1:
            return output.verdict
        combined = self._combined(readings)
        sure = np.nan
        if not level.is_last:
            sure = float(self.point.confidence_of(level.index, combined, output.pooled, item.query.id))
        return rules.label_of(combined).item(), sure

    def _verdicts(self, level: Level, items: list[Item]) -> Iterable[tuple[float, float]]:
        """`_verdict` for each item. Where a level before failed on one of them, they are worked out one by one."""
        if len(items) < 2 or any(len(item.read) <= level.index for item in items):
            return [self._verdict(level, item) for item in items]
        outputs = [
            np.stack([self._output(reading) for reading in of])
            for of in zip(*(item.read for item in items), strict=True)
        ]
        combined, sure = self.point.combine(outputs, list(range(level.index + 1))), np.full(len(items), np.nan)
        if not level.is_last:
            pooled = [item.read[-1].output.pooled for item in items]
            of_level = None if pooled[0] is None else np.stack(pooled)
            ids = np.array([item.query.id for item in items])
            sure = self.point.confidence_of(level.index, combined, of_level, ids)
        return zip(rules.label_of(combined).tolist(), sure.tolist(), strict=True)

    def confidence(self, readings: list[Reading]) -> float:
        """After these readings of a query: what the last of them compared with its threshold.

        After the last level it is the largest probability; of scores, NaN, as nobody was left to agree with.
        """
        combined, latest = self._combined(readings), readings[-1]
        if not self.levels[latest.level].is_last:
            return float(self.point.confidence_of(latest.level, combined, latest.output.pooled, 0))
        return float(combined.max()) if len(combined) > 1 else np.nan

    def _combined(self, readings: list[Reading]) -> np.ndarray:
        """(K,) the ensemble's output."""
        return self.point.combine([self._output(r) for r in readings], [r.level for r in readings])

    def _output(self, reading: Reading) -> np.ndarray:
        """(K,) probabilities, or the score (1,)."""
        output = reading.output
        if output.probabilities is not None:
            return output.probabilities
        return outputs_of(output.logits, self.levels[reading.level].temperature)

    def _report(self, level: Level, error: object) -> None:
        """Says it once per model; every occurrence is counted in its Answer."""
        model = self.point.models[level.index]
        if model not in self._reported:
            self._reported.add(model)
            so_then = "are answered without it, if they can be" if level.is_last else "go to the next level"
            log.warning("%s failed (%s): its queries %s", model, error, so_then)

    # --- afterwards ---

    @classmethod
    def replay(cls, point: dict[str, Any], profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,), by the same rules, from profiled outputs."""
        return replay_point(Point(**point), profile, profile.at(rows))

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """The operating point of each fold, without the regression's coefficients."""
        return {"folds": [{field: fold.point[field] for field in DESCRIBED} for fold in plan.folds]}
