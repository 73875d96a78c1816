"""What was measured, read back: records, traces, plans and profiles below a results folder."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.evaluation.statistics import Interval, latency_reduction
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tabi_bench.records.record import Record
from tabi_bench.system import Plan

log = logging.getLogger(__name__)
TASKS = ("sst2", "mnli", "rte", "qqp", "mrpc", "cola", "qnli", "stsb", "massive", "clinc")  # the paper's order
CASCADES = ("tabi", "tabi3", "deebert", "random", "oracle")  # systems with an early return
METHODS = ("infaas", "single", "cocktail", "deebert", "random", "tabi", "tabi3", "oracle")
PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Setting:
    """What numbers must share to stand in one table."""

    source: str
    zoo: str
    engine: str
    dtype: str
    device: str

    @property
    def slug(self) -> str:
        """For file names; the device, which has a long name, by two words of it."""
        short = re.sub(r"\(.*?\)|,.*|@.*|\bCPU\b|\bNVIDIA\b", "", self.device).split()[:2]
        return re.sub(r"[^a-z0-9]+", "-", "-".join([self.source, self.zoo, self.engine, self.dtype, *short]).lower())

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in vars(self).items())


@dataclass(frozen=True)
class Run:
    """One record and the folder that holds it, with its trace and plan."""

    record: Record
    folder: Path

    @property
    def label(self) -> str:
        return self.record.config.get("label") or self.folder.parent.name

    @property
    def setting(self) -> Setting:
        r = self.record
        return Setting(r.source, r.zoo, r.engine, r.provenance.get("dtype", "dtype unknown"), r.device)

    @property
    def margin_se(self) -> float | None:
        """Standard errors by which the target had to be met on tune; 0 is the plain rule."""
        return self.record.config.get("search", {}).get("margin_se")

    @property
    def seed(self) -> int:
        """Of training, of the two folds and of the order of queries."""
        return self.record.config.get("seed", 0)

    @property
    def option(self) -> dict[str, Any]:
        """The method's own options."""
        return self.record.config.get("method", {})

    @property
    def time(self) -> str:
        return self.record.provenance.get("time", "")

    @cached_property
    def trace(self) -> pd.DataFrame | None:
        """One row per served query (serving/single_stream.py says which columns), or None where nothing was served."""
        path = self.folder / "trace.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def plan(self) -> Plan | None:
        path = self.folder / "plan.json"
        return Plan.load(path) if path.is_file() else None


Session = dict[str, Run]  # the runs of one session, by method


@dataclass
class Results:
    """All runs below a folder; `problems` says in words what could not be read."""

    root: Path
    runs: list[Run]
    problems: list[str] = field(default_factory=list)

    def settings(self) -> list[Setting]:
        return sorted({run.setting for run in self.runs}, key=str)

    def pick(self, setting: Setting, *labels: str) -> list[Run]:
        """The runs of a setting under the first of `labels` that it has."""
        mine = [run for run in self.runs if run.setting == setting]
        return next((found for label in labels if (found := [r for r in mine if r.label == label])), [])

    def profile(self, run: Run) -> Profile | None:
        """The profile of a run's session, or None where none was stored."""
        path = run.folder.parent / "profiles" / f"{run.record.session_id}.npz"
        return load_profile(path) if path.is_file() else None


def read(root: Path | str) -> Results:
    """Reads every record below `root`. Raises FileNotFoundError where there is none; damaged ones become problems."""
    root = Path(root).expanduser()
    results = Results(root, [])
    for path in sorted(root.rglob("record.json")):
        if path.parent.name.startswith("."):  # a killed process was still writing it
            continue
        try:
            results.runs.append(Run(Record.load(path), path.parent))
        except (OSError, ValueError, TypeError) as error:
            results.problems.append(f"{path.relative_to(root)}: {type(error).__name__}: {error}")
            log.warning("unreadable record %s: %s", path, error)
    for session in sessions(results.runs):
        _intervals_over_blocks(session)
    if not results.runs:
        raise FileNotFoundError(f"no readable record.json below {root}; run an experiment first, or name its folder")
    return results


def _intervals_over_blocks(session: Session) -> None:
    """Reductions in records of schema 1 had intervals that are too narrow: they come anew from traces, or go."""
    for run in session.values():
        reference = run.record.reference
        other = session.get(reference.get("method", ""))
        if run.record.schema_version > 1 or other is None or other is run:
            continue
        anew = reduction(run, other) if _whole(run) and _whole(other) else None
        reference["reduction_low"], reference["reduction_high"] = (anew.low, anew.high) if anew else (None, None)


def _whole(run: Run) -> bool:
    """Whether the trace holds every query; slim copies keep some sessions' in part."""
    return run.trace is not None and "block" in run.trace and len(run.trace) == run.record.latency_ms.get("n")


@cache
def load_profile(path: Path) -> Profile:
    """A stored profile: logits (float32 of float16), tokens, latency curves. No text, so no words, no importance."""
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    n = len(arrays["labels"])
    models = {}
    for name, params, layers in zip(meta["models"], meta["params"], meta["layers"], strict=True):
        keys = ("latency_lengths", "latency_ms", "latency_ms_importance")
        curve = LatencyCurve(*(arrays[f"{name}/{key}"] for key in keys), step=bool(arrays[f"{name}/step"]))
        logits, tokens = arrays[f"{name}/logits"].astype(np.float32), arrays[f"{name}/tokens"].astype(np.int64)
        models[name] = ModelProfile(name, params, layers, logits, tokens, curve, truncated=np.zeros(n, bool))
    return Profile(
        task=meta["task"],
        metric=meta["metric"],
        n_outputs=next(iter(models.values())).logits.shape[1],
        rows=arrays["rows"],
        labels=arrays["labels"],
        words=np.zeros(n, np.int64),
        models=models,
    )


# --- selecting --------------------------------------------------------------------------------------------------------


def sessions(runs: Iterable[Run]) -> list[Session]:
    """Runs by session: {method: run}, each session's methods in their usual order."""
    found: dict[str, Session] = {}
    for run in sorted(runs, key=lambda run: _place(METHODS, run.record.method)):
        found.setdefault(run.record.session_id, {})[run.record.method] = run
    return list(found.values())


def newest(found: list[Session], variant: Callable[[Session], Hashable] = lambda session: None) -> list[Session]:
    """Of sessions alike in task, systems, margin and `variant`: the newest that did not fail. The paper's order.

    Of a task's seeds only the lowest of which a session did not fail is read: nothing mixes seeds within a task.
    """
    best: dict[Hashable, tuple] = {}
    for session in _of_lowest_seed(found):
        first = _first(session)
        cell = (first.record.task, tuple(session), first.margin_se, variant(session))
        rank = (_sound(session), first.time)
        if cell not in best or rank > best[cell][0]:
            best[cell] = (rank, session)
    return [best[cell][1] for cell in sorted(best, key=lambda cell: (_place(TASKS, cell[0]), str(cell[1:])))]


def by_seed(found: list[Session]) -> dict[int, list[Session]]:
    """The newest sessions of each seed, the lowest seed first."""
    seeds = sorted({_first(session).seed for session in found})
    return {seed: newest([session for session in found if _first(session).seed == seed]) for seed in seeds}


def _of_lowest_seed(found: list[Session]) -> list[Session]:
    best: dict[str, tuple[bool, int]] = {}
    for session in found:
        first = _first(session)
        rank = (not _sound(session), first.seed)
        best[first.record.task] = min(rank, best.get(first.record.task, rank))
    return [session for session in found if _first(session).seed == best[_first(session).record.task][1]]


def _first(session: Session) -> Run:
    return next(iter(session.values()))


def _sound(session: Session) -> bool:
    return all(run.record.status != "failed" for run in session.values())


def _place(order: tuple[str, ...], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def reduction(ours: Run, other: Run) -> Interval | None:
    """Reduction of mean latency in percent, with its interval, from two traces of one session; None without traces.

    Raises ValueError for runs of different sessions: their numbers are never divided.
    """
    if ours.record.session_id != other.record.session_id:
        raise ValueError(f"{ours.folder.name} and {other.folder.name} are of different sessions: no ratio of the two")
    if ours.trace is None or other.trace is None:
        return None
    a, b = ours.trace.sort_values("position"), other.trace.sort_values("position")
    return latency_reduction(a.latency_ms.to_numpy(), b.latency_ms.to_numpy(), a.block.to_numpy())


# --- records as a frame -----------------------------------------------------------------------------------------------


def row(run: Run) -> dict[str, Any]:
    """A record as one flat row; what it lacks is None."""
    r = run.record
    reference = r.reference
    apart = reference.get("accuracy_difference") or {}
    plain = r.details.get("plain_rule") or {}
    return {
        "task": r.task,
        "method": r.method,
        "status": r.status,
        "error": r.error,
        "label": run.label,
        "margin_se": run.margin_se,
        "seed": run.seed,
        "metric": r.accuracy.get("metric"),
        "target": r.target.get("value"),
        "score": r.accuracy.get("value"),
        "score_low": r.accuracy.get("low"),
        "score_high": r.accuracy.get("high"),
        "n": r.accuracy.get("n"),
        "outcome": r.outcome,
        "mean_ms": r.latency_ms.get("mean"),
        **{p: r.latency_ms.get(p) for p in PERCENTILES},
        "reference": reference.get("method"),
        "reduction_pct": reference.get("reduction_pct"),
        "reduction_low": reference.get("reduction_low"),
        "reduction_high": reference.get("reduction_high"),
        **{f"difference{end}": apart.get(f"value{end}", apart.get(end[1:])) for end in ("", "_low", "_high")},
        "plain_score": plain.get("score"),
        "plain_reduction_pct": plain.get("reduction_pct"),
        "oracle_share": (r.details.get("oracle") or {}).get("share") if r.method == "tabi" else None,
        "returned_early": r.shares[0] if r.shares and r.method in CASCADES else None,
        "shares": r.shares,
        "words_pruned_share": r.words_pruned_share if r.status == "ok" else None,
        "usd_per_1k": r.cost.get("usd_per_1k"),
        "joules_per_query": r.cost.get("joules_per_query"),
        "throughput_qps": r.throughput_qps,
        **vars(run.setting),
        "session_id": r.session_id,
        "run_id": r.run_id,
        "commit": r.provenance.get("commit"),
        "time": run.time,
    }


def frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One flat row per record: what notebooks and tables start from."""
    return pd.DataFrame([row(run) for run in runs])
