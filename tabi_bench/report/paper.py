"""The paper's own numbers, as printed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd


def paper_dir() -> Path:
    """The folder of the paper's tables: inside the installed package, or `results/paper` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "paper", package.parent / "results" / "paper") if folder.is_dir())


@cache
def printed(name: str) -> pd.DataFrame:
    """main_table, models, deebert, three_level or claims, as printed. Do not change the frame: it is shared."""
    return pd.read_csv(paper_dir() / f"{name}.csv")


def main_cell(task: str, method: str) -> dict[str, float]:
    """The main table's row of a task and method, or {} where the paper has none."""
    table = printed("main_table")
    rows = table[(table.task == task) & (table.method == method)]
    return rows.iloc[0].to_dict() if len(rows) else {}
