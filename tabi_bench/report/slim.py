"""`python -m tabi_bench.report.slim RESULTS OUT`: what the report reads of a results folder, small enough to commit.

Kept: every record, floats to seven digits, without what the main table's records of the same task say already; of the
engines named (all, if none is) the plans that a table reads, Tabi's, and INFaaS's where traces stay, without the rows
they were tuned on, and one profile per task, the one that derived tables read; of traces those of the main table's
first seed and, of pruning, the queries that went on, with the columns that are read, times as float32. Where a task has
many labels, logits are rounded to steps of 1/32, or of 1/2 where they hardly count. There is no text in any of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.report.reading import Results, Run, read
from tabi_bench.report.tables import profiled

TIMES = {"latency_ms": np.float32}
PLACES = {"position": np.int32, "row": np.int32, "block": np.int32}
STAGES = {"level": np.int32, "stage_level1_ms": np.float32, "stage_level2_ms": np.float32}
TRACED = {"main_table": PLACES | TIMES, "pruning": {"position": np.int32} | STAGES}  # by label
PLANNED = ("tabi", "tabi3")
UNREAD = ("engines", "deebert", "models", "ablation")  # labels whose plans no table reads
REPEATED = ("zoo", "break_even", "calibration", "deferral")  # details of a task's models, alike in all its records
DIGITS = 7  # significant ones of a float in a record or plan
MANY_LABELS, STEP = 32, 1 / 32
LOW, LOW_STEP = 8.0, 1 / 2  # a logit so far below the row's highest has a probability below 0.04 %


def slim(root: Path | str, out: Path | str, engines: Sequence[str] = ()) -> int:
    """Writes the slim copy of the results below `root` into the empty or absent folder `out`; returns its bytes.

    Raises FileNotFoundError without records, FileExistsError where `out` holds something, ValueError for a record that
    cannot be read: a copy without it would hide it.
    """
    results, out = read(root), Path(out).expanduser()
    if results.problems:
        raise ValueError("; ".join(results.problems))
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name another folder, or remove it")
    told = {run.record.task for run in results.runs if run.label == "main_table"}
    first_seed = min((run.record.config["seed"] for run in results.runs), default=0)
    for run in results.runs:
        folder = out / run.folder.relative_to(results.root)
        folder.mkdir(parents=True)
        record = asdict(run.record)
        if run.label != "main_table" and run.record.task in told:
            record["details"] = {k: v for k, v in record["details"].items() if k not in REPEATED}
        _dump(record, folder / "record.json")
        if _named(run, engines):
            _plan(run, folder)
        if run.record.config["seed"] == first_seed:
            _trace(run, results, folder)
    for path in _profiles(results, engines):
        target = out / path.relative_to(results.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with np.load(path) as stored:
            _save(target, {name: coarse(array) for name, array in stored.items()})
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _named(run: Run, engines: Sequence[str]) -> bool:
    """Whether the run's engine is among those named; all are where none is."""
    return not engines or run.record.engine in engines


def _dump(value: dict, path: Path) -> None:
    path.write_text(json.dumps(_rounded(value), separators=(",", ":")))


def _rounded(value: Any) -> Any:
    """`value` of a JSON file with its floats rounded to DIGITS."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _plan(run: Run, folder: Path) -> None:
    """The run's plan, where a table reads it; of pruning's, tables read the points alone."""
    infaas = run.record.method == "infaas" and run.label in TRACED
    if run.plan is None or run.label in UNREAD or not (run.record.method in PLANNED or infaas):
        return
    plan = asdict(run.plan)
    for fold in plan["folds"]:
        fold["tuned_on"] = []
        if run.label == "pruning":
            fold["serves"] = []
    _dump(plan, folder / "plan.json")


def _trace(run: Run, results: Results, folder: Path) -> None:
    """The run's trace with the columns that a table reads; of pruning, the queries that Tabi's level 1 sent on."""
    kept, trace = TRACED.get(run.label), run.trace
    if not kept or trace is None:
        return
    if run.label == "pruning":
        trace = trace[trace.position.isin(_sent_on(run, results))]
    columns = {name: dtype for name, dtype in kept.items() if name in trace}
    trace = trace[list(columns)].astype(columns).sort_values("position")
    encoding = {c: "BYTE_STREAM_SPLIT" if t is np.float32 else "DELTA_BINARY_PACKED" for c, t in columns.items()}
    best = {"compression": "zstd", "compression_level": 19, "use_dictionary": False, "column_encoding": encoding}
    trace.to_parquet(folder / "trace.parquet", index=False, **best)


def _sent_on(run: Run, results: Results) -> pd.Series:
    """Positions of the queries that Tabi re-routed in the run's session."""
    session = (other for other in results.runs if other.record.session_id == run.record.session_id)
    traces = [other.trace for other in session if other.record.method == "tabi" and other.trace is not None]
    return pd.concat([trace.position[trace.level > 0] for trace in traces] or [pd.Series(dtype=int)])


def coarse(array: np.ndarray) -> np.ndarray:
    """Logits (N, K) of many labels rounded to LOW_STEP or STEP, a fifth of the disk; any other array as it is."""
    if array.ndim != 2 or array.shape[1] <= MANY_LABELS:
        return array
    exact = array.astype(np.float32)
    step = np.where(exact < exact.max(1, keepdims=True) - LOW, LOW_STEP, STEP)
    return (np.round(exact / step) * step).astype(np.float16)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz as np.load reads it, packed tighter than by np.savez_compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        for name, array in arrays.items():
            with packed.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _profiles(results: Results, engines: Sequence[str]) -> list[Path]:
    """The files of the profiles that derived tables read."""
    first = [next(iter(s.values())) for setting in results.settings() for s, _ in profiled(results, setting)]
    first = [run for run in first if _named(run, engines)]
    return [run.folder.parent / "profiles" / f"{run.record.session_id}.npz" for run in first]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report.slim", description=__doc__.splitlines()[0])
    parser.add_argument("results", help="a folder with records, e.g. outputs")
    parser.add_argument("out", help="the copy, e.g. results/NAME")
    parser.add_argument("--profiles-of", nargs="+", default=[], metavar="ENGINE", help="only their profiles and plans")
    options = parser.parse_args(arguments)
    try:
        size = slim(options.results, options.out, options.profiles_of)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
