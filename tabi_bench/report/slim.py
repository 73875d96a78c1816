"""`python -m tabi_bench.report.slim RESULTS OUT`: what the report reads of a results folder, small enough to commit.

Kept: every record; of the engines named (all, if none is) the plans that a table reads, Tabi's, and INFaaS's where
traces stay, without the rows they were tuned on, and one profile per task, the one that derived tables read; of traces
those of the main table and of pruning, with the columns that are read, times as float32. Where a task has many labels,
logits are rounded to steps of 1/32, or of 1/2 where they hardly count.
There is no text in any of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tabi_bench.report.reading import Results, Run, read
from tabi_bench.report.tables import profiled

TIMES = {"latency_ms": np.float32}
PLACES = {"position": np.int32, "row": np.int32, "block": np.int32}
STAGES = {"level": np.int32, "stage_level1_ms": np.float32, "stage_level2_ms": np.float32}
TRACED = {"main_table": PLACES | TIMES, "pruning": PLACES | TIMES | STAGES}  # by label
PLANNED = ("tabi", "tabi3")
UNREAD = ("engines", "deebert", "models", "ablation")  # labels whose plans no table reads
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
    for run in results.runs:
        _run(run, out / run.folder.relative_to(results.root), planned=_named(run, engines))
    for path in _profiles(results, engines):
        target = out / path.relative_to(results.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with np.load(path) as stored:
            _save(target, {name: coarse(array) for name, array in stored.items()})
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _named(run: Run, engines: Sequence[str]) -> bool:
    """Whether the run's engine is among those named; all are where none is."""
    return not engines or run.record.engine in engines


def _run(run: Run, folder: Path, planned: bool) -> None:
    """Writes one run's slim copy into the new `folder`; `planned`: with its plan, where a table reads it."""
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(asdict(run.record), separators=(",", ":")))
    kept = TRACED.get(run.label)
    reads = run.label not in UNREAD and (run.record.method in PLANNED or (kept and run.record.method == "infaas"))
    if planned and reads and run.plan is not None:
        plan = asdict(run.plan)
        for fold in plan["folds"]:
            fold["tuned_on"] = []
        (folder / "plan.json").write_text(json.dumps(plan, separators=(",", ":")))
    if kept and run.trace is not None:
        columns = {name: dtype for name, dtype in kept.items() if name in run.trace}
        trace = run.trace[list(columns)].astype(columns).sort_values("position")
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
