"""Plan search: models x thresholds x pruning scale x ensemble, for the least predicted latency that meets the target.

Thresholds are searched exhaustively on cached logits. What costs time is the large model on pruned text; it runs only
on rows that could still matter: a setting stops as soon as even the best that its unseen rows could bring loses to the
incumbent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import AgreementModel, fit_agreement, fit_temperature
from tabi_bench.config import CascadeConfig
from tabi_bench.evaluation.metrics import score
from tabi_bench.evaluation.targets import Target, predictions_of
from tabi_bench.profiling.profile import Profile, PruneKey

FIRST_THRESHOLDS = 48  # of level 1 in a triple; those of level 2 are searched exhaustively
STEP = 64  # rows run at a time where no bound on the unseen ones is known (Matthews, Pearson)


@dataclass
class Candidate:
    """An operating point that meets the target on tune."""

    latency_ms: float
    point: dict[str, Any]
    predictions: np.ndarray
    shares: list[float]


@dataclass
class Cut:
    """Rows in the order in which a falling threshold re-routes them, and the thresholds between them."""

    order: np.ndarray  # (M,) positions, least confident first
    confidence: np.ndarray  # (M,) in that order; -inf where it is not a number

    @classmethod
    def of(cls, confidence: np.ndarray, positions: np.ndarray) -> Cut:
        c = np.nan_to_num(confidence[positions], nan=-np.inf)
        ascending = np.argsort(c, kind="stable")
        return cls(positions[ascending], c[ascending])

    @cached_property
    def allowed(self) -> np.ndarray:
        """(M + 1,) k for which some threshold re-routes just the first k: not between equals, never short of a NaN."""
        inner = self.confidence[1:] > self.confidence[:-1]
        return np.concatenate([[not np.isneginf(self.confidence[:1]).any()], inner, [True]])

    def tau(self, k: int) -> float:
        """Midway between the neighbouring observed confidences; beyond them 0 (never) or above 1 (always)."""
        c = self.confidence
        if k == 0:
            return float(min(0.0, c[0] - 1.0)) if c[0] < 0 else 0.0
        if k == len(c):
            return float(max(1.1, c[-1] + 1.0)) if c[-1] > 1 else 1.1
        low = c[k - 1] if np.isfinite(c[k - 1]) else c[k] - 1.0
        return float((low + c[k]) / 2)


@dataclass
class Chain:
    """One sequence of models with its pruning scale and ensemble: everything about it but the thresholds."""

    names: tuple[str, ...]
    alpha: float
    ensemble: str
    weights: list[float]
    large_only: bool
    agreement: list[dict] = field(default_factory=list)


class Search:
    """One search on one set of tune rows. `run` returns the best candidate; `statistics` says what it cost."""

    def __init__(self, profile: Profile, target: Target, options: CascadeConfig):
        self.profile, self.target, self.options = profile, target, options
        self.n = len(profile.rows)
        self.all = np.arange(self.n)
        self.best: Candidate | None = None
        self.best_pair: Candidate | None = None
        self.temperature = {name: self._temperature(name) for name in profile.names}
        self.outputs = {name: self._output(name, model.logits) for name, model in profile.models.items()}
        self.quality = {name: self._quality(name) for name in profile.names}
        self._agreements: dict[tuple[str, ...], AgreementModel] = {}
        self.draws = rules.draws(profile.seed, profile.rows)
        self.passes = 0

    # --- what the models say ------------------------------------------------------------------------------------------

    def _temperature(self, name: str) -> float:
        if self.profile.is_regression or not self.options.calibrate:
            return 1.0
        return fit_temperature(self.profile.models[name].logits, self.profile.labels)

    def _output(self, name: str, logits: np.ndarray) -> np.ndarray:
        """(N, K) probabilities at the model's temperature, or scores (N, 1)."""
        if self.profile.is_regression:
            return logits.astype(np.float64)
        return rules.softmax(logits, self.temperature[name])

    def _quality(self, name: str) -> float:
        """The ensemble weight: share of right answers on full text, or max(Pearson, 0.01)."""
        labels, said = self.profile.labels, predictions_of(self.outputs[name])
        if self.profile.is_regression:
            return max(score("pearson", labels, said), 0.01)
        return score("accuracy", labels, said)

    def _confidence(self, level: int, chain: Chain, combined: np.ndarray, pooled: np.ndarray | None) -> np.ndarray:
        """(n,) confidence after `level`; for regression the agreement with the chain's last model."""
        if self.profile.is_regression:
            return AgreementModel(**chain.agreement[level])(pooled, combined[:, 0])
        return rules.confidence(combined, self.options.confidence)

    def _softened(self, c: np.ndarray, level: int) -> np.ndarray:
        if self.options.dispatcher == "threshold":
            return c
        u = self.draws if level == 0 else rules.draws(self.profile.seed, self.profile.rows, str(level))
        return rules.soften(c, u, self.options.sigmoid_k)

    def _chain(self, names: tuple[str, ...], alpha: float, ensemble: str) -> Chain:
        chain = Chain(names, alpha, ensemble, self._weights(names, ensemble), ensemble == "large")
        if self.profile.is_regression:
            chain.agreement = [self._agreement(names[: i + 1], names[-1]).to_dict() for i in range(len(names) - 1)]
        return chain

    def _agreement(self, passed: tuple[str, ...], last: str) -> AgreementModel:
        """Fitted on full text, once per (levels passed, last model)."""
        key = (*passed, last)
        if key not in self._agreements:
            weights = [self.quality[name] for name in passed]
            said = rules.combine([self.outputs[name] for name in passed], weights)[:, 0]
            pooled = self.profile.models[passed[-1]].pooled
            self._agreements[key] = fit_agreement(pooled, said, self.outputs[last][:, 0])
        return self._agreements[key]

    def _weights(self, names: tuple[str, ...], ensemble: str) -> list[float]:
        if ensemble == "log_odds":
            return [rules.log_odds_weight(self.quality[name], self.n) for name in names]
        if ensemble == "tuned":
            return self._tuned(names)
        return [self.quality[name] for name in names]

    def _tuned(self, names: tuple[str, ...]) -> list[float]:
        """One scalar: the last level's share of the vote, the best of a grid on full text."""
        outputs = [self.outputs[name] for name in names]
        grid = [[*[(1 - w) / (len(names) - 1)] * (len(names) - 1), w] for w in np.linspace(0.5, 1.0, 11).tolist()]
        return max(grid, key=lambda w: self.target.score(predictions_of(rules.combine(outputs, w))))

    # --- the search ---------------------------------------------------------------------------------------------------

    def run(self) -> Candidate | None:
        """The best candidate, or None if not even a single model meets the target."""
        for name in self.profile.names:
            self._single(name)
        pairs = list(combinations(self.profile.names, 2)) if self.options.levels >= 2 else []
        triples = list(combinations(self.profile.names, 3)) if self.options.levels >= 3 else []
        for names in pairs:
            for ensemble in self.options.ensembles:
                self._pair(self._chain(names, 0.0, ensemble))
        for alpha in self._alphas:
            for names in pairs:
                self._pruned_pair(names, alpha)
        self.best_pair = self.best
        for names in triples:
            for ensemble in self.options.ensembles:
                self._triple(names, ensemble)
        return self.best

    @property
    def _alphas(self) -> list[float]:
        return sorted(alpha for alpha in self.options.alphas if alpha > 0)

    def statistics(self) -> dict[str, Any]:
        """Large-model passes on pruned text: run, what an exhaustive search over pairs would run, and their ratio."""
        pairs = len(self.profile.names) * (len(self.profile.names) - 1) // 2 if self.options.levels >= 2 else 0
        exhaustive = pairs * len(self._alphas) * self.n
        return {"passes_run": self.passes, "passes_exhaustive": exhaustive}

    def _offer(self, latency: float, chain: Chain, taus: list[float], said: np.ndarray, shares: list[float]) -> None:
        if self.best is not None and latency >= self.best.latency_ms:
            return
        self.best = Candidate(latency, self._point(chain, taus), said, shares)

    def _point(self, chain: Chain, taus: list[float]) -> dict[str, Any]:
        return {
            "models": list(chain.names),
            "taus": taus,
            "alpha": chain.alpha,
            "ensemble": chain.ensemble,
            "weights": chain.weights,
            "temperatures": [self.temperature[name] for name in chain.names],
            "confidence": self.options.confidence,
            "dispatcher": self.options.dispatcher,
            "sigmoid_k": self.options.sigmoid_k,
            "importance": self.options.importance,
            "pruning": self.options.pruning,
            "agreement": chain.agreement,
        }

    def _single(self, name: str) -> None:
        said = predictions_of(self.outputs[name])
        if self.target.meets(said):
            chain = self._chain((name,), 0.0, "large")
            self._offer(self.profile.models[name].mean_ms, chain, [], said, [1.0])

    def _time(self, name: str, importance: bool = False) -> np.ndarray:
        model = self.profile.models[name]
        return model.latency(model.tokens, importance)

    def _first(self, chain: Chain) -> tuple[np.ndarray, Cut, np.ndarray]:
        """Level 1: its output (N, K), its cut of all rows, its time (N,)."""
        small = chain.names[0]
        output = self.outputs[small]
        c = self._softened(self._confidence(0, chain, output, self.profile.models[small].pooled), 0)
        return output, Cut.of(c, self.all), self._time(small, chain.alpha > 0)

    def _pair(self, chain: Chain) -> None:
        """All thresholds of a pair on full text: no model runs."""
        p1, cut, t1 = self._first(chain)
        base = predictions_of(p1)
        other = predictions_of(rules.combine([p1, self.outputs[chain.names[1]]], chain.weights, chain.large_only))
        k = self.target.first_met(base, other, cut.order, cut.allowed)
        if k is not None:
            self._offer_pair(chain, cut, k, base, other, t1, self._time(chain.names[1])[cut.order])

    def _offer_pair(self, chain, cut: Cut, k: int, base, other, t1: np.ndarray, t2: np.ndarray) -> None:
        """t2: (N,) in the cut's order."""
        said = base.copy()
        said[cut.order[:k]] = other[cut.order[:k]]
        latency = t1.mean() + (t2[:k] + self.profile.overhead_ms).sum() / self.n
        self._offer(float(latency), chain, [cut.tau(k)], said, [1 - k / self.n, k / self.n])

    def _pruned_pair(self, names: tuple[str, str], alpha: float) -> None:
        """A pair under pruning. Runs the large model on the least confident rows, and on no more than can matter."""
        chains = [self._chain(names, alpha, ensemble) for ensemble in self.options.ensembles]
        p1, cut, t1 = self._first(chains[0])
        key = PruneKey(names[0], names[1], alpha, self.options.importance, self.options.pruning)
        reach = self._affordable(t1.mean(), np.full(self.n, self._time(names[1]).min()))
        if not self._could_meet(p1, cut, reach):
            return
        t2 = np.full(self.n, np.inf)
        tokens = self.profile.pruned_tokens(key, cut.order[:reach])
        t2[:reach] = self.profile.models[names[1]].latency(tokens)
        reach = self._affordable(t1.mean(), t2)
        seen = np.full((self.n, self.profile.n_outputs), np.nan)
        done = 0
        for chain in chains:
            done = self._progress(chain, key, cut, p1, t1, t2, seen, done, reach)

    def _affordable(self, spent: float, t2: np.ndarray) -> int:
        """How many rows, in order, may be re-routed before the incumbent is faster."""
        if self.best is None:
            return int(np.isfinite(t2).sum())
        budget = (self.best.latency_ms - spent) * self.n
        return int(np.searchsorted(np.cumsum(t2 + self.profile.overhead_ms), budget))

    def _could_meet(self, p1: np.ndarray, cut: Cut, reach: int) -> bool:
        """Whether the target could be met if all re-routed rows were right."""
        if reach <= 0:
            return False
        base, right = predictions_of(p1), self.profile.labels.astype(predictions_of(p1).dtype)
        k = self.target.first_met(base, right, cut.order[:reach], cut.allowed[: reach + 1])
        return k is not None

    def _progress(self, chain, key, cut: Cut, p1, t1, t2, seen, done: int, reach: int) -> int:
        """Runs more rows until some k is met, or none can be. Unseen rows count as right: a bound on accuracy."""
        base = predictions_of(p1)
        bounded = self.profile.metric == "accuracy"
        order, allowed = cut.order[:reach], cut.allowed[: reach + 1]
        while True:
            other = self.profile.labels.astype(base.dtype).copy()
            known = order[:done]
            both = rules.combine([p1[known], seen[known]], chain.weights, chain.large_only)
            other[known] = predictions_of(both)
            within = reach if bounded else done
            k = self.target.first_met(base, other, order[:within], allowed[: within + 1])
            if k is not None and k <= done:
                self._offer_pair(chain, cut, k, base, other, t1, t2)
                return done
            if k is None and (bounded or done >= reach):
                return done
            upto = k if bounded else min(done + STEP, reach)
            seen[order[done:upto]] = self._run(key, order[done:upto])
            done = upto

    def _run(self, key: PruneKey, positions: np.ndarray) -> np.ndarray:
        self.passes += len(positions)
        return self._output(key.large, self.profile.pruned(key, positions).logits)

    # --- three levels -------------------------------------------------------------------------------------------------

    def _triple(self, names: tuple[str, ...], ensemble: str) -> None:
        """Both thresholds jointly on full text; then each alpha at the first threshold that was best there."""
        k1 = self._triple_full(self._chain(names, 0.0, ensemble))
        for alpha in self._alphas:
            if k1 is not None:
                self._triple_pruned(self._chain(names, alpha, ensemble), k1)

    def _triple_full(self, chain: Chain) -> int | None:
        _, cut, t1 = self._first(chain)
        outputs = [self.outputs[name] for name in chain.names]
        pooled = self.profile.models[chain.names[1]].pooled
        t2, t3 = self._time(chain.names[1]), self._time(chain.names[2])
        grid = np.flatnonzero(cut.allowed)
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, FIRST_THRESHOLDS).astype(int))]
        found = {int(k): self._inner(chain, cut, int(k), outputs, pooled, t1, t2, t3) for k in grid if k > 0}
        found = {k: latency for k, latency in found.items() if latency is not None}
        return min(found, key=found.__getitem__) if found else None

    def _triple_pruned(self, chain: Chain, k1: int) -> None:
        """At the full-text optimum's first threshold, both later levels on pruned text."""
        p1, cut, t1 = self._first(chain)
        rows = cut.order[:k1]
        outputs, times, pooled = [p1], [], None
        for name in chain.names[1:]:
            key = PruneKey(chain.names[0], name, chain.alpha, self.options.importance, self.options.pruning)
            t = np.zeros(self.n)
            t[rows] = self.profile.models[name].latency(self.profile.pruned_tokens(key, rows))
            times.append(t)
        if self.best and t1.mean() + (times[0] + self.profile.overhead_ms)[rows].sum() / self.n >= self.best.latency_ms:
            return
        for name in chain.names[1:]:
            key = PruneKey(chain.names[0], name, chain.alpha, self.options.importance, self.options.pruning)
            out = np.full_like(p1, np.nan)
            self.passes += len(rows)
            pruned = self.profile.pruned(key, rows)
            out[rows] = self._output(name, pruned.logits)
            outputs.append(out)
            if name == chain.names[1] and pruned.pooled is not None:
                pooled = np.zeros((self.n, pruned.pooled.shape[1]))
                pooled[rows] = pruned.pooled
        self._inner(chain, cut, k1, outputs, pooled, t1, *times)

    def _inner(self, chain, cut: Cut, k1: int, outputs, pooled, t1, t2, t3) -> float | None:
        """The best second threshold given that level 1 re-routes its k1 least confident rows; its latency, or None."""
        second = rules.combine(outputs[:2], chain.weights[:2], chain.large_only)
        third = rules.combine(outputs, chain.weights, chain.large_only)
        rows = cut.order[:k1]
        base = predictions_of(outputs[0])
        base[rows] = predictions_of(second[rows])
        inner = Cut.of(self._softened(self._confidence(1, chain, second, pooled), 1), rows)
        other = predictions_of(third)
        k2 = self.target.first_met(base, other, inner.order, inner.allowed)
        if k2 is None:
            return None
        said = base.copy()
        said[inner.order[:k2]] = other[inner.order[:k2]]
        over = self.profile.overhead_ms
        latency = t1.mean() + ((t2[rows] + over).sum() + (t3[inner.order[:k2]] + over).sum()) / self.n
        shares = [1 - k1 / self.n, (k1 - k2) / self.n, k2 / self.n]
        self._offer(float(latency), chain, [cut.tau(k1), inner.tau(k2)], said, shares)
        return float(latency)


def exhaustive(profile: Profile, target: Target, options: CascadeConfig) -> float | None:
    """Predicted latency of the best point when every pair runs every alpha on every row: regret is held against it."""
    search = Search(profile, target, options)
    for name in profile.names:
        search._single(name)
    for names in combinations(profile.names, 2):
        for alpha in [0.0, *search._alphas]:
            for ensemble in options.ensembles:
                chain = search._chain(names, alpha, ensemble)
                if alpha == 0:
                    search._pair(chain)
                    continue
                p1, cut, t1 = search._first(chain)
                key = PruneKey(names[0], names[1], alpha, options.importance, options.pruning)
                pruned = profile.run_pruned(key, profile.rows[cut.order])
                p2 = np.empty_like(p1)
                p2[cut.order] = search._output(names[1], pruned.logits)
                other = predictions_of(rules.combine([p1, p2], chain.weights, chain.large_only))
                base = predictions_of(p1)
                k = target.first_met(base, other, cut.order, cut.allowed)
                if k is not None:
                    t2 = profile.models[names[1]].latency(pruned.tokens)
                    search._offer_pair(chain, cut, k, base, other, t1, t2)
    return search.best.latency_ms if search.best else None
