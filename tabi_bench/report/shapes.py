"""The paper's twelve models as shapes with random weights: their latency beside the paper's, and a projection.

Everything here is made from the files of `python -m tabi_bench.bench.engines --models paper --results DIR` and from the
paper's printed numbers. The projection says what the paper's mean latencies would become with the measured models. It
is arithmetic, not a measurement, by these rules:

- INFaaS runs one model. Which one the paper does not say: here it is the one whose printed latency is nearest to
  INFaaS's printed mean of that task, among models that no other beats in both printed latency and printed accuracy.
- Cocktail waits for its slowest member: of all twelve, the one whose printed latency is nearest to Cocktail's mean.
- Tabi runs a small model on every query and INFaaS's model on the share that is re-routed. The small one is taken to be
  DistilBERT. The share follows from the paper's latencies, with its 15 % from word pruning on re-routed queries:
  share = (Tabi - small) / (0.85 INFaaS), all in printed ms.
- Projected: INFaaS = large, Cocktail = its slowest member, Tabi = small + share large, with the measured latencies.
  Pruning earns nothing there (a batch of one short text does not fill a GPU); what the paper's 15 % would add is shown
  beside it.
- Models whose printed latency is at most 1 ms farther off than the nearest could be meant as well, and BERT-small could
  be the small one: brackets hold the least and the most that any combination of these gives.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from tabi_bench.report import paper
from tabi_bench.report.cells import NONE, Column, Row, Table, number, percent, word
from tabi_bench.report.reading import TASKS

SMALLS = ("distilbert", "bert-small")  # the first is the one that is projected
PRUNED = 0.15  # the large model is faster by so much on pruned text, says the paper
AS_NEAR_MS = 1.0  # printed latencies, whole milliseconds, are no nearer than that
OWN = "the paper's own"  # what the same rule gives on the printed latencies
Times = dict[str, float]  # ms by model, in lower case


# --- the paper's row of a task, read ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """Which models a task's row stands for, and the share of queries that Tabi re-routes with them."""

    small: str
    large: str
    slowest: str  # of Cocktail's members
    share: float

    def project(self, times: Times, pruned: float = 0.0) -> tuple[float, float, float] | None:
        """INFaaS, Cocktail and Tabi in ms; None where a model was not measured."""
        if not {self.small, self.large, self.slowest} <= times.keys():
            return None
        large = times[self.large]
        return large, times[self.slowest], times[self.small] + self.share * (1 - pruned) * large


@cache
def printed_ms() -> Times:
    """The paper's latency column by model."""
    models = paper.printed("models")
    return dict(zip(models.model.str.lower(), models.latency_ms.astype(float), strict=True))


@cache
def unbeaten() -> tuple[str, ...]:
    """Models than which no other is both as fast and as accurate, as printed."""
    models = paper.printed("models").assign(model=lambda table: table.model.str.lower())
    best = models.sort_values(["latency_ms", "accuracy_pct"]).accuracy_pct.cummax()
    return tuple(models.model[models.accuracy_pct >= best.reindex(models.index)])


def nearest(ms: float, among: Collection[str]) -> list[str]:
    """The model of `among` whose printed latency is nearest, then all others of the twelve that are about as near."""
    off = {name: abs(printed - ms) for name, printed in printed_ms().items()}
    chosen = min(among, key=off.__getitem__)
    others = [name for name in off if name != chosen and off[name] <= off[chosen] + AS_NEAR_MS + 1e-9]
    return [chosen, *others]


def share(task: str, small: str) -> float:
    """The re-route share that the paper's mean latencies of a task imply."""
    tabi, infaas = (paper.main_cell(task, method)["latency_ms"] for method in ("tabi", "infaas"))
    return (tabi - printed_ms()[small]) / ((1 - PRUNED) * infaas)


@cache
def readings(task: str) -> list[Reading]:
    """All ways to read a task's row; the first is the one that is projected."""
    infaas, cocktail = (paper.main_cell(task, method)["latency_ms"] for method in ("infaas", "cocktail"))
    ways = product(SMALLS, nearest(infaas, unbeaten()), nearest(cocktail, printed_ms()))
    return [Reading(small, large, slowest, share(task, small)) for small, large, slowest in ways]


def projected(task: str, times: Times) -> Row:
    """One row of the projection table: of the first reading, with the range over all of them."""
    first, *_ = found = readings(task)
    line: Row = {
        "task": task,
        "small": first.small,
        "infaas_model": first.large,
        "as_near": ", ".join(dict.fromkeys(r.large for r in found if r.large != first.large)) or None,
        "cocktail_slowest": first.slowest,
        "share": first.share,
        "paper_reduction_pct": _less(*_printed(task, "infaas")),
        "paper_cocktail_pct": _less(*_printed(task, "cocktail")),
    }
    if first.project(times) is None:
        return line | {"status": "not measured"}
    line["infaas_ms"], line["cocktail_ms"], line["tabi_ms"] = first.project(times)
    outcomes = [outcome for reading in found if (outcome := reading.project(times))]
    for key, place in (("reduction_pct", 0), ("cocktail_pct", 1)):
        line[key] = _less(line["tabi_ms"], first.project(times)[place])
        every = [_less(outcome[2], outcome[place]) for outcome in outcomes]
        line[f"{key}_low"], line[f"{key}_high"] = min(every), max(every)
    return line | {"pruned_pct": _less(first.project(times, PRUNED)[2], line["infaas_ms"]), "status": "ok"}


def _printed(task: str, other: str) -> tuple[float, float]:
    return paper.main_cell(task, "tabi")["latency_ms"], paper.main_cell(task, other)["latency_ms"]


def _less(ours: float, other: float) -> float:
    """By how many percent `ours` is less."""
    return 100 * (1 - ours / other)


# --- what the bench wrote ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """One file of the bench: the device, and the rows of the paper's models."""

    path: Path
    device: dict[str, Any]
    rows: list[Row]

    @property
    def ways(self) -> list[tuple[str, int]]:
        """(engine, tokens) of which anything was measured, in the file's order of engines, the shortest first."""
        entries = list(dict.fromkeys(row["entry"] for row in self.rows))
        there = {(row["entry"], row["length"]) for row in self.rows if row["text_p50"] is not None}
        return sorted(there, key=lambda way: (entries.index(way[0]), way[1]))

    def times(self, entry: str, length: int) -> Times:
        """Median ms from raw text to label, by model."""
        mine = [row for row in self.rows if (row["entry"], row["length"]) == (entry, length)]
        return {row["model"]: row["text_p50"] for row in mine if row["text_p50"] is not None}

    @property
    def provenance(self) -> str:
        known = self.device
        dtypes = sorted({row["engine"]["dtype"] for row in self.rows if row.get("engine", {}).get("dtype")})
        limit = f"power limit {known['power_limit_w']:.0f} W" if known.get("power_limit_w") else None
        named = [f"{key} {known[key]}" for key in ("driver", "torch", "transformers", "commit") if known.get(key)]
        parts = ["random weights", *dtypes, f"device {known['name']}", limit, *named, known.get("day")]
        return "; ".join(part for part in parts if part) + "."


def benches(root: Path | str) -> list[Bench]:
    """The bench's files in a folder that hold any of the paper's models."""
    found = []
    for path in sorted(Path(root).expanduser().glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and {"device", "rows"} <= content.keys():
            rows = [row for row in content["rows"] if row["model"] in printed_ms()]
            found += [Bench(path, content["device"], rows)] if rows else []
    return found


def _problems(bench: Bench) -> list[str]:
    """A sentence per reason for which rows have no times, and per engine that ran as another one."""
    by_reason: dict[str, list[str]] = {}
    for row in bench.rows:
        if row["error"]:
            by_reason.setdefault(row["error"], []).append(f"{row['model']} {row['entry']} {row['length']}")
    return [f"{reason.rstrip('.')}: {', '.join(them)}." for reason, them in by_reason.items()]


# --- tables -----------------------------------------------------------------------------------------------------------


def latencies(bench: Bench) -> Table:
    """The paper's latency of each model, ours by engine and length, and how many times the paper's that is less."""
    lines = []
    for printed in paper.printed("models").itertuples():
        each = {"model": printed.model, "params_millions": printed.params_millions, "paper_ms": printed.latency_ms}
        for entry, length in bench.ways:
            ms = bench.times(entry, length).get(printed.model.lower())
            each[f"{entry} {length} ms"] = ms
            each[f"{entry} {length} ratio"] = printed.latency_ms / ms if ms else None
        lines.append(each)
    columns = [
        word("model", "model"),
        number("params_millions", "params M", 0),
        number("paper_ms", "paper: ms", 0),
    ]
    for entry, length in bench.ways:
        columns.append(number(f"{entry} {length} ms", f"{entry}, {length} tokens: ms"))
        columns.append(number(f"{entry} {length} ratio", f"{entry}, {length}: paper / ours", 1))
    notes = [
        "Ours: median from raw text to label, one query at a time, every text of exactly so many tokens (of whole "
        "words, so that tokenising is cheap). Engines of one model and length were measured interleaved. The paper's: "
        "printed, on other hardware, at lengths that it does not print.",
        *_problems(bench),
    ]
    return _table(bench, "shapes", "The paper's twelve models: latency", lines, columns, notes)


def _settings(bench: Bench) -> list[tuple[Row, Times]]:
    """The paper's own latencies, then each engine and length that was measured."""
    own = ({"engine": OWN, "tokens": None}, printed_ms())
    return [own, *(({"engine": entry, "tokens": length}, bench.times(entry, length)) for entry, length in bench.ways)]


PROJECTION = (
    "PROJECTION, not a measurement: what the paper's mean latencies would become with the latencies measured here and "
    "the re-route shares that its own latencies imply. INFaaS: the model whose printed latency is nearest to its "
    "printed mean of the task, among those that none beats in both latency and accuracy. Cocktail: the nearest of all "
    "twelve, as its slowest member. Tabi: DistilBERT + share × INFaaS's model; share = (Tabi − DistilBERT) / (0.85 "
    "INFaaS) in the paper's ms, as pruning makes the large model 15 % faster there. Brackets, no confidence interval: "
    "least and most over all models that are about as near (within 1 ms of the nearest) and were measured, and with "
    "BERT-small in DistilBERT's place."
)


def projection(bench: Bench) -> Table:
    """Every task's mean latencies as they would become, by engine and length."""
    lines = [{**projected(task, times), **setting} for setting, times in _settings(bench) for task in TASKS]
    columns = [
        word("engine", "latencies"),
        number("tokens", "tokens", 0, measured=False),
        word("task", "task"),
        word("infaas_model", "INFaaS's model"),
        word("as_near", "as near"),
        word("cocktail_slowest", "Cocktail's slowest"),
        percent("share", "re-routed %", 0, measured=False),
        number("infaas_ms", "INFaaS ms"),
        number("cocktail_ms", "Cocktail ms"),
        number("tabi_ms", "Tabi ms"),
        number("reduction_pct", "less than INFaaS %", 0),
        number("pruned_pct", "with 15 % from pruning", 0),
        number("paper_reduction_pct", "paper: less than INFaaS %", 0, measured=False),
        number("cocktail_pct", "less than Cocktail %", 0),
        number("paper_cocktail_pct", "paper: less than Cocktail %", 0, measured=False),
    ]
    return _table(bench, "projection", "Projected mean latencies of the paper's tasks", lines, columns, [PROJECTION])


def projection_summary(bench: Bench) -> Table:
    """Means over the tasks that can be projected, by engine and length."""
    keys = ["infaas_ms", "cocktail_ms", "tabi_ms", "reduction_pct", "pruned_pct", "cocktail_pct"]
    lines = []
    for setting, times in _settings(bench):
        found = pd.DataFrame([each for task in TASKS if (each := projected(task, times))["status"] == "ok"])
        if found.empty:
            continue
        ends = {"tasks": len(found), "least": found.reduction_pct.min(), "most": found.reduction_pct.max()}
        means = found[[*keys, "paper_reduction_pct", "paper_cocktail_pct"]].mean().to_dict()
        lines.append({**setting, **means, **ends})
    columns = [
        word("engine", "latencies"),
        number("tokens", "tokens", 0),
        number("tasks", "tasks", 0),
        number("infaas_ms", "INFaaS ms"),
        number("cocktail_ms", "Cocktail ms"),
        number("tabi_ms", "Tabi ms"),
        number("reduction_pct", "less than INFaaS %", 0),
        Column("least to most", lambda each: f"{each['least']:.0f} to {each['most']:.0f}" if each["tasks"] else NONE),
        number("pruned_pct", "with 15 % from pruning", 0),
        number("paper_reduction_pct", "paper: less than INFaaS %", 0),
        number("cocktail_pct", "less than Cocktail %", 0),
        number("paper_cocktail_pct", "paper: less than Cocktail %", 0),
    ]
    title = "Projected mean latencies, means over the tasks"
    return _table(bench, "projection_summary", title, lines, columns, [PROJECTION])


def _table(bench: Bench, kind: str, title: str, lines: list[Row], columns: list[Column], notes: list[str]) -> Table:
    name = f"{bench.path.stem}-{kind}"
    return Table(name, f"{title} ({bench.device['name']})", pd.DataFrame(lines), columns, bench.provenance, notes)


BUILDERS = (latencies, projection_summary, projection)
NAMES = ("shapes", "projection_summary", "projection")  # in documents, between markers


def build(root: Path | str) -> dict[str, list[Table]]:
    """By name, one table per file of the bench in the folder; empty lists where there is none."""
    found = benches(root)
    return {name: [builder(bench) for bench in found] for name, builder in zip(NAMES, BUILDERS, strict=True)}
