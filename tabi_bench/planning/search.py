"""Plan search: models x thresholds x pruning scale x ensemble, for the least predicted latency that meets the target.

Thresholds are searched exhaustively, on outputs that the profile already holds. What costs time is the large model on
pruned text. A threshold re-routes the least confident rows, so those rows come first: each setting runs only as many
as must be re-routed to meet the target if what has not run went well, and stops once that many would be slower than
the best point found so far. A row goes well if any level that it passes is right about it on full text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.cascade.dispatch import DISPATCHERS
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.regression import Agreement, fit_agreement
from tabi_bench.config import CascadeConfig
from tabi_bench.evaluation.metrics import predictions_from
from tabi_bench.planning.cuts import Cut, Known, LastStep
from tabi_bench.planning.targets import Target
from tabi_bench.planning.triples import triples
from tabi_bench.profiling.profile import Profile, PruneKey
from tabi_bench.system import FoldPlan, Infeasible, Predicted, Unreachable

TUNED_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the last level, tried for the ensemble `tuned`
CHUNKS = 40  # a setting runs at least a 40th of the rows at a time


@dataclass(frozen=True)
class Candidate:
    """A point that meets the target on tune: its predicted mean latency, predictions (N,) and share of each level."""

    latency_ms: float
    point: Point
    predictions: np.ndarray
    shares: list[float]

    def predicted(self, target: Target) -> Predicted:
        """Plain data, for FoldPlan.predicted."""
        return {"score": target.score(self.predictions), "latency_ms": self.latency_ms, "shares": self.shares}


@dataclass(frozen=True)
class CalibratedModel:
    """What is known of one model on the tune rows: output (N, K) at its temperature, milliseconds (N,) on full text."""

    name: str
    temperature: float
    weight: float
    output: np.ndarray
    pooled: np.ndarray | None
    ms: np.ndarray
    ms_importance: np.ndarray

    @property
    def full_text(self) -> Known:
        return Known(self.output, self.pooled, self.ms)


class Search:
    """One search over the rows of `profile`. `exhaustive` runs every setting on every row: what regret is held against.

    best: the fastest candidate so far; run: passes of large models on pruned text; pairwise: the best of two levels or
    fewer, once three are searched.
    """

    def __init__(self, profile: Profile, target: Target, options: CascadeConfig, exhaustive: bool = False) -> None:
        self.profile, self.target, self.options, self.exhaustive = profile, target, options, exhaustive
        self.n = len(profile.rows)
        self.models = {name: self._calibrated(name) for name in profile.names}
        self.dispatcher = DISPATCHERS[options.dispatcher]
        # With a margin of more than one standard error, or a bootstrapped one, a right answer more can widen it
        rises = target.metric == "accuracy" and target.margin_se <= 1
        self.hope = target if rises else replace(target, margin_se=0.0)
        self.best: Candidate | None = None
        self.pairwise: Candidate | None = None
        self.run = 0
        self._agreements: dict[tuple, tuple[Agreement, np.ndarray]] = {}
        self._pruned: dict[PruneKey, Known] = {}

    def _calibrated(self, name: str) -> CalibratedModel:
        model = self.profile.models[name]
        calibrate = self.options.calibrate and not self.profile.is_regression
        temperature = fit_temperature(model.logits, self.profile.labels) if calibrate else 1.0
        output, weight = outputs_of(model.logits, temperature), vote_weight(model.logits, self.profile.labels)
        ms, ms_importance = (model.latency(model.tokens, importance) for importance in (False, True))
        return CalibratedModel(name, temperature, weight, output, model.pooled, ms, ms_importance)

    @property
    def limit_ms(self) -> float:
        """What a candidate must be faster than to matter."""
        return np.inf if self.best is None else self.best.latency_ms

    # --- settings ---

    def settings(self, names: tuple[str, ...], alphas: tuple[float, ...]) -> Iterator[Point]:
        """A point for each ensemble, thresholds still open; none where a model without importance is to prune."""
        if any(alphas) and not self.profile.models[names[0]].importance:
            return
        o, models = self.options, [self.models[name] for name in names]
        for ensemble in o.ensembles:
            for share in TUNED_SHARES if ensemble == "tuned" else (0.5,):
                yield Point(
                    models=list(names),
                    temperatures=[model.temperature for model in models],
                    weights=[model.weight for model in models],
                    alphas=list(alphas),
                    ensemble=ensemble,
                    share=share,
                    confidence=o.confidence,
                    dispatcher=o.dispatcher,
                    sigmoid_k=o.sigmoid_k,
                    importance=o.importance,
                    pruning=o.pruning,
                    seed=self.profile.seed,
                )

    def sure(self, point: Point, level: int, output: np.ndarray, pooled: np.ndarray | None) -> np.ndarray:
        """(N,) confidence after `level` from its combined output (N, K); regression: cross-fitted, on full text."""
        if not self.profile.is_regression:
            return point.confidence_of(level, output, pooled, self.profile.rows)
        agreement, cross_fitted = self._agreement(point, level)
        confidences = cross_fitted if level == 0 else agreement(pooled, output[:, 0])
        return point.dispatch(confidences, level, self.profile.rows)

    def _agreement(self, point: Point, level: int) -> tuple[Agreement, np.ndarray]:
        key = (*point.models[: level + 1], point.models[-1], level and (point.ensemble, point.share))
        if key not in self._agreements:
            models = [self.models[name] for name in point.models]
            score = point.combine_rows([model.output for model in models[: level + 1]])[:, 0]
            self._agreements[key] = fit_agreement(models[level].pooled, score, models[-1].output[:, 0])
        return self._agreements[key]

    def cut(self, point: Point) -> Cut:
        """All rows by the confidence of the first level."""
        small = self.models[point.models[0]]
        return Cut.of(self.sure(point, 0, small.output, small.pooled), np.arange(self.n), self.dispatcher)

    def reading(self, point: Point, level: int) -> Known:
        """What `level`, not the first, says of its text: full, or pruned and known as far as it was run."""
        alpha = point.alphas[level - 1]
        if alpha == 0:
            return self.models[point.models[level]].full_text
        key = PruneKey(point.models[point.source(level)], point.models[level], alpha, point.importance, point.pruning)
        if key not in self._pruned:
            self._pruned[key] = Known.of_pruned(key, self.profile)
        return self._pruned[key]

    # --- one and two levels ---

    def singles(self) -> None:
        """Every model alone, unless it failed on some row: there is no level after it."""
        for name, model in self.models.items():
            predictions = predictions_from(model.output)
            if np.isfinite(model.output).all() and self.target.meets(predictions):
                self.offer(Candidate(float(model.ms.mean()), Point.of_one(name), predictions, [1.0]))

    def pairs(self) -> None:
        """Every pair on full text, then pruned, those first that were fastest on full text: they stop the others."""
        order = {names: self._pair(names, 0.0) for names in combinations(self.models, 2)}
        for alpha in sorted(set(self.options.alphas) - {0.0}):
            for names in sorted(order, key=order.__getitem__):
                self._pair(names, alpha)

    def _pair(self, names: tuple[str, str], alpha: float) -> float:
        """Latency of the best point of a pair, infinite if none was looked at that meets the target."""
        small, latencies = self.models[names[0]], [np.inf]
        offered = alpha in self.options.alphas
        for point in self.settings(names, (alpha,)):
            spent = small.ms_importance if point.wants_importance(0) else small.ms
            last, base = self.reading(point, 1), predictions_from(small.output)
            step = LastStep(point, [small.output], base, float(spent.sum()), self.cut(point), last)
            candidate = self.last_threshold(step, self.limit_ms if alpha else np.inf)
            if candidate is not None:
                latencies.append(candidate.latency_ms)
                if offered:
                    self.offer(candidate)
        return min(latencies)

    # --- the last threshold ---

    def last_threshold(self, step: LastStep, limit_ms: float) -> Candidate | None:
        """The least re-routing that meets the target, below `limit_ms`. Rows not yet run are hoped to be right."""
        temperature = step.point.temperatures[-1]
        if self.exhaustive:
            self.ask(step.last, step.cut.order, temperature)
        checked = -1
        while True:
            other, known = self._other(step)
            latency = step.latency_ms(self.profile.level_ms(step.point.alphas[-1] > 0))
            reach = step.cut.counts[latency[step.cut.counts] < limit_ms]
            new = reach[(reach > checked) & (reach <= known)]
            count = self.target.first_met(step.base, other, step.cut.order, new)
            if count is not None:
                return self._candidate(step, count, float(latency[count]), other)
            checked = known
            count = self.hope.first_met(step.base, other, step.cut.order, reach[reach > known])
            if count is None:
                return None
            upto = min(max(count, known + self.n // CHUNKS), int(reach.max()))
            self.ask(step.last, step.cut.order[:upto], temperature)

    def _other(self, step: LastStep) -> tuple[np.ndarray, int]:
        """(N,) answers with the last level, hoped for where it has not run; how many rows in order it has run."""
        full_text = self.models[step.point.models[-1]].output
        other = self.hoped(step.base, predictions_from(step.point.combine_rows([*step.passed, full_text])))
        known = step.last.known(step.cut.order)
        rows = step.cut.order[:known]
        other[rows] = predictions_from(step.point.combine_rows([o[rows] for o in (*step.passed, step.last.output)]))
        return other, known

    def hoped(self, base: np.ndarray, full_text: np.ndarray) -> np.ndarray:
        """(N,) of two answers the better: what pruned text that has not run is hoped to say."""
        labels = self.profile.labels
        return np.where(np.abs(base - labels) <= np.abs(full_text - labels), base, full_text)

    def ask(self, reading: Known, rows: np.ndarray, temperature: float) -> None:
        """Makes `rows` known; those that turn out slower than hoped are only timed for now."""
        if not reading.time(self.profile, rows) or self.exhaustive:
            self.run += reading.run(self.profile, rows, temperature)

    def _candidate(self, step: LastStep, count: int, latency_ms: float, other: np.ndarray) -> Candidate:
        predictions, routed = step.base.copy(), step.cut.order[:count]
        predictions[routed] = other[routed]
        shares = [*step.shares, (len(step.cut.order) - count) / self.n, count / self.n]
        return Candidate(latency_ms, replace(step.point, taus=[*step.taus, step.cut.tau(count)]), predictions, shares)

    def offer(self, candidate: Candidate) -> None:
        """Keeps the candidate if it is the fastest.

        Where fewer levels are allowed, one that never asks its last level is theirs.
        """
        if self.options.fewer_levels and candidate.shares[-1] == 0:
            return
        if self.best is None or candidate.latency_ms < self.best.latency_ms - 1e-12:
            self.best = candidate

    def forget(self) -> None:
        """What was offered so far does not count: it has fewer levels than are asked for."""
        self.best = None

    # --- the result ---

    @property
    def possible(self) -> int:
        """Passes that an exhaustive search runs. Triples read no pruned text that pairs do not: level 1 prunes."""
        pairs = sum(bool(self.profile.models[small].importance) for small, _ in combinations(self.models, 2))
        return pairs * len(set(self.options.alphas) - {0.0}) * self.n

    def finish(self) -> FoldPlan:
        """The plan of the best candidate."""
        assert self.best is not None, "search() has refused a search without a candidate"
        predicted = self.best.predicted(self.target)
        predicted["passes"] = {"run": self.run, "exhaustive": self.possible}
        if self.pairwise is not None:
            beside = self.pairwise.predicted(self.target)
            predicted["pairwise"] = {**beside, "point": self.plain(self.pairwise.point)}
        return FoldPlan(self.profile.rows.tolist(), None, self.target.value, self.plain(self.best.point), predicted)

    def plain(self, point: Point) -> dict:
        """The point as plain data, for regression with its fits."""
        fits = range(len(point.models) - 1) if self.profile.is_regression else ()
        return replace(point, agreement=[self._agreement(point, level)[0].plain() for level in fits]).plain()


def search(profile: Profile, target: Target, options: CascadeConfig) -> FoldPlan:
    """The fastest point that meets the target on the rows of `profile`, with what it is predicted to yield.

    Models alone are candidates too, so that no cascade is predicted to be slower than the best single model; with three
    levels, the best of fewer levels is kept beside in `predicted["pairwise"]`. Raises Unreachable, or Infeasible if
    fewer levels are ruled out and no other point is left.
    """
    finished = _searched(Search(profile, target, options))
    if finished.best is None:
        levels = f"at most {options.levels}" if options.fewer_levels else f"exactly {options.levels}"
        raise (Unreachable if options.fewer_levels else Infeasible)(
            f"{profile.task}: no cascade of {levels} levels meets the target {target.value:.4f} with its margin; the "
            f"best single model, {target.reference_model}, has {target.score(target.reference_predictions):.4f} on "
            "tune. Lower the target or set search.margin_se=0"
        )
    return finished.finish()


def _searched(search: Search) -> Search:
    stages = [search.singles, search.pairs, lambda: triples(search)][: search.options.levels]
    for stage in stages:
        if not search.options.fewer_levels:
            search.forget()
        stage()
    return search


def verify(profile: Profile, target: Target, options: CascadeConfig, plan: FoldPlan) -> dict[str, float]:
    """Searches again exhaustively: {exhaustive_ms, regret_pct, passes_share} of `plan` in predicted latency."""
    exhaustive, passes = _searched(Search(profile, target, options, exhaustive=True)), plan.predicted["passes"]
    if exhaustive.best is None:
        raise ValueError(f"{profile.task}: no point meets the target that this plan was made for; verify it by its own")
    return {
        "exhaustive_ms": exhaustive.best.latency_ms,
        "regret_pct": 100 * (plan.predicted["latency_ms"] / exhaustive.best.latency_ms - 1),
        "passes_share": passes["run"] / max(passes["exhaustive"], 1),
    }
