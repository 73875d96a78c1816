"""The paper's own numbers, as printed, and which of its printed reductions follow from its printed latencies."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

ROUNDING_MS = 0.05  # latencies are printed to 0.1 ms,
ROUNDING_PCT = 0.5  # reductions to whole percent


def paper_dir() -> Path:
    """The folder of the paper's tables: inside the installed package, or `results/paper` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "paper", package.parent / "results" / "paper") if folder.is_dir())


@cache
def printed(name: str) -> pd.DataFrame:
    """main_table, models, deebert, three_level or claims, as printed. Don't change the frame: it is shared."""
    return pd.read_csv(paper_dir() / f"{name}.csv")


def main_cell(task: str, method: str) -> dict[str, float]:
    """The main table's row of a task and method, or {} where the paper has none."""
    table = printed("main_table")
    rows = table[(table.task == task) & (table.method == method)]
    return rows.iloc[0].to_dict() if len(rows) else {}


def reductions() -> pd.DataFrame:
    """One row per printed latency reduction of Tabi: what the printed latencies give, and whether it follows.

    recomputed_pct: 100 (1 - ours / other); low_pct, high_pct: what latencies that round to the printed ones allow.
    follows: yes (rounds to the printed number) | within rounding (some such latencies do) | no.
    """
    latency = printed("main_table").pivot(index="task", columns="method", values="latency_ms")
    tabi = printed("main_table").query("method == 'tabi'")
    rows = []
    for other in ("infaas", "cocktail"):
        for _, row in tabi.iterrows():
            said = row[f"printed_reduction_vs_{other}_pct"]
            rows.append(_reduction(row.task, other, said, row.latency_ms, latency.loc[row.task, other]))
    return pd.DataFrame(rows)


def _reduction(task: str, other: str, said: float, ours_ms: float, other_ms: float) -> dict:
    recomputed = 100 * (1 - ours_ms / other_ms)
    low = 100 * (1 - (ours_ms + ROUNDING_MS) / (other_ms - ROUNDING_MS))
    high = 100 * (1 - (ours_ms - ROUNDING_MS) / (other_ms + ROUNDING_MS))
    if abs(recomputed - said) <= ROUNDING_PCT:
        follows = "yes"
    else:
        follows = "within rounding" if low - ROUNDING_PCT <= said <= high + ROUNDING_PCT else "no"
    return {
        "task": task,
        "against": other,
        "ours_ms": ours_ms,
        "other_ms": other_ms,
        "printed_pct": said,
        "recomputed_pct": recomputed,
        "low_pct": low,
        "high_pct": high,
        "follows": follows,
    }
