"""`python -m tabi_bench.report.slim RESULTS OUT`: what the report reads of a results folder, small enough to commit.

Kept: every record with the details that a table reads, floats to seven digits; of the engines named (all, if none is)
the plans that a table reads, Tabi's, and INFaaS's where traces stay, without the rows they were tuned on, and one
profile per task, the one that derived tables read; of traces those of the main table's first seed with the columns that
are read, times as float32. Where a task has many labels, logits are rounded to steps of 1/32, or of 1/2 where they
hardly count. There is no text in any of them, and of a path of the machine that measured its last name alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tabi_bench import names
from tabi_bench.report.from_profiles import profiled
from tabi_bench.report.reading import Results, Run, first, read

MAIN = "main_table"
PLACES = {"position": np.int32, "row": np.int32, "block": np.int32, "latency_ms": np.float32}
PLANNED = (names.TABI, names.TABI3)
UNREAD = ("engines", "deebert", "models", "ablation", "pruning", "batching")  # labels whose plans no table reads
DETAILS = ("also", "data", "system", "load", "footprint", "failures", "truncated", "replay", "plain_rule", "oracle")
FOLDERS = re.compile(r"(?<![\w.~*:/-])/(?=[^\s/])(?:[^/\s,'\"\[\]]+/)*")  # of absolute paths, alone or in a command
DIGITS = 7  # significant ones of a float in a record or plan
MANY_LABELS, STEP = 32, 1 / 32
LOW, LOW_STEP = 8.0, 1 / 2  # a logit so far below the row's highest has a probability below 0.04 %


def slim(root: Path | str, out: Path | str, engines: Sequence[str] = ()) -> int:
    """Writes the slim copy of the results below `root` into the empty or absent folder `out`; returns its bytes.

    Raises FileNotFoundError without records, FileExistsError where `out` holds something, ValueError for a file that
    cannot be read: a copy without it would hide it.
    """
    results, out = read(root), Path(out).expanduser()
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name another folder, or remove it")
    first_seed = min(run.seed for run in results.runs)
    profiles = _profiles(results, engines)
    for run in results.runs:
        folder = out / run.folder.relative_to(results.root)
        folder.mkdir(parents=True)
        record = asdict(run.record)
        record["details"] = {key: value for key, value in record["details"].items() if key in DETAILS}
        _dump(record, folder / "record.json")
        if not engines or run.record.engine in engines:
            _plan(run, folder)
        if run.seed == first_seed:
            _trace(run, folder)
    for path in profiles:
        target = out / path.relative_to(results.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with np.load(path) as stored:
            _save(target, {name: coarse(array) for name, array in stored.items()})
    if results.problems:
        raise ValueError("; ".join(results.problems))
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _dump(value: dict, path: Path) -> None:
    path.write_text(json.dumps(_coarse_json(value), separators=(",", ":")), encoding="utf-8")


def _coarse_json(value: Any) -> Any:
    """`value` of a JSON file with its floats rounded to DIGITS, and its paths without their folders."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, str):
        return FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {key: _coarse_json(inner) for key, inner in value.items()}
    return [_coarse_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def _plan(run: Run, folder: Path) -> None:
    """The run's plan, where a table reads it."""
    infaas = run.record.method == names.INFAAS and run.label == MAIN
    if run.label in UNREAD or not (run.record.method in PLANNED or infaas) or run.plan is None:
        return
    plan = asdict(run.plan)
    for fold in plan["folds"]:
        fold["tuned_on"] = []
    _dump(plan, folder / "plan.json")


def _trace(run: Run, folder: Path) -> None:
    """The run's trace with the columns that a table reads."""
    trace = run.trace
    if run.label != MAIN or trace is None:
        return
    columns = {name: dtype for name, dtype in PLACES.items() if name in trace}
    trace = trace[list(columns)].astype(columns).sort_values("position")
    encoding = {c: "BYTE_STREAM_SPLIT" if t is np.float32 else "DELTA_BINARY_PACKED" for c, t in columns.items()}
    best = {"compression": "zstd", "compression_level": 19, "use_dictionary": False, "column_encoding": encoding}
    trace.to_parquet(folder / "trace.parquet", index=False, **best)


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
    runs = [first(session) for setting in results.settings() for session, _ in profiled(results, setting)]
    wanted = [run for run in runs if not engines or run.record.engine in engines]
    return [run.folder.parent / "profiles" / f"{run.record.session_id}.npz" for run in wanted]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report.slim", description=__doc__.splitlines()[0])
    parser.add_argument("results", help="a folder with records, e.g. outputs")
    parser.add_argument("out", help="the copy, e.g. results/NAME")
    parser.add_argument("--profiles-of", nargs="+", default=[], metavar="ENGINE", help="only their profiles and plans")
    options = parser.parse_args(arguments)
    try:
        size = slim(options.results, options.out, options.profiles_of)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{options.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
