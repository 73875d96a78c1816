"""DeeBERT: early exit from one model, at the first active off-ramp whose entropy is below a threshold.

After Xin et al., ACL 2020. An off-ramp after each layer reads what the model's own head reads. Training has two stages:
the zoo fine-tuned the model; the ramps are trained on its frozen hidden states (`off_ramps.py` beside this). Model,
active ramps and threshold are chosen on tune. Serving runs one segment of layers at a time: later layers do not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.common import Points, between_labels, decide, finite, fold_plan, full_text
from tabi_bench.cascade.rules import BAND, softmax
from tabi_bench.cascade.system import Stages
from tabi_bench.config import DeebertConfig
from tabi_bench.system import Answer, FoldPlan, Infeasible, Outcomes, Plan, PlanError

if TYPE_CHECKING:
    from pathlib import Path

    from tabi_bench.engines.base import Engine, SegmentedModel
    from tabi_bench.evaluation.targets import Target
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query, Task
    from tabi_bench.zoo.base import Zoo

CHANCE = 1e-3  # a plan that predicts exits and serves none is an error unless that had at least this probability


def entropy(logits: np.ndarray) -> np.ndarray:
    """(...,) entropy in nats of softmax(z), logits (..., K); NaN where a logit is not finite."""
    p = softmax(logits)
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def first_below(entropies: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """(...,) index of the first ramp whose entropy is below the threshold, R if none is.

    entropies: (R, ...) in order of the layers. A NaN is below nothing: fail expensive, never wrong.
    """
    below = entropies < threshold
    return np.where(below.any(axis=0), below.argmax(axis=0), len(entropies))


@dataclass(frozen=True)
class Exits:
    """One model with some of its ramps active, on N rows.

    layers: (R + 1,) of the ramps and of the model's own head; entropies: (R, N); answers: (R + 1, N) labels; tied:
    (R + 1, N) bool, nearly another label; trunk_ms: (R + 1, N) predicted time up to each exit, without the ramps, each
    of which takes ramp_ms.
    """

    model: str
    layers: tuple[int, ...]
    entropies: np.ndarray
    answers: np.ndarray
    tied: np.ndarray
    trunk_ms: np.ndarray
    ramp_ms: float

    @classmethod
    def of(cls, profile: Profile, name: str) -> Exits:
        """All ramps of a model. The trunk's time is the model's curve by length, times the share that has passed."""
        model, times = profile.models[name], profile.segments[name]
        layers = (*sorted(model.ramps), model.layers)
        logits = [*(model.ramps[layer] for layer in layers[:-1]), model.logits]
        trunk_ms = model.latency(model.tokens) * times.share[np.array(layers) - 1][:, None]
        entropies = np.stack([entropy(z) for z in logits[:-1]])
        answers, ties = (np.stack([said(z) for z in logits]) for said in (decide, between_labels))
        return cls(name, layers, entropies, answers, ties, trunk_ms, times.ramp_ms)

    def only(self, ramps: tuple[int, ...]) -> Exits:
        """The same model with only these of its ramps active."""
        at = [self.layers.index(layer) for layer in ramps]
        every, layers = [*at, -1], (*ramps, self.layers[-1])
        said = (self.entropies[at], self.answers[every], self.tied[every], self.trunk_ms[every])
        return Exits(self.model, layers, *said, self.ramp_ms)

    @cached_property
    def latency_ms(self) -> np.ndarray:
        """(R + 1, N) predicted, of leaving at each exit."""
        passed = np.minimum(np.arange(len(self.layers)) + 1, len(self.entropies))
        return self.trunk_ms + self.ramp_ms * passed[:, None]

    def thresholds(self, count: int) -> np.ndarray:
        """At most `count` thresholds midway between entropies seen, each of which lets some row exit."""
        seen = np.unique(self.entropies[np.isfinite(self.entropies)])
        between = np.append((seen[1:] + seen[:-1]) / 2, seen[-1:] + 1.0)
        return between[np.unique(np.linspace(0, len(between) - 1, min(count, len(between))).astype(int))]

    def left(self, threshold: float) -> np.ndarray:
        """(N,) index of the exit that each row takes."""
        return first_below(self.entropies, threshold)

    def at(self, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and milliseconds, both (N,), of rows that take these exits."""
        rows = np.arange(len(taken))
        return self.answers[taken, rows], self.latency_ms[taken, rows]


class Deebert:
    """Point: {"model", "ramps": active layers, 1-based, "entropy": threshold in nats, "ramps_hash": of all ramps}."""

    name = "deebert"

    def __init__(
        self, plan: Plan, models: dict[tuple[str, tuple[int, ...]], SegmentedModel], train_s: float = 0.0
    ) -> None:
        """models: by name and active ramps; train_s: seconds that training the ramps took."""
        self.plan_, self.points, self.models, self.train_s = plan, Points(plan), models, train_s
        self._served: dict[int, int] = {}  # exit of each query, as last answered

    @classmethod
    def prepare(
        cls, task: Task, zoo: Zoo, engine: Engine, profile: Profile, cache_dir: Path, options: DeebertConfig, seed: int
    ) -> Profile:
        """The profile with every ramp's logits and every layer's time; trains ramps that are not in the cache."""
        if task.is_regression:
            return profile
        from baselines.off_ramps import add_ramps

        return add_ramps(task, zoo, engine, profile, cache_dir, options.train, seed)

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: DeebertConfig) -> FoldPlan:
        """The fastest early exit that meets the target: over models, ramps and thresholds. Raises Infeasible."""
        if profile.is_regression:
            raise Infeasible(f"{profile.task}: early exit compares entropies of labels, and this task has a score")
        plain, tried, nearest = replace(target, margin_se=0.0), 0, 0.0
        cut = {name: Exits.of(profile, name) for name, model in profile.models.items() if model.ramps}
        for _, _, name, ramps, threshold in sorted(_candidates(cut, options)):
            exits = cut[name].only(ramps)
            taken = exits.left(threshold)
            labels, latency_ms = exits.at(taken)
            tried += 1
            if plain.meets(labels) and target.meets(labels):
                return _fold_plan(profile, target, exits, threshold, taken, labels, float(latency_ms.mean()))
            nearest = max(nearest, target.score(labels))
        why = f"the best of {tried} has {nearest:.4f}" if cut else "no model has two layers or more that can be cut"
        raise Infeasible(f"{profile.task}: no exit meets the target {target.value:.4f}; {why}")

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: DeebertConfig) -> Deebert:
        """Cuts each model after its active ramps. Raises PlanError for ramps that `prepare` has not brought."""
        from baselines.off_ramps import trained

        models, seconds = {}, {}
        for point in (fold.point for fold in plan.folds):
            every = trained(point["ramps_hash"])
            if every is None:
                raise PlanError(
                    f"this plan was made for other off-ramps of {point['model']} ({point['ramps_hash']}); "
                    "leave plan=null to make a new one"
                )
            seconds[every.hash] = every.train_s
            active = {layer: every.modules[layer] for layer in point["ramps"]}
            models.setdefault(_key(point), engine.load_segments(zoo[point["model"]], active))
        return cls(plan, models, sum(seconds.values()))

    def answer(self, query: Query) -> Answer:
        """Segment by segment; level k of the answer is the k-th active ramp, the last the model's own head.

        Raises NonFiniteOutput if the model's own head fails: a ramp that fails is passed.
        """
        clock, point = Stages(), self.points[query.id]
        model = self.models[_key(point)]
        encoding = model.encode(query.texts)
        clock.mark("tokenise")
        model.start(encoding)
        failures = 0
        for number in range(model.n_segments):
            logits = model.step()
            clock.mark(f"level{number + 1}")
            if number + 1 == model.n_segments:
                finite(logits, point["model"], query.id)
            elif not np.isfinite(logits).all():
                failures += 1
                continue
            elif entropy(logits) < point["entropy"]:
                break
        label = decide(logits).item()
        clock.mark("decide")
        self._served[query.id] = number
        return Answer(label, number, failures=failures, truncated=encoding.truncated, stages_ns=clock.ns)

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,), from profiled logits of the ramps."""
        at, fold = profile.at(rows), plan.fold_of(rows)
        labels, levels = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        latency_ms, borderline = np.empty(len(rows)), np.empty(len(rows), bool)
        for k, point in enumerate(served.point for served in plan.folds):
            mine = np.flatnonzero(fold == k)
            exits = Exits.of(profile.view(at[mine]), point["model"]).only(tuple(point["ramps"]))
            levels[mine] = exits.left(point["entropy"])
            labels[mine], latency_ms[mine] = exits.at(levels[mine])
            near = (np.abs(exits.entropies - point["entropy"]) < BAND).any(axis=0)
            borderline[mine] = near | exits.tied[levels[mine], np.arange(len(mine))]
        return full_text(rows, labels, latency_ms, levels=levels, borderline=borderline)

    def describe(self) -> Mapping[str, Any]:
        """Savings in percent over the queries served: of layers (as DeeBERT counts) and of time, as far as known here.

        `full_ms`: what the whole model takes for these queries, as profiled. Raises PlanError if the plan predicts
        exits and none was served.
        """
        folds = [{**fold.point, **fold.predicted} for fold in self.plan_.folds]
        return {"folds": folds, "ramps_train_s": self.train_s, **(self._savings() if self._served else {})}

    def _savings(self) -> dict[str, Any]:
        layers, expected = [], []
        by_point = {id(fold.point): fold.predicted for fold in self.plan_.folds}
        never = 1.0  # probability that nobody exits, if the plan is right
        for query, number in self._served.items():
            point = self.points[query]
            predicted, depth = by_point[id(point)], self.models[_key(point)].spec.layers
            layers.append([*point["ramps"], depth][number] / depth)
            expected.append((predicted["layers_saved"], predicted["latency_ms"], predicted["full_ms"]))
            never *= predicted["shares"][-1]
        if never < CHANCE and min(layers) == 1:
            raise PlanError("the plan predicts early exits, but none of the queries served exited early")
        saved, latency_ms, full_ms = np.mean(expected, axis=0).tolist()
        saving = {"layers_expected": 100 * saved, "layers_measured": 100 * (1 - float(np.mean(layers)))}
        return {"saving_pct": saving | {"time_expected": 100 * (1 - latency_ms / full_ms)}, "full_ms": full_ms}


def _key(point: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    return point["model"], tuple(point["ramps"])


def _candidates(cut: dict[str, Exits], options: DeebertConfig) -> Iterator[tuple[float, int, str, tuple, float]]:
    """(predicted mean latency, number of ramps, model, ramps, threshold) of everything that is tried."""
    for name, whole in cut.items():
        for size in range(1, min(options.max_ramps, len(whole.entropies)) + 1):
            for ramps in combinations(whole.layers[:-1], size):
                exits = whole.only(ramps)
                thresholds = exits.thresholds(options.thresholds)
                taken = first_below(exits.entropies[:, None], thresholds[:, None])  # (T, N)
                mean_ms = np.take_along_axis(exits.latency_ms, taken, axis=0).mean(axis=1)
                for ms, threshold in zip(mean_ms, thresholds, strict=True):
                    yield float(ms), size, name, ramps, float(threshold)


def _fold_plan(
    profile: Profile,
    target: Target,
    exits: Exits,
    threshold: float,
    taken: np.ndarray,
    labels: np.ndarray,
    latency_ms: float,
) -> FoldPlan:
    model, layers = profile.models[exits.model], np.array(exits.layers)
    point = {"model": exits.model, "ramps": list(exits.layers[:-1]), "entropy": threshold}
    point["ramps_hash"] = model.ramps_hash
    fold = fold_plan(profile, target, point, labels, latency_ms)
    fold.predicted["shares"] = (np.bincount(taken, minlength=len(layers)) / len(taken)).tolist()
    fold.predicted["layers_saved"] = float(1 - layers[taken].mean() / layers[-1])
    fold.predicted["full_ms"] = model.mean_ms
    return fold
