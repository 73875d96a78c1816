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

from tabi_bench.cascade.rules import BAND, label_of, softmax
from tabi_bench.config import DeebertConfig
from tabi_bench.system import Answer, Clock, FoldPlan, Infeasible, Item, Outcomes, Plan, PlanError, System

from .common import between_labels, finite, fold_plan, shares_of

if TYPE_CHECKING:
    import pandas as pd

    from tabi_bench.engines.base import SegmentedModel
    from tabi_bench.planning.targets import Target
    from tabi_bench.profiling.lab import Lab
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.records.record import Record

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
    def of(cls, profile: Profile, name: str, band: float = BAND) -> Exits:
        """All ramps of a model. The trunk's time is the model's curve by length, times the share that has passed.

        band: of probabilities that are nearly another label's.
        """
        model, times = profile.models[name], profile.segments[name]
        layers = (*sorted(model.ramps), model.layers)
        logits = [*(model.ramps[layer] for layer in layers[:-1]), model.logits]
        trunk_ms = model.latency(model.tokens) * times.share[np.array(layers) - 1][:, None]
        entropies = np.stack([entropy(z) for z in logits[:-1]])
        answers, ties = (np.stack([of(z) for z in logits]) for of in (label_of, lambda z: between_labels(z, band)))
        return cls(name, layers, entropies, answers, ties, trunk_ms, times.ramp_ms)

    def only(self, ramps: tuple[int, ...]) -> Exits:
        """The same model with only these of its ramps active."""
        at = [self.layers.index(layer) for layer in ramps]
        every, layers = [*at, -1], (*ramps, self.layers[-1])
        kept = (self.entropies[at], self.answers[every], self.tied[every], self.trunk_ms[every])
        return Exits(self.model, layers, *kept, self.ramp_ms)

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


class Deebert(System):
    """Point: {"model", "ramps": 1-based layers, "entropy": in nats, "ramps_hash", "layers": of the whole}."""

    name = "deebert"

    def __init__(self, point: dict[str, Any], model: SegmentedModel) -> None:
        """model: cut after the active ramps."""
        self.point, self.model, self.encoders = point, model, (model.encode,)

    @classmethod
    def check_point(cls, point: dict[str, Any], models: list[str]) -> None:
        """See System."""
        ramps, layers = point.get("ramps"), point.get("layers")
        if point.get("model") not in models:
            raise PlanError(f"model={point.get('model')}: the zoo has {', '.join(models)}")
        numbers = [*ramps, layers] if isinstance(ramps, list) and ramps else [0]
        if not all(isinstance(n, int) for n in numbers) or numbers != sorted(set(numbers)) or numbers[0] < 1:
            raise PlanError(f"ramps={ramps}: layers between 0 and layers={layers}, in order")
        if not isinstance(point.get("entropy"), int | float) or not np.isfinite(point["entropy"]):
            raise PlanError(f"entropy={point.get('entropy')}: a finite threshold, in nats")

    @classmethod
    def prepare(cls, lab: Lab, profile: Profile, options: DeebertConfig) -> Profile:
        """The profile with every ramp's logits and every layer's time; trains ramps that are not in the cache."""
        if profile.is_regression:
            return profile
        from .off_ramps import add_ramps

        return add_ramps(lab, profile, options.train)

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: DeebertConfig) -> FoldPlan:
        """The fastest early exit that meets the target: over models, ramps and thresholds. Raises Infeasible."""
        if profile.is_regression:
            raise Infeasible(f"{profile.task}: early exit compares entropies of labels, and this task has a score")
        plain, tried, nearest = replace(target, margin_se=0.0), 0, 0.0
        cut = {name: Exits.of(profile, name) for name, model in profile.models.items() if model.ramps}
        for _, _, name, ramps, threshold in sorted(_candidates(cut, options)):
            exits = cut[name].only(ramps)
            labels, _ = exits.at(exits.left(threshold))
            tried += 1
            if plain.meets(labels) and target.meets(labels):
                return _fold_plan(profile, target, exits, threshold)
            nearest = max(nearest, target.score(labels))
        why = f"the best of {tried} has {nearest:.4f}" if cut else "no model has two layers or more that can be cut"
        raise Infeasible(f"{profile.task}: no exit meets the target {target.value:.4f}; {why}")

    @classmethod
    def deploy(cls, point: dict[str, Any], lab: Lab, options: DeebertConfig) -> Deebert:
        """Cuts the model after its active ramps. Raises PlanError for ramps that `prepare` has not brought."""
        from .off_ramps import trained

        ramps = trained(lab, point["ramps_hash"])
        if ramps is None or not set(point["ramps"]) <= set(ramps.modules):
            raise PlanError(
                f"this plan was made for other off-ramps of {point['model']} ({point['ramps_hash']}); leave plan=null "
                "to make a new one"
            )
        active = {layer: ramps.modules[layer] for layer in point["ramps"]}
        return cls(point, lab.load_segments(point["model"], active))

    def run(self, stage: int, items: list[Item]) -> list[Answer | Item]:
        """Segment by segment; level k of the answer is the k-th active ramp, the last the model's own head.

        Raises NoAnswer if the model's own head fails: a ramp that fails is passed.
        """
        if len(items) > 1:
            return self._exit_batch(items)
        return [self._exit(item, Clock(item.so_far.stages_ns)) for item in items]

    def _exit_batch(self, items: list[Item]) -> list[Answer | Item]:
        """Each exit parts the batch: rows that leave drop out of it, and the others go on together."""
        clock, model, last = Clock(), self.model, self.model.n_segments - 1
        encodings = [item.encoding(model.encode) for item in items]
        clock.mark("tokenise")
        model.start_batch(encodings)
        answers: list[Any] = [None] * len(items)
        inside, rows = np.arange(len(items)), None
        for number in range(model.n_segments):
            logits = model.step_batch(rows)
            clock.mark(f"level{number + 1}")
            leaves = entropy(logits) < self.point["entropy"] if number < last else np.ones(len(inside), bool)
            for k in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
                items[inside[k]].so_far.failures += 1
                if number == last:
                    finite(logits[k], self.point["model"], items[inside[k]].query.id)
            for place, label in zip(inside[leaves].tolist(), label_of(logits[leaves]).tolist(), strict=True):
                items[place].so_far.truncated = encodings[place].truncated
                answers[place] = items[place].answer(label, number)
            rows = np.flatnonzero(~leaves)
            inside = inside[rows]
            clock.mark("decide")
            if not len(inside):
                break
        clock.share(items)
        return answers

    def _exit(self, item: Item, clock: Clock) -> Answer:
        model = self.model
        encoding = item.encoding(model.encode)
        item.so_far.truncated = encoding.truncated
        clock.mark("tokenise")
        model.start(encoding)
        for number in range(model.n_segments):
            logits = model.step()
            clock.mark(f"level{number + 1}")
            if number + 1 == model.n_segments:
                finite(logits, self.point["model"], item.query.id)
            elif not np.isfinite(logits).all():
                item.so_far.failures += 1
                continue
            elif entropy(logits) < self.point["entropy"]:
                break
        label = label_of(logits).item()
        clock.mark("decide")
        return item.answer(label, number)

    @classmethod
    def replay(cls, point: dict[str, Any], profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,), from profiled logits of the ramps."""
        band = profile.band(BAND, profile.at(rows))
        exits = Exits.of(profile.view(profile.at(rows)), point["model"], band).only(tuple(point["ramps"]))
        levels = exits.left(point["entropy"])
        labels, latency_ms = exits.at(levels)
        near = (np.abs(exits.entropies - point["entropy"]) < band).any(axis=0)
        tied = exits.tied[levels, np.arange(len(levels))]
        return Outcomes.of_full_text(rows, labels, latency_ms, levels=levels, borderline=near | tied)

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """Savings in percent over the queries served: of layers (as DeeBERT counts), expected and measured, and of time
        as predicted. Raises PlanError if the plan predicts exits and none was served.
        """
        first = trace[trace.first_pass]
        fold, depths, never = plan.fold_of(first.row.to_numpy()), [], 1.0
        for k, served in enumerate(plan.folds):
            levels = first.level.to_numpy()[fold == k]
            layers = np.array([*served.point["ramps"], served.point["layers"]])
            depths.append(layers[levels] / layers[-1])
            never *= served.predicted["shares"][-1] ** len(levels)  # probability of no exit, if the plan is right
        passed = np.concatenate(depths)
        if never < CHANCE and passed.min() == 1:
            raise PlanError("the plan predicts early exits, but none of the queries served exited early")
        sizes = np.bincount(fold, minlength=len(plan.folds))
        predicted = [fold.predicted for fold in plan.folds]
        saved = float(np.average([p["layers_saved"] for p in predicted], weights=sizes))
        latency_ms = float(np.average([p["latency_ms"] for p in predicted], weights=sizes))
        full_ms = float(np.average([p["full_ms"] for p in predicted], weights=sizes))
        saving = {"layers_expected": 100 * saved, "layers_measured": 100 * (1 - float(passed.mean()))}
        saving["time_expected"] = 100 * (1 - latency_ms / full_ms)
        folds = [{**fold.point, **fold.predicted} for fold in plan.folds]
        return {"folds": folds, "saving_pct": saving, "full_ms": full_ms}

    @classmethod
    def conclude(cls, own: Record, session: Mapping[str, Record]) -> None:
        """The measured saving of time. The whole model was profiled but not served: its time is scaled as serving
        slowed down the session's reference.
        """
        system, reference = own.details["system"], session[own.reference["method"]]
        drift = reference.latency_ms["mean"] / reference.details["replay"]["predicted_ms"]
        system["saving_pct"]["time_measured"] = 100 * (1 - own.latency_ms["mean"] / (drift * system["full_ms"]))


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


def _fold_plan(profile: Profile, target: Target, exits: Exits, threshold: float) -> FoldPlan:
    taken = exits.left(threshold)
    labels, latency_ms = exits.at(taken)
    model, layers = profile.models[exits.model], np.array(exits.layers)
    point = {"model": exits.model, "ramps": list(exits.layers[:-1]), "entropy": threshold}
    point |= {"ramps_hash": model.ramps_hash, "layers": model.layers}
    fold = fold_plan(profile, target, point, labels, float(latency_ms.mean()))
    fold.predicted["shares"] = shares_of(taken, len(layers))
    fold.predicted["layers_saved"] = float(1 - layers[taken].mean() / layers[-1])
    fold.predicted["full_ms"] = model.mean_ms
    return fold
