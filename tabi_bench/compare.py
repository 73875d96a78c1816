"""`python -m tabi_bench.compare A B`: two results folders side by side, what changed beyond its interval.

Records are matched by task, system, preset, source, zoo, engine, dtype, margin and seed, the newest of each. A change
is beyond its interval where B - A is larger than both half-widths put together in quadrature. Milliseconds are compared
too, although the two folders need not come from one session or machine: reductions are the fairer numbers.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from tabi_bench.names import SYSTEMS, TASKS, place, printed
from tabi_bench.report.cells import Column, Table, number, word
from tabi_bench.report.fields import frame
from tabi_bench.report.reading import read

KEYS = ["task", "method", "label", "source", "zoo", "engine", "dtype", "scenario", "margin_se", "seed"]
COMPARED = {"score": ("score %", 100.0), "reduction_pct": ("reduction %", 1.0), "mean_ms": ("mean ms", 1.0)}


def compare(before: Path | str, after: Path | str) -> Table:
    """One row per system and quantity that both folders hold. Raises FileNotFoundError, ValueError without a match."""
    sides = [_newest(folder) for folder in (before, after)]
    both = sides[0].add_suffix(" A").join(sides[1].add_suffix(" B"), how="inner").reset_index()
    if both.empty:
        raise ValueError(f"{before} and {after} hold no record of the same task, system and setting")
    changes = pd.concat([_changes(both, key) for key in COMPARED]).sort_index(kind="stable")
    lines = changes.to_dict("records")
    lines.sort(key=lambda line: (place(TASKS, line["task"]), line["label"], place(SYSTEMS, line["method"])))
    columns = [word("label", "preset"), word("task", "task"), word("system", "system"), word("engine", "engine")]
    columns += [number("seed", "seed", 0), word("quantity", "quantity")]
    columns += [number("A", "A", 3), number("B", "B", 3), number("change", "B - A", 3, sign=True)]
    answers = {True: "yes", False: "no"}
    columns.append(Column("beyond its interval", lambda line: answers.get(line["beyond"], "unknown")))
    changed = sum(line["beyond"] is True for line in lines)
    notes = [f"{changed} of {len(lines)} numbers changed beyond their interval."]
    notes += [f"Only in {name}: {len(side) - len(both)} records." for name, side in zip("AB", sides, strict=True)]
    return Table("compare", "Two results folders", pd.DataFrame(lines), columns, f"A: {before}; B: {after}.", notes)


def _newest(folder: Path | str) -> pd.DataFrame:
    """The newest good record of every configuration, by KEYS."""
    data = frame(read(folder).runs)
    good = data[data.status == "ok"].sort_values("time")
    return good.drop_duplicates(KEYS, keep="last").set_index(KEYS)


def _changes(both: pd.DataFrame, key: str) -> pd.DataFrame:
    """B - A of one quantity with its interval, where both hold it, without the reference's own reductions."""
    name, factor = COMPARED[key]
    data = both[KEYS].assign(system=both.method.map(printed), quantity=name)
    for side, end in product("AB", ("", "_low", "_high")):
        data[side + end] = factor * both[f"{key}{end} {side}"].astype(float)
    data["change"] = data.B - data.A
    half = np.hypot(data.A_high - data.A_low, data.B_high - data.B_low) / 2
    data["change_low"], data["change_high"] = data.change - half, data.change + half
    data["beyond"] = (data.change.abs() > half).astype(object).where(half.notna(), None)
    own = (key == "reduction_pct") & (both.method == both["reference B"])
    return data[data.change.notna() & ~own]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("before", metavar="A", help="a results folder")
    parser.add_argument("after", metavar="B", help="another one")
    parser.add_argument("--all", action="store_true", help="also what did not change")
    options = parser.parse_args(arguments)
    try:
        table = compare(options.before, options.after)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    text = table.text()
    shown = text if options.all else text[text["beyond its interval"] != "no"]
    print("\n".join([shown.to_string(index=False) if len(shown) else "Nothing changed.", *table.notes]))


if __name__ == "__main__":
    main()
