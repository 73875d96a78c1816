"""What was measured, read back: records, traces, plans and profiles below a results folder.

A file that is damaged is named among the problems, and everything else goes on.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.evaluation.statistics import Interval, latency_reduction, mean_latency
from tabi_bench.names import AGAIN, SYSTEMS, TASKS, place
from tabi_bench.planning.plan_file import load_plan
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tabi_bench.records.record import Record
from tabi_bench.report.fields import row
from tabi_bench.system import Plan

log = logging.getLogger(__name__)


class Problems(list[str]):
    """What could not be read, in words, each once."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def read(self, path: Path, load: Callable[[Path], Any]) -> Any:
        """What `load` makes of a file; None where it is absent, or damaged in any way, which is noted."""
        return self.attempt(path, lambda: load(path)) if path.is_file() else None

    def attempt(self, path: Path, make: Callable[[], Any]) -> Any:
        """What `make` makes; None where it fails, which is noted under the path."""
        try:
            return make()
        except Exception as error:  # parquet, zip and JSON files raise anything when they are damaged
            reason = " ".join(str(error).replace(str(self._root), "").split())[:200]
            problem = f"unreadable: {path.relative_to(self._root)}: {type(error).__name__}: {reason}"
        if problem not in self:
            self.append(problem)
            log.warning(problem)


@dataclass(frozen=True)
class Setting:
    """What numbers must share to stand in one table."""

    source: str
    zoo: str
    engine: str
    dtype: str
    device: str
    scenario: str = "single_stream"

    @property
    def slug(self) -> str:
        """For file names; the device, which has a long name, by two words of it."""
        short = re.sub(r"\(.*?\)|,.*|@.*|\bCPU\b|\bNVIDIA\b", "", self.device).split()[:2]
        parts = [self.source, self.zoo, self.engine, self.dtype, *short, *self._scenario]
        return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower())

    @property
    def _scenario(self) -> list[str]:
        return [self.scenario] if self.scenario != "single_stream" else []

    def __str__(self) -> str:
        shown = {key: value for key, value in vars(self).items() if key != "scenario"}
        return ", ".join([f"{key} {value}" for key, value in shown.items()] + self._scenario)


@dataclass(frozen=True)
class Run:
    """One record and the folder that holds it, with its trace and plan."""

    record: Record
    folder: Path
    problems: Problems = field(compare=False)

    @property
    def label(self) -> str:
        return self.record.config.get("label") or self.folder.parent.name

    @property
    def ok(self) -> bool:
        return self.record.status == "ok"

    @property
    def setting(self) -> Setting:
        r = self.record
        return Setting(r.source, r.zoo, r.engine, r.provenance.get("dtype", "dtype unknown"), r.device, r.scenario)

    @property
    def margin_se(self) -> float | None:
        """Standard errors by which the target had to be met on tune; 0 is the plain rule."""
        margin = self.record.config.get("search", {}).get("margin_se")
        return None if margin is None else float(margin)

    @property
    def seed(self) -> int:
        """Of training, of the two folds and of the order of queries."""
        return int(np.int64(self.record.config.get("seed", 0)))

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
        return self.problems.read(self.folder / "trace.parquet", _trace)

    @cached_property
    def plan(self) -> Plan | None:
        return self.problems.read(self.folder / "plan.json", load_plan)

    @cached_property
    def profile(self) -> Profile | None:
        """The profile of the run's session, or None where none was stored."""
        return self.problems.read(self.folder.parent / "profiles" / f"{self.record.session_id}.npz", load_profile)

    @property
    def whole(self) -> pd.DataFrame | None:
        """The trace if it holds every query, by block; slim copies keep some sessions' in part."""
        trace, served = self.trace, self.record.latency_ms.get("n")
        known = trace is not None and {"block", "row", "latency_ms"} <= set(trace) and len(trace) == served
        return trace if known else None


Session = dict[str, Run]  # the runs of one session by method, the reference's second serving left out


@dataclass
class Results:
    """All runs below a folder; `problems` says in words what could not be read."""

    root: Path
    runs: list[Run]
    problems: Problems

    def settings(self) -> list[Setting]:
        return sorted({run.setting for run in self.runs}, key=str)

    def pick(self, setting: Setting, *labels: str) -> list[Run]:
        """The runs of a setting under the first of `labels` that it has."""
        of_setting = [run for run in self.runs if run.setting == setting]
        by_label = ([run for run in of_setting if run.label == label] for label in labels)
        return next((runs for runs in by_label if runs), [])


def read(root: Path | str) -> Results:
    """Reads every record below `root`. Raises FileNotFoundError where there is none; damaged ones become problems."""
    root = Path(root).expanduser()
    problems = Problems(root)

    def load(path: Path) -> Run:
        run = Run(Record.load(path), path.parent, problems)
        row(run)  # raises: a record of the right keys may hold anything
        return run

    paths = sorted(root.rglob("record.json"))
    whole = [path for path in paths if not path.parent.name.startswith(".")]  # others were still being written
    runs = [run for path in whole if (run := problems.read(path, load))]
    if not runs:
        raise FileNotFoundError(f"no readable record.json below {root}; run an experiment first, or name its folder")
    for session in sessions(runs):
        _intervals_over_blocks(session)
    return Results(root, runs, problems)


def _intervals_over_blocks(session: Session) -> None:
    """Intervals in records of schema 1 are too narrow: they come anew from traces, or go."""
    for run in session.values():
        if run.record.schema_version > 1 or not run.ok:
            continue
        latency, reference = run.record.latency_ms, run.record.reference
        trace = run.whole
        mean = None if trace is None else mean_latency(trace.latency_ms, trace.block)
        latency["mean_low"], latency["mean_high"] = (mean.low, mean.high) if mean else (None, None)
        other = session.get(reference.get("method", ""))
        anew = reduction(run, other) if other else None
        reference["reduction_low"], reference["reduction_high"] = (anew.low, anew.high) if anew else (None, None)


def _trace(path: Path) -> pd.DataFrame:
    with path.open("rb") as stream:  # pyarrow takes all names of files for UTF-8
        trace = pd.read_parquet(stream)
    numbers = trace[["position", *({"latency_ms", "block", "row", "level"} & set(trace))]]
    if not np.isfinite(numbers.to_numpy(np.float64)).all():
        raise ValueError("rows without a number")
    return trace


def load_profile(path: Path) -> Profile:
    """A stored profile: logits (float32 of float16), tokens, latency curves. No text, so no words, no importance."""
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    n = len(arrays["labels"])
    models = {}
    for name, params, layers in zip(meta["models"], meta["params"], meta["layers"], strict=True):
        keys = ("latency_lengths", "latency_ms", "latency_ms_importance")
        lengths, ms, ms_importance = (arrays[f"{name}/{key}"] for key in keys)
        curve = LatencyCurve(lengths, ms, ms_importance, step=bool(arrays[f"{name}/step"]))
        logits, tokens = arrays[f"{name}/logits"].astype(np.float32), arrays[f"{name}/tokens"].astype(np.int64)
        if logits.shape[:1] != (n,) or tokens.shape != (n,):
            raise ValueError(f"{name} has outputs of {len(logits)} rows, the labels are {n}")
        models[name] = ModelProfile(name, params, layers, logits, tokens, curve, truncated=np.zeros(n, bool))
    n_outputs = next(iter(models.values())).logits.shape[1]
    return Profile(meta["task"], meta["metric"], n_outputs, arrays["rows"], arrays["labels"], models)


# --- selecting --------------------------------------------------------------------------------------------------------


def sessions(runs: Iterable[Run]) -> list[Session]:
    """Runs by session: {method: run}, each session's methods in their usual order, without `reference_again`."""
    by_id: dict[str, Session] = {}
    for run in sorted(runs, key=lambda run: place(SYSTEMS, run.record.method)):
        if run.record.method != AGAIN:
            by_id.setdefault(run.record.session_id, {})[run.record.method] = run
    return list(by_id.values())


def newest(candidates: list[Session], variant: Callable[[Session], Hashable] = lambda session: None) -> list[Session]:
    """Of sessions alike in task, systems, margin and `variant`: the newest that did not fail. The paper's order.

    Of a task's seeds only the lowest of which a session did not fail is read: nothing mixes seeds within a task.
    """
    best: dict[tuple, Session] = {}
    ranked = sorted(candidates, key=lambda session: (_sound(session), first(session).time), reverse=True)
    for session in _of_lowest_seed(ranked):
        run = first(session)
        best.setdefault((run.record.task, tuple(session), run.margin_se, variant(session)), session)
    return [best[cell] for cell in sorted(best, key=lambda cell: (place(TASKS, cell[0]), str(cell[1:])))]


def by_seed(candidates: list[Session]) -> dict[int, list[Session]]:
    """The newest sessions of each seed, the lowest seed first."""
    seeds = sorted({first(session).seed for session in candidates})
    return {seed: newest([session for session in candidates if first(session).seed == seed]) for seed in seeds}


def _of_lowest_seed(candidates: list[Session]) -> list[Session]:
    lowest: dict[str, int] = {}
    for run in map(first, sorted(candidates, key=lambda session: (not _sound(session), first(session).seed))):
        lowest.setdefault(run.record.task, run.seed)
    return [session for session in candidates if first(session).seed == lowest[first(session).record.task]]


def first(session: Session) -> Run:
    """The run that speaks for what a session's runs share."""
    return next(iter(session.values()))


def _sound(session: Session) -> bool:
    return all(run.record.status != "failed" for run in session.values())


def reduction(ours: Run, other: Run) -> Interval | None:
    """Reduction of mean latency in percent, with its interval, from two traces of one session; None without traces.

    Raises ValueError for runs of different sessions: their numbers are never divided.
    """
    if ours.record.session_id != other.record.session_id:
        raise ValueError(f"{ours.folder.name} and {other.folder.name} are of different sessions: no ratio of the two")
    a, b = ours.whole, other.whole
    if a is None or b is None or len(a) != len(b):
        return None
    a, b = a.sort_values("position"), b.sort_values("position")
    return latency_reduction(a.latency_ms.to_numpy(), b.latency_ms.to_numpy(), a.block.to_numpy())
