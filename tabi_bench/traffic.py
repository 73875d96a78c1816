"""An exported plan on traffic of one's own, without labels.

    python -m tabi_bench.traffic my_plan/plan.json texts.csv [--agreement 0.98 | --at-most 0.2] [--out NEW]

What can be known without labels: the share of early returns, latency, cost, whether confidence is distributed as it was
on the tuning rows, and how often the cascade says what its large model says. The loss of accuracy against the large
model is at most the share on which they differ. No score is promised.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.stats import beta, ks_2samp

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.rules import ALWAYS
from tabi_bench.cascade.system import Cascade
from tabi_bench.classifier import Classifier, load
from tabi_bench.evaluation.statistics import Interval, latency_reduction
from tabi_bench.planning.certify import APART, fixed_sequence, rows_needed
from tabi_bench.planning.plan_file import save_plan
from tabi_bench.system import Item, NoAnswer, PlanError
from tabi_bench.tasks.base import Query
from tabi_bench.tasks.readers import read
from tabi_bench.tasks.table import DataError
from tabi_bench.verdict import described, reduction

BLOCK = 25  # queries that the cascade and the large model answer in turn
DRIFT = 0.1  # from this distance between two distributions of confidence on, a plan is not trusted
DELTA = 0.05  # of all bounds: the probability that one is wrong
SHARES = np.linspace(1, 0, 21)  # of re-routed queries, in the order in which thresholds are tested


@dataclass(frozen=True)
class Seen:
    """What a cascade did with N queries: labels (or scores), levels (0-based), first-level confidence, milliseconds."""

    labels: np.ndarray
    levels: np.ndarray
    confidence: np.ndarray
    ms: np.ndarray


def serve(system: Cascade, queries: Sequence[Query]) -> Seen:
    """Answers queries one after the other; what the first level compared with its threshold is NaN where it failed."""
    rows = []
    for query in queries:
        item = Item(query)
        start = perf_counter()
        result = system.run(0, [item])[0]
        while isinstance(result, Item):
            result = system.run(result.stage, [result])[0]
        ms = 1e3 * (perf_counter() - start)
        first = item.read[0].level == 0
        rows.append((result.label, result.level, system.confidence(item.read[:1]) if first else np.nan, ms))
    labels, levels, confidence, times = map(np.array, zip(*rows, strict=True))
    return Seen(labels, levels, confidence, times)


def distance(tuned: Sequence[float], now: np.ndarray) -> float:
    """Kolmogorov's distance: by how much the share of queries below any one threshold has changed at most, 0 to 1."""
    return float(ks_2samp(tuned, now[np.isfinite(now)], method="asymp").statistic)


def at_most(different: int, n: int, delta: float = DELTA) -> float:
    """Clopper-Pearson: the share that differs is at most this, with probability 1 - delta."""
    return 1.0 if different >= n else float(beta.ppf(1 - delta, different + 1, n - different))


def differ(ours: np.ndarray, large: np.ndarray, scores: bool) -> np.ndarray:
    """(n,) bool: another label, or a score more than 0.5 away."""
    return np.abs(ours - large) > APART if scores else ours != large


@dataclass(frozen=True)
class Sample:
    """Queries that the large model answered too: positions (n,) in the traffic, its answers, the time it saves."""

    positions: np.ndarray
    large: np.ndarray
    saved: Interval


def sampled(classify: Classifier, queries: Sequence[Query], size: int, seed: int) -> Sample:
    """Both answer a random sample in turns, a block each."""
    point = classify.system.point
    alone = classify.at(Point.of_one(point.models[-1]))
    positions = np.random.default_rng(seed).permutation(len(queries))[:size]
    chosen = [queries[position] for position in positions]
    serve(alone, chosen[:BLOCK])  # warm
    ours, theirs = [], []
    for first in range(0, len(chosen), BLOCK):
        ours.append(serve(classify.system, chosen[first : first + BLOCK]))
        theirs.append(serve(alone, chosen[first : first + BLOCK]))
    own_ms, large_ms = (np.concatenate([seen.ms for seen in part]) for part in (ours, theirs))
    saved = latency_reduction(own_ms, large_ms, np.arange(len(chosen)) // BLOCK)
    return Sample(positions, np.concatenate([seen.labels for seen in theirs]), saved)


def threshold_for(share: float, confidence: np.ndarray) -> float:
    """The highest tau below which at most this share of the traffic lies."""
    if share >= 1:
        return ALWAYS
    return float(np.sort(np.nan_to_num(confidence, nan=-np.inf))[int(share * len(confidence))])


def retuned(classify: Classifier, queries: Sequence[Query], seen: Seen, sample: Sample, agreement: float) -> float:
    """The least re-routing whose agreement with the large model is at least `agreement`, with probability 1 - DELTA.

    Thresholds are tested in a fixed order, from re-routing everything down, until one fails. Raises PlanError.
    """
    point = classify.system.point
    chosen = [queries[position] for position in sample.positions]
    small, sure = serve(classify.at(replace(point, taus=[0.0])), chosen).labels, seen.confidence[sample.positions]
    both = serve(classify.at(replace(point, taus=[ALWAYS])), chosen).labels
    taus, scores = [threshold_for(share, seen.confidence) for share in SHARES], not classify.labels
    lost = [int(differ(np.where(~(sure >= tau), both, small), sample.large, scores).sum()) for tau in taus]
    passed = fixed_sequence(np.array(lost), len(chosen), DELTA, 1 - agreement)
    if not passed:
        needs = rows_needed(DELTA, 1 - agreement, lost[0] / len(chosen), len(chosen))
        more = f"a sample of {needs} would (--sample)" if needs else "no sample would: the ensemble itself differs more"
        raise PlanError(
            f"an agreement of {agreement:g} cannot be shown: with every query re-routed, {lost[0]} of {len(chosen)} "
            f"answers differ from the large model's; {more}"
        )
    return taus[passed - 1]


def report(classify: Classifier, seen: Seen, sample: Sample | None) -> list[str]:
    """What was seen, in sentences; the last one is the verdict."""
    made, point, n = classify.plan.deployment, classify.system.point, len(seen.ms)
    ms, predicted = float(seen.ms.mean()), classify.plan.folds[0].predicted
    shares = np.bincount(seen.levels, minlength=len(point.models)) / n
    levels = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(point.models, shares, strict=True))
    tuned = ", ".join(f"{100 * share:.1f} %" for share in predicted["shares"])
    drift, clear = distance(made["confidences"], seen.confidence), n >= 200
    doubt = "as when tuned" if drift < DRIFT else "NOT as when tuned: label some of it and export anew"
    lines = [
        f"{n} queries, answered by {levels} (when tuned: {tuned})",
        f"mean {ms:.3f} ms, p50 {np.median(seen.ms):.3f} (mean when tuned: {predicted['latency_ms']:.3f}); "
        f"{1e3 * ms * made['usd_per_hour'] / 3600:.2f} $ per million at {made['usd_per_hour']:g} $ an hour",
        f"confidence: distance {drift:.3f} (limit {DRIFT}), {doubt if clear else 'too few queries to say (200)'}",
    ]
    if sample is None:
        return [*lines, "One model alone: there is no larger one to agree with."]
    k = int(differ(seen.labels[sample.positions], sample.large, not classify.labels).sum())
    size, large = len(sample.large), point.models[-1]
    bound, saved = at_most(k, size), sample.saved
    what = "another label" if classify.labels else "a score more than 0.5 away"
    says = f"{large} alone gives {what} on {k} of {size}: with 95 % probability on at most {100 * bound:.1f} %"
    lines.append(f"{says}{', which bounds the loss of accuracy against it' if classify.labels else ''}")
    time = f"{reduction(saved.value, saved.low, saved.high)} than {large} alone"
    return [*lines, _verdict(described([point.plain()]), time, saved, bound, drift if clear else 0.0)]


def _verdict(what: str, time: str, saved: Interval, bound: float, drift: float) -> str:
    if drift >= DRIFT:
        return f"Do not trust this plan here: this traffic is another one than it was tuned on ({what}; {time})."
    if saved.low is None or saved.high is None or saved.low <= 0 <= saved.high:
        return f"Not decided: {what}; {time}."
    if saved.high < 0:
        return f"Do not cascade: {what} takes {time}."
    return f"A cascade pays here: {what}, {time}, which it contradicts on at most {100 * bound:.1f} % of queries."


def texts_of(file: Path, columns: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of each row. columns: of the file, in the order of the plan's texts (`wanted`). Raises DataError."""
    table = read([file])
    names = list(columns or wanted)
    if len(names) != len(wanted) or set(names) - set(table.columns):
        have, need = ", ".join(table.columns), ", ".join(wanted)
        raise DataError(f"{file} has the columns {have}; the plan reads {need}: name them with --columns")
    rows = list(zip(*(table.cells(name) for name in names), strict=True))
    for number, texts in enumerate(rows):
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{file}: {table.place(number)} holds no text in {', '.join(names)}")
    if not rows:
        raise DataError(f"{file} has no rows")
    return rows


def main(argv: list[str] | None = None) -> None:
    """Replays traffic and prints what was seen."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s")
    try:
        _run(options)
    except (PlanError, NoAnswer, ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


def _run(options: argparse.Namespace) -> None:
    classify = load(options.plan, options.engine, options.device, dict(pair.split("=", 1) for pair in options.models))
    point = classify.system.point
    queries = classify.queries(texts_of(options.file, options.columns, classify.columns))
    changes = options.agreement is not None or options.at_most is not None
    if changes and (len(point.models) != 2 or not point.dispatch.plain):
        raise PlanError("--agreement and --at-most set the threshold of a plan with two levels; this one has another")
    serve(classify.system, queries[:BLOCK])  # warm
    seen = serve(classify.system, queries)
    sample = sampled(classify, queries, options.sample, options.seed) if len(point.models) > 1 else None
    if changes and sample is not None:
        if options.agreement is None:
            tau = threshold_for(options.at_most, seen.confidence)
        else:
            tau = retuned(classify, queries, seen, sample, options.agreement)
        classify.system = classify.at(replace(point, taus=[tau]))
        seen = serve(classify.system, queries)
        classify.plan.folds[0].point["taus"] = [tau]
        shares = (np.bincount(seen.levels, minlength=2) / len(queries)).tolist()
        classify.plan.folds[0].predicted = {"shares": shares, "latency_ms": float(seen.ms.mean())}
        sample = sampled(classify, queries, options.sample, options.seed + 1)  # fresh ones
        if options.out:
            classify.plan.deployment["note"] += f"; threshold set on {len(queries)} queries without labels"
            save_plan(classify.plan, options.out)
            print(f"re-route below {tau:.4f}: {options.out}")
    print("\n".join(report(classify, seen, sample)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.traffic", description=__doc__.splitlines()[0])
    parser.add_argument("plan", help="an exported plan.json, or its folder")
    parser.add_argument("file", type=Path, help="texts: csv, tsv, jsonl or parquet; no labels are read")
    parser.add_argument("--columns", nargs="+", default=[], help="with the texts; default: as in the plan's task")
    parser.add_argument("--sample", type=int, default=500, help="queries that the large model answers too")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--agreement", type=float, help="set the threshold for this agreement with the large model")
    change.add_argument("--at-most", type=float, help="set it so that at most this share of queries is re-routed")
    parser.add_argument("--out", type=Path, help="where to write the plan with the new threshold")
    parser.add_argument("--engine", help="another than the plan's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME=DIR", help="where models lie")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    return parser


if __name__ == "__main__":
    main()
