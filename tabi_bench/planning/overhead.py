"""What a cascade costs beside its models: dispatching, pruning and combining, less what two levels share.

The profile times models alone, from raw text to output. Two levels with one tokenizer read the same tokens, so a second
level may cost less than it does alone; a pruned text is worked out and tokenised anew. Measured, not assumed: the same
`answer` as in serving, on a sample of queries, with a threshold that re-routes all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import numpy as np

from tabi_bench import device
from tabi_bench.cascade import rules
from tabi_bench.cascade.calibration import outputs_of
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.pruning import prune_query
from tabi_bench.cascade.regression import fit_agreement
from tabi_bench.cascade.system import Cascade
from tabi_bench.engines.base import Model
from tabi_bench.profiling.lab import Lab, LiveProfile
from tabi_bench.profiling.profile import Profile, PruneKey
from tabi_bench.system import Item, PlanError
from tabi_bench.tasks.base import Query

SAMPLE = 16  # queries, evenly spread over the rows
REPEATS = 3  # the fastest of so many, or of all rounds where they are fewer, is a query's time
ALPHA = 0.5  # pruning scale of the probe


def with_overheads(profile: LiveProfile, lab: Lab, importance: list[str]) -> LiveProfile:
    """The profile with `overhead_ms` and `prune_ms`, as measured between its first and its largest model.

    importance: the options that some system reads; empty: no text is pruned, and `prune_ms` stays 0. Pruning is probed
    on the smallest model that has importance.
    """
    if len(profile.models) < 2:
        return profile
    with lab.exclusive():
        overhead = _probe(profile, lab, profile.names[0], None)
        scored = next((name for name in profile.names[:-1] if profile.models[name].importance), None)
        if not importance or scored is None:
            return replace(profile, overhead_ms=overhead)
        pruned = _probe(profile, lab, scored, importance[0])
    return replace(profile, overhead_ms=overhead, prune_ms=pruned - overhead)


def _probe(profile: LiveProfile, lab: Lab, small: str, importance: str | None) -> float:
    """Median milliseconds of two levels beyond those of both models alone and of a cascade of one level."""
    names = [small, profile.names[-1]]
    both = Cascade.deploy(_always(profile, names, importance).plain(), lab, None)
    alone = Cascade.deploy(Point.of_one(small).plain(), lab, None)
    first, last = (lab.load(name, importance=importance, pooled=profile.is_regression) for name in names)
    whole = np.all([profile.models[name].answered for name in names], axis=0)
    queries = [query for query, answered in zip(lab.task.queries, whole, strict=True) if answered]
    if not queries:
        raise PlanError(f"no row gets finite outputs of both {small} and {names[1]}; leave one out with zoo.models")
    sample = queries[:: max(1, len(queries) // SAMPLE)][:SAMPLE]
    texts = [query.texts for query in sample]
    if importance is not None:
        key = PruneKey(small, names[1], ALPHA, importance)
        texts = [_kept(first, query, key, profile.seed) for query in sample]
    size = min(lab.batches[-1], len(sample))
    batches = [slice(start, start + size) for start in range(0, len(sample) - size + 1, size)]

    def through(cascade: Cascade, k: int) -> None:
        waiting: list = [Item(query) for query in sample[batches[k]]]
        for stage in range(cascade.stages):
            waiting = [result for result in cascade.run(stage, waiting) if isinstance(result, Item)]

    def read(model: Model, of: list[tuple[str, ...]], k: int, scored: bool = False) -> None:
        model.forward_batch([model.encode(text) for text in of[batches[k]]], want_importance=scored)

    whole = [query.texts for query in sample]
    calls: list[Callable[[int], object]] = [
        lambda k: through(both, k),
        lambda k: through(alone, k),
        lambda k: read(first, whole, k),
        lambda k: read(first, whole, k, scored=importance is not None),
        lambda k: read(last, texts, k),
    ]
    rounds = lab.rounds if size > 1 else min(lab.rounds, REPEATS)
    two, one, plain, scored, second = _times(calls, len(batches), rounds) / size
    return float(np.median(two - scored - second - (one - plain)))


def _always(profile: Profile, names: list[str], importance: str | None) -> Point:
    """A point that re-routes every query to its last level."""
    return Point(
        models=names,
        temperatures=[1.0] * len(names),
        weights=[1.0] * len(names),
        taus=[rules.ALWAYS],
        alphas=[0.0 if importance is None else ALPHA],
        ensemble="weighted",
        importance=importance or "last",
        agreement=[_agreement(profile, names)] if profile.is_regression else [],
    )


def _agreement(profile: Profile, names: list[str]) -> dict[str, Any]:
    small, large = (profile.models[name] for name in names)
    scores = (outputs_of(model.logits, 1.0)[:, 0] for model in (small, large))
    return fit_agreement(small.pooled, *scores)[0].plain()


def _kept(model: Model, query: Query, key: PruneKey, seed: int) -> tuple[str, ...]:
    encoding = model.encode(query.texts)
    importance = model.forward(encoding, want_importance=True).importance
    assert importance is not None
    return encoding.kept_texts(prune_query(encoding.words, importance, key, seed, query.id)[0])


def _times(calls: list[Callable[[int], object]], count: int, repeats: int) -> np.ndarray:
    """(len(calls), count) milliseconds, the least of several, interleaved query by query."""
    taken = np.empty((repeats + 1, len(calls), count))
    with device.quiet_collector():
        for repeat in range(repeats + 1):  # the first is a warm-up
            for k in range(count):
                for number, call in enumerate(calls):
                    start = perf_counter_ns()
                    call(k)
                    taken[repeat, number, k] = (perf_counter_ns() - start) / 1e6
    return taken[1:].min(axis=0)
