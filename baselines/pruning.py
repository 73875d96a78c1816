"""What pruning does to re-routed queries: one pair at fixed thresholds, served at every pruning scale and by controls.

The plan is the fastest of two levels on full text. A query that it re-routes is answered once for every variant of the
large model's text, in an order drawn anew, so that all variants are timed on the same queries, next to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from time import perf_counter_ns
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.system import Cascade, Reading
from tabi_bench.config.method import PruningConfig
from tabi_bench.evaluation import statistics
from tabi_bench.planning.folds import replay
from tabi_bench.planning.search import search
from tabi_bench.planning.targets import Target
from tabi_bench.profiling.lab import Lab
from tabi_bench.profiling.profile import Profile
from tabi_bench.system import Answer, FoldPlan, Item, Plan
from tabi_bench.tasks.base import Query


class PruningScales(Cascade):
    """Answers by full text. The trace holds each variant's time, as `stage_large<k>_ms` (its last level) and
    `stage_other<k>_ms` (all else of the answer; in batches, of the last stage)."""

    name = "pruning_scales"

    def __init__(self, variants: list[Cascade], seed: int) -> None:
        """variants: the first on full text, the others on pruned text."""
        super().__init__(variants[-1].point, [level.model for level in variants[-1].levels])
        self.variants, self.seed = variants, seed

    # --- offline ---

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: PruningConfig) -> FoldPlan:
        """The fastest two levels on full text. Raises Unreachable, Infeasible."""
        fixed = replace(options, levels=2, fewer_levels=False, alphas=[0.0])
        return search(profile, target, fixed)

    @classmethod
    def tell(cls, plan: Plan, profile: Profile, plans: Mapping[str, Plan]) -> Plan:
        """Beside the plan, what each variant yields on the re-routed rows: words pruned, score, against full text."""
        rows, full = np.zeros(0, np.int64), np.zeros(0)
        facts: list[dict[str, Any]] = []
        for text in texts(plan.options["alphas"], plan.options["controls"]):
            folds = [replace(fold, point=fold.point | text) for fold in plan.folds]
            outcomes = replay(Cascade, replace(plan, folds=folds), profile)
            if not facts:
                rows = np.flatnonzero(outcomes.levels)
                full = outcomes.labels[rows]
            facts.append({"alpha": text["alphas"][0], "control": text["pruning"], "rerouted": len(rows)})
            if not len(rows):
                continue
            ours, labels = outcomes.labels[rows], profile.labels[rows]
            score = statistics.score_interval(profile.metric, labels, ours, seed=plan.split_seed)
            against = statistics.score_difference(profile.metric, labels, ours, full, seed=plan.split_seed)
            facts[-1] |= {"words_pruned": float(1 - outcomes.words_kept_share[rows].mean())}
            facts[-1] |= _named("score", score) | _named("difference", against)
        return replace(plan, options=plan.options | {"facts": facts})

    @classmethod
    def deploy(cls, point: dict[str, Any], lab: Lab, options: PruningConfig) -> PruningScales:
        """A cascade per variant; all of them share the weights."""
        points = [Point(**(point | text)) for text in texts(options.alphas, options.controls)]
        return cls([Cascade.of(one, lab.load) for one in points], points[0].seed)

    # --- online ---

    def answer(self, query: Query) -> Answer:
        """See System; a re-routed query is answered whole by each variant."""
        first = self.variants[0].answer(query)
        if first.level == 0:
            return first
        for k in self._order(query.id):
            start = perf_counter_ns()
            answer = self.variants[k].answer(query)
            first.stages_ns |= _stages(k, perf_counter_ns() - start, answer)
        return first

    def run(self, stage: int, items: list[Item]) -> list[Answer | Item]:
        """See System; the last stage of a batch is run by each variant."""
        if stage == 0:
            return self.variants[-1].run(0, items)  # with importance
        answers: dict[int, list[Any]] = {}
        for k in self._order(items[0].query.id):
            batch = self._sent_on(k, items)
            start = perf_counter_ns()
            answers[k] = self.variants[k].run(stage, batch)
            taken = (perf_counter_ns() - start) // len(items)
            for item, answer in zip(items, answers[k], strict=True):
                item.so_far.stages_ns |= _stages(k, taken, answer)
        for item, answer in zip(items, answers[0], strict=True):
            answer.stages_ns = item.so_far.stages_ns
        return answers[0]

    def _sent_on(self, k: int, items: list[Item]) -> list[Item]:
        """The items as the first level of variant k passes them on, with nothing that another variant worked out."""
        level = self.variants[k].levels[0]
        encodings = [level.model.encode(item.query.texts) for item in items]
        outputs = level.model.forward_batch(encodings, level.wants_importance)
        batch = [Item(item.query) for item in items]
        for item, encoding, output in zip(batch, encodings, outputs, strict=True):
            item.stage, item.read = 1, [Reading(0, encoding, output)]
        return batch

    def _order(self, query: int) -> list[int]:
        return np.random.default_rng([self.seed, query]).permutation(len(self.variants)).tolist()

    # --- afterwards ---

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """`variants`: of the re-routed queries, the facts of `tell`, and times with their intervals over blocks.

        ms: to the answer (in batches: of the last stage, per query); faster_pct: against full text; large_*: the same
        of the large model's stage alone.
        """
        facts, sent = plan.options["facts"], trace[trace.level > 0]
        if sent.block.nunique() > 1:
            blocks = sent.block.to_numpy()
            times = [_times(sent, k) for k in range(len(facts))]
            for fact, parts in zip(facts, times, strict=True):
                for name, ms, full in zip(("", "large_"), parts, times[0], strict=True):
                    fact |= _named(f"{name}ms", statistics.mean_latency(ms, blocks))
                    fact |= _named(f"{name}faster_pct", statistics.latency_reduction(ms, full, blocks))
        return {**super().describe(plan, trace), "variants": facts}


def texts(alphas: list[float], controls: list[str]) -> list[dict[str, Any]]:
    """Of each variant what its operating point says of the text that the last level reads; full text first."""
    pruned = [{"alphas": [alpha], "pruning": control} for control in controls for alpha in alphas if alpha]
    return [{"alphas": [0.0], "pruning": "importance"}, *pruned]


def _named(name: str, interval: statistics.Interval) -> dict[str, float]:
    facts = asdict(interval)
    return {name: facts["value"], f"{name}_low": facts["low"], f"{name}_high": facts["high"]}


def _stages(k: int, taken: int, answer: Answer) -> dict[str, int]:
    large = answer.stages_ns.get("level2", 0)
    return {f"large{k}": large, f"other{k}": taken - large}


def _times(sent: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) milliseconds of variant k on the queries sent on: to the answer, and of its last level."""
    large = sent[f"stage_large{k}_ms"].to_numpy()
    return large + sent[f"stage_other{k}_ms"].to_numpy(), large
