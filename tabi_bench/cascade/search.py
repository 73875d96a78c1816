"""Plan search: models x thresholds x pruning scale x ensemble, for the least predicted latency that meets the target.

Thresholds are searched exhaustively, on outputs that the profile already holds. What costs time is the large model on
pruned text. A threshold re-routes the least confident rows, so those rows come first: each setting runs only as many
as must be re-routed to meet the target if all rows not yet run were right, and stops once that many would be slower
than the best point found so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import fit_temperature, outputs_of, vote_weight
from tabi_bench.cascade.plans import Point
from tabi_bench.cascade.regression import Agreement, fit_agreement
from tabi_bench.config import CascadeConfig
from tabi_bench.evaluation.targets import Target
from tabi_bench.profiling.profile import Profile, PruneKey
from tabi_bench.system import FoldPlan, Unreachable

TUNED_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the last level, tried for the ensemble `tuned`
CHUNKS = 20  # a setting runs at least a 20th of the rows at a time
FIRST_THRESHOLDS = 48  # of level 1 in a triple, then all around the best of them; those of level 2 exhaustively
FAR = 1e3  # never and always of the sigmoid dispatcher


@dataclass(frozen=True)
class Candidate:
    """A point that meets the target on tune: its predicted mean latency, predictions (N,) and share of each level."""

    latency_ms: float
    point: Point
    predictions: np.ndarray
    shares: list[float]


@dataclass(frozen=True)
class Rung:
    """What is known of one model on the tune rows: output (N, K) at its temperature, milliseconds (N,) on full text."""

    name: str
    temperature: float
    weight: float
    output: np.ndarray
    pooled: np.ndarray | None
    ms: np.ndarray
    ms_importance: np.ndarray


@dataclass(frozen=True)
class Cut:
    """Some rows, least confident first, and the thresholds between them.

    order: (M,) positions; confidence: (M,) in that order, -inf where it is not a number: such rows always re-route.
    """

    order: np.ndarray
    confidence: np.ndarray
    far: bool = False  # perturbed confidences have no natural ends

    @classmethod
    def of(cls, confidence: np.ndarray, positions: np.ndarray, far: bool) -> Cut:
        sure = np.nan_to_num(confidence[positions], nan=-np.inf)
        ascending = np.argsort(sure, kind="stable")
        return cls(positions[ascending], sure[ascending], far)

    @cached_property
    def counts(self) -> np.ndarray:
        """Ascending numbers of rows that some threshold re-routes: not between equals, never short of a NaN."""
        between = np.flatnonzero(self.confidence[1:] > self.confidence[:-1]) + 1
        ends = [] if np.isneginf(self.confidence[:1]).any() else [0]
        return np.unique(np.concatenate([ends, between, [len(self.order)]]).astype(np.int64))

    def tau(self, count: int) -> float:
        """The threshold that re-routes `count` rows: midway between neighbours."""
        below, above = self.confidence[:count], self.confidence[count:]
        if not len(above):
            return FAR if self.far else rules.ALWAYS
        if not len(below) or np.isneginf(below[-1]):
            return -FAR if self.far else rules.NEVER
        return float((below[-1] + above[0]) / 2)


class Search:
    """One search over the rows of `profile`. `exhaustive` runs every setting on every row: what regret is held against.

    best: the fastest candidate so far; run, possible: passes of large models on pruned text, and how many an exhaustive
    search runs; pairwise: the best of two levels or fewer, once three are searched.
    """

    def __init__(self, profile: Profile, target: Target, options: CascadeConfig, exhaustive: bool = False) -> None:
        self.profile, self.target, self.options, self.exhaustive = profile, target, options, exhaustive
        self.n = len(profile.rows)
        self.rungs = {name: self._rung(name) for name in profile.names}
        self.far = options.dispatcher == "sigmoid"
        self.best: Candidate | None = None
        self.pairwise: dict | None = None
        self.run, self.possible = 0, 0
        self._agreements: dict[tuple, tuple[Agreement, np.ndarray]] = {}
        self._seen: dict[PruneKey, Seen] = {}

    def _rung(self, name: str) -> Rung:
        model = self.profile.models[name]
        calibrate = self.options.calibrate and not self.profile.is_regression
        temperature = fit_temperature(model.logits, self.profile.labels) if calibrate else 1.0
        output, weight = outputs_of(model.logits, temperature), vote_weight(model.logits, self.profile.labels)
        ms, ms_importance = (model.latency(model.tokens, importance) for importance in (False, True))
        return Rung(name, temperature, weight, output, model.pooled, ms, ms_importance)

    # --- settings ---

    def settings(self, names: tuple[str, ...], alphas: tuple[float, ...]) -> Iterator[Point]:
        """A point for each ensemble, thresholds still open."""
        o, rungs = self.options, [self.rungs[name] for name in names]
        for ensemble in o.ensembles:
            for share in TUNED_SHARES if ensemble == "tuned" else (0.5,):
                yield Point(
                    models=list(names),
                    temperatures=[rung.temperature for rung in rungs],
                    weights=[rung.weight for rung in rungs],
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
        return self._perturbed(point, level, confidences)

    def _perturbed(self, point: Point, level: int, confidences: np.ndarray) -> np.ndarray:
        if not self.far:
            return confidences
        return rules.perturb(confidences, point.sigmoid_k, rules.draws(point.seed, self.profile.rows, stream=level))

    def _agreement(self, point: Point, level: int) -> tuple[Agreement, np.ndarray]:
        key = (*point.models[: level + 1], point.models[-1], level and (point.ensemble, point.share))
        if key not in self._agreements:
            rungs = [self.rungs[name] for name in point.models]
            passed = list(range(level + 1))
            score = point.combine([rungs[k].output for k in passed], passed)[:, 0]
            self._agreements[key] = fit_agreement(rungs[level].pooled, score, rungs[-1].output[:, 0])
        return self._agreements[key]

    def finished(self, point: Point, taus: list[float]) -> Point:
        """The point with its thresholds, and for regression with its fits."""
        fits = range(len(point.models) - 1) if self.profile.is_regression else ()
        agreement = [self._agreement(point, level)[0].plain() for level in fits]
        return replace(point, taus=taus, agreement=agreement)

    def offer(self, latency_ms: float, point: Point, taus: list[float], said: np.ndarray, shares: list[float]) -> None:
        """Keeps the candidate if it is the fastest."""
        if self.best is None or latency_ms < self.best.latency_ms - 1e-12:
            self.best = Candidate(latency_ms, self.finished(point, taus), said, shares)

    # --- one and two levels ---

    def singles(self) -> None:
        """Every model alone."""
        for name, rung in self.rungs.items():
            said = rules.label_of(rung.output)
            if self.target.meets(said):
                point = next(self.settings((name,), ()))
                self.offer(float(rung.ms.mean()), replace(point, ensemble="large"), [], said, [1.0])

    def pairs(self) -> None:
        """Every pair on full text, then pruned: the small settings first, whose incumbents stop the others."""
        pairs = list(combinations(self.rungs, 2))
        for alpha in sorted(set(self.options.alphas)):
            self.possible += len(pairs) * self.n * (alpha > 0)
            for names in sorted(pairs, key=lambda pair: sum(self.rungs[name].ms.mean() for name in pair)):
                self._pair(names, alpha)

    def _pair(self, names: tuple[str, str], alpha: float) -> None:
        small, large = (self.rungs[name] for name in names)
        points = list(self.settings(names, (alpha,)))
        cut = Cut.of(self.sure(points[0], 0, small.output, small.pooled), np.arange(self.n), self.far)
        spent = small.ms_importance if alpha > 0 else small.ms
        if alpha == 0:
            seen = Seen(large.output, large.pooled, large.ms, self.n)
        else:
            seen = self.seen(PruneKey(*names, alpha, self.options.importance, self.options.pruning))
            if not self._timed(seen, cut, small, large, spent):
                return
        for point in points:
            self._thresholds(point, cut, small, spent, seen)

    def _timed(self, seen: Seen, cut: Cut, small: Rung, large: Rung, spent: np.ndarray) -> bool:
        """Times the pruned texts of the rows that matter (tokenising, no model runs); False if none can matter."""
        cheapest = np.full(self.n, large.ms.min())
        reach = self._reach(cut, spent, cheapest)
        base = rules.label_of(small.output)
        right = self.profile.labels.astype(base.dtype)
        if not self.exhaustive and self.target.first_met(base, right, cut.order, reach) is None:
            return False
        self.time(seen, cut.order[: reach.max()])
        return True

    def _reach(self, cut: Cut, spent: np.ndarray, ms: np.ndarray) -> np.ndarray:
        """The counts at which a pair would still be faster than the best so far, large model at `ms` (N,)."""
        if self.best is None or self.exhaustive:
            return cut.counts
        return cut.counts[self._latency(cut, spent, ms)[cut.counts] < self.best.latency_ms]

    def _latency(self, cut: Cut, spent: np.ndarray, ms: np.ndarray) -> np.ndarray:
        """(N + 1,) mean latency by number of re-routed rows."""
        extra = np.cumsum(ms[cut.order] + self.profile.overhead_ms)
        return (spent.sum() + np.concatenate([[0.0], extra])) / self.n

    def _thresholds(self, point: Point, cut: Cut, small: Rung, spent: np.ndarray, seen: Seen) -> None:
        """The least re-routing that meets the target. Rows not yet run count as right, a bound on what they can be."""
        base = rules.label_of(small.output)
        latency, reach = self._latency(cut, spent, seen.ms), self._reach(cut, spent, seen.ms)
        if self.exhaustive and reach.size:
            self.look(point, seen, cut.order)
        while True:
            other = self.profile.labels.astype(base.dtype)
            known = cut.order[: self._known(seen, cut)]
            other[known] = rules.label_of(point.combine([small.output[known], seen.output[known]], [0, 1]))
            count = self.target.first_met(base, other, cut.order, reach)
            if count is None:
                return
            if count <= len(known):
                said = np.where(np.isin(np.arange(self.n), cut.order[:count]), other, base)
                shares = [1 - count / self.n, count / self.n]
                return self.offer(float(latency[count]), point, [cut.tau(count)], said, shares)
            upto = min(max(count, len(known) + self.n // CHUNKS), int(reach.max()))
            self.look(point, seen, cut.order[:upto])

    def _known(self, seen: Seen, cut: Cut) -> int:
        """How many rows in order have been run."""
        return self.n if seen.ran.all() else int((~seen.ran[cut.order]).argmax())

    # --- passes on pruned text ---

    def seen(self, key: PruneKey) -> Seen:
        """What is known so far of the large model of `key`; untimed rows never pay."""
        if key not in self._seen:
            empty = np.full((self.n, self.profile.n_outputs), np.nan)
            self._seen[key] = Seen(empty, None, np.full(self.n, np.inf), 0, key)
        return self._seen[key]

    def time(self, seen: Seen, positions: np.ndarray) -> None:
        """Latencies of pruned texts by their length."""
        new = positions[np.isinf(seen.ms[positions])]
        if len(new):
            tokens = self.profile.pruned_tokens(seen.key, new)
            seen.ms[new] = self.profile.models[seen.key.large].latency(tokens)

    def look(self, point: Point, seen: Seen, positions: np.ndarray) -> None:
        """Runs the large model on those of the pruned texts at `positions` that it has not seen."""
        new = positions[~seen.ran[positions]]
        if len(new):
            pruned = self.profile.pruned(seen.key, new)
            self.run += len(new)
            seen.add(new, outputs_of(pruned.logits, self.rungs[seen.key.large].temperature), pruned.pooled)


class Seen:
    """A model's outputs (N, K), pooled vectors (N, H) and milliseconds (N,) on what it reads, as far as it `ran`."""

    def __init__(
        self, output: np.ndarray, pooled: np.ndarray | None, ms: np.ndarray, ran: int, key: PruneKey | None = None
    ) -> None:
        self.output, self.pooled, self.ms, self.key = output, pooled, ms, key
        self.ran = np.arange(len(ms)) < ran

    def add(self, positions: np.ndarray, output: np.ndarray, pooled: np.ndarray | None) -> None:
        self.output[positions], self.ran[positions] = output, True
        if pooled is not None:
            if self.pooled is None:
                self.pooled = np.zeros((len(self.ms), pooled.shape[1]))
            self.pooled[positions] = pooled


def search(profile: Profile, target: Target, options: CascadeConfig) -> FoldPlan:
    """The fastest point that meets the target on the rows of `profile`, with what it is predicted to yield.

    Models alone are candidates too, so that no cascade is predicted to be slower than the best single model; with three
    levels, the best of fewer levels is kept beside in `predicted["pairwise"]`. Raises Unreachable.
    """
    found = Search(profile, target, options)
    _run(found)
    if found.best is None:
        raise Unreachable(
            f"{profile.task}: no cascade of at most {options.levels} levels meets the target {target.value:.4f} with "
            f"its margin; the best single model, {target.reference_model}, has "
            f"{target.score(target.reference_predictions):.4f} on tune. Lower the target or set search.margin_se=0"
        )
    best = found.best
    predicted = {
        "score": target.score(best.predictions),
        "latency_ms": best.latency_ms,
        "shares": best.shares,
        "passes": {"run": found.run, "exhaustive": found.possible},
    }
    if options.levels > 2:
        predicted["pairwise"] = found.pairwise
    return FoldPlan(profile.rows.tolist(), None, target.value, best.point.plain(), predicted)


def _run(found: Search) -> None:
    from tabi_bench.cascade.triples import triples

    found.singles()
    if found.options.levels > 1:
        found.pairs()
    if found.options.levels > 2:
        triples(found)


def verify(profile: Profile, target: Target, options: CascadeConfig, plan: FoldPlan) -> dict[str, float]:
    """Searches again exhaustively: {exhaustive_ms, regret_pct, passes_share} of `plan` in predicted latency."""
    found = Search(profile, target, options, exhaustive=True)
    _run(found)
    best, passes = found.best.latency_ms, plan.predicted["passes"]
    return {
        "exhaustive_ms": best,
        "regret_pct": 100 * (plan.predicted["latency_ms"] / best - 1),
        "passes_share": passes["run"] / max(passes["exhaustive"], 1),
    }
