"""The paper's claims, one row each: its number, ours, and a verdict by a rule that stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from tabi_bench import names
from tabi_bench.report.cells import Row, Table, provenance, word
from tabi_bench.report.from_records import by_engine, tabi_over_seeds
from tabi_bench.report.reading import Results, Run
from tabi_bench.report.side_by_side import runs_of
from tabi_bench.report.tables import Tables

COMPARABLE, QUICK, FASTER = 1.1, 60.0, 10.0  # times the p99; seconds; percent
Judged = tuple[str, Sequence[bool]]  # what was measured, in words; whether the claim holds, by task


def claims(results: Results, shown: str = "") -> Table | None:
    """The engines that have a main table side by side; None where none has.

    shown: the headers of some columns; engines of which none is among them are left out.
    """
    lines: list[Row] = [dict(zip(("claim", "paper", "rule", "table"), row[:4], strict=True)) for row in CLAIMS]
    columns = [word("claim", "claim"), word("paper", "the paper"), word("rule", "held where")]
    runs: list[Run] = []
    for setting, label in by_engine(results, shown).items():
        chosen, of_tabi = tabi_over_seeds(results, setting)
        tables, main = Tables(results, setting), pd.DataFrame(of_tabi)
        for cells, (*_, name, judge) in zip(lines, CLAIMS, strict=True):
            table = tables.get(name) if of_tabi else None
            ours, held = judge(table.data, main) if table else ("not measured", [])
            cells |= {f"{label} here": ours, f"{label} verdict": _verdict(held)}
        runs += runs_of(chosen)
        columns.append(word(f"{label} here", f"{label}: here"))
        columns.append(word(f"{label} verdict", f"{label}: verdict").noted("Verdict: over tasks; held: on each."))
    columns.append(word("table", "table"))
    return Table("claims", "The paper's claims", pd.DataFrame(lines), columns, provenance(runs), []) if runs else None


def _verdict(held: Sequence[bool]) -> str:
    if not len(held):
        return "not tested"
    kept, n = int(np.sum(held)), len(held)
    return {n: "held", 0: "not held"}.get(kept, f"held on {kept} of {n}")


def _extent(values: pd.Series, unit: str, digits: int = 0) -> str:
    values = values.dropna()
    if values.empty:
        return "none measured"
    return f"{values.min():.{digits}f} to {values.max():.{digits}f} {unit}, median {values.median():.{digits}f}"


def _reduction(_: pd.DataFrame, main: pd.DataFrame) -> Judged:
    return _extent(main.reduction_pct, "%"), main.reduction_pct >= 21


def _cocktail(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    saved = table[table.method == names.TABI].get("cocktail_pct", pd.Series(dtype=float)).dropna()
    return _extent(saved, "%"), saved >= 11


def _tail(_: pd.DataFrame, main: pd.DataFrame) -> Judged:
    return _extent(main["tail"], "times", 2), main["tail"].dropna() <= COMPARABLE


def _early(_: pd.DataFrame, main: pd.DataFrame) -> Judged:
    early = 100 * main.returned_early[main.returned_early < 1]
    return f"{_extent(early, '%')}; one model on {len(main) - len(early)} of {len(main)}", early >= 50


def _pruning(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    faster = table[table.control == "importance"].get("large_faster_pct", pd.Series(dtype=float)).dropna()
    return _extent(faster, "% faster"), faster >= FASTER


def _chosen(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    pruned = table[(table.method == names.TABI) & (table.status == "ok")].words_pruned_share.fillna(0) > 0
    return f"chosen in {pruned.sum()} of {len(pruned)} plans", pruned


def _search(_: pd.DataFrame, main: pd.DataFrame) -> Judged:
    return _extent(main.search_s, "s a task", 1), main.search_s <= QUICK


def _early_exit(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    saved = table.pivot_table(index="task", columns="method", values="reduction_pct")
    ahead = (saved[names.TABI] - saved[names.DEEBERT]).dropna()
    return f"ahead of it by {_extent(ahead, 'points')}", ahead >= 0


def _break_even(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    pays = table.assign(pays=table.reduction_pct > 0)[table.cascade_ms.notna()].groupby("task").pays.any()
    at_best = (table[table.slack == 0].reduction_pct > 0).sum()
    return f"pays at the best model's own score on {at_best} tasks, lower on {pays.sum()} of {len(pays)}", pays


def _three_levels(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    every = table[table.method == names.TABI3]
    three = every[every.same_plan.fillna("") == ""]
    if three.empty:
        return f"no third level chosen on {len(every)} of {len(every)}", []
    words = f"mean {_extent(three.mean_ms_change, '%')}; p99 {_extent(three.p99_change, '%')}"
    return f"{words}; chosen on {len(three)} of {len(every)}", three.p99_change.dropna() > 0


def _models(table: pd.DataFrame, _: pd.DataFrame) -> Judged:
    by_task = table.groupby("task")
    times, points = by_task.mean_ms.agg(np.ptp), by_task.score.agg(np.ptp)
    times = 1 + times / by_task.mean_ms.min()
    return f"{_extent(times, 'times', 1)}, for {_extent(100 * points, 'points')}", []


Judge = Callable[[pd.DataFrame, pd.DataFrame], Judged]
CLAIMS: tuple[tuple[str, str, str, str, Judge], ...] = (
    ("Mean latency below INFaaS's at equal target", "21 to 40 %", "at least 21 %", "main", _reduction),
    ("Mean latency below Cocktail's", "11 to 26 %", "at least 11 %", "main", _cocktail),
    ("p99 like the single-model selector's", "comparable", f"at most {COMPARABLE} times", "main", _tail),
    ("Queries that return early", "50 to 70 %", "at least 50 %", "main", _early),
    ("Word pruning is worth choosing", "part of every plan", "a plan prunes", "main", _chosen),
    ("Pruned, the large model is faster", "about 15 %", f"at least {FASTER:.0f} %", "pruning", _pruning),
    ("Profiling with early stop finds plans quickly", "little cost", f"at most {QUICK:.0f} s", "main", _search),
    ("Similar to early exit (DeeBERT), or better", "similar", "no slower", "deebert", _early_exit),
    ("A cascade pays below a break-even share", "there is one", "it pays at some target", "break_even", _break_even),
    ("A third level hurts the tail (mnli)", "mean +8 %, p99 +70 %", "p99 higher", "three_level", _three_levels),
    ("Accuracy costs latency (its models)", "4 times, for 7 points", "not comparable", "models", _models),
)
