"""A table as data: raw values for CSV, strings for Markdown, HTML and LaTeX, its notes and its line of provenance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench.names import printed
from tabi_bench.report.reading import Run

NONE = "–"
Row = dict[str, Any]
LATEX = {"\\": r"\textbackslash{}", "–": "--", "−": "$-$", "≥": r"$\geq$", "^": r"\textasciicircum{}"}
LATEX |= {"~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class Column:
    """A column of text: how a row is shown. measured: replaced by the status in rows that are not "ok"."""

    header: str
    render: Callable[[Row], str]
    measured: bool = True
    note: str = ""  # what the header means, below a table that shows the column

    def noted(self, note: str) -> Column:
        return replace(self, note=note)


@dataclass(frozen=True)
class Table:
    """data: raw values, as in the CSV; columns: what of it is shown, and how."""

    name: str
    title: str
    data: pd.DataFrame
    columns: list[Column]
    provenance: str
    notes: list[str] = field(default_factory=list)

    def text(self) -> pd.DataFrame:
        """What is shown, as strings."""
        shown = [_shown(self.columns, line) for line in self.data.to_dict("records")]
        return pd.DataFrame(shown, columns=[column.header for column in self.columns])

    def csv(self) -> str:
        """Raw values with the line of provenance in each row; as many digits as repeat on any machine."""
        data = self.data.assign(provenance=self.provenance)
        return data.to_csv(index=False, lineterminator="\n", float_format="%.7g")

    def markdown(self) -> str:
        text = self.text()
        lines = [text.columns, ["---"] * len(text.columns), *text.to_numpy()]
        body = "\n".join("| " + " | ".join(map(markdown, line)) + " |" for line in lines)
        *notes, source = map(markdown, self._below)
        below = [*notes, f"*{source}*"]
        return "\n\n".join([f"**{markdown(self.title)}**", body, *below]) + "\n"

    def html(self) -> str:
        """Scrolls sideways where it is wider than the page."""
        body = self.text().to_html(index=False, border=0)
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in self._below)
        return f'<div class="scroll" style="overflow-x: auto">{body}</div>{notes}'

    def _repr_html_(self) -> str:
        """What a notebook shows: its own style would break the lines in cells."""
        return f"<style>.scroll th, .scroll td {{ white-space: nowrap }}</style>{self.html()}"

    def latex(self) -> str:
        """booktabs; needs `\\usepackage{booktabs}`."""
        text = self.text().map(_latex).rename(columns=_latex)
        caption = " ".join(map(_latex, [f"{self.title}.", *self._below]))
        style = text.style.hide(axis="index")
        return style.to_latex(hrules=True, caption=caption, label=f"tab:{self.name}", environment="table*")

    def save(self, folder: Path) -> list[Path]:
        """Writes <name>.md, .csv and .tex into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        forms = {".md": self.markdown(), ".csv": self.csv(), ".tex": self.latex()}
        for end, content in forms.items():
            (folder / f"{self.name}{end}").write_text(content, encoding="utf-8")
        return [folder / f"{self.name}{end}" for end in forms]

    @property
    def _below(self) -> list[str]:
        of_columns = " ".join(dict.fromkeys(column.note for column in self.columns if column.note))
        return [*filter(None, [of_columns]), *self.notes, self.provenance]


def _shown(columns: list[Column], line: Row) -> list[str]:
    if line.get("status", "ok") == "ok":
        return [column.render(line) for column in columns]
    first = next((column for column in columns if column.measured), None)
    texts = {True: line["status"], False: NONE}
    return [texts[column is first] if column.measured else column.render(line) for column in columns]


def markdown(text: str) -> str:
    """Text as Markdown shows it; a name may hold markup."""
    text = re.sub(r"\s*\n\s*", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*|$~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=\())", r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in str(text))


# --- how values are shown ---------------------------------------------------------------------------------------------


def absent(value: Any) -> bool:
    """None, NaN or NA."""
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def word(key: str, header: str, measured: bool = False) -> Column:
    return Column(header, lambda line: NONE if absent(line.get(key)) else str(line[key]), measured)


def number(
    key: str, header: str, digits: int = 2, factor: float = 1.0, measured: bool = True, sign: bool = False
) -> Column:
    """A number, with its interval [key_low, key_high] where the row has one."""
    form = f"{'+' if sign else ''}z.{digits}f"  # z: no minus before a zero

    def render(line: Row) -> str:
        value, low, high = (line.get(key + end, np.nan) for end in ("", "_low", "_high"))
        if absent(value):
            return NONE
        text = format(factor * value, form)
        if absent(low) or absent(high):
            return text
        return f"{text} [{format(factor * low, form)}, {format(factor * high, form)}]"

    return Column(header, render, measured)


def percent(key: str, header: str, digits: int = 1, measured: bool = True) -> Column:
    """A fraction, shown in percent."""
    return number(key, header, digits, 100.0, measured)


# --- provenance, notes ------------------------------------------------------------------------------------------------


def provenance(runs: Iterable[Run]) -> str:
    """The line under every table and figure: what the numbers were measured on, by which commit, when."""
    runs = list(runs)
    facts = [run.record.provenance for run in runs]
    devices = [fact["device"] for fact in facts if isinstance(fact.get("device"), dict)]
    commits = sorted({(fact.get("commit") or "unknown")[:10] + "+" * bool(fact.get("dirty")) for fact in facts})
    versions = {f"driver {d['driver']}" for d in devices if d.get("driver")}
    versions |= {f"power limit {d['power_limit_w']:.0f} W" for d in devices if d.get("power_limit_w")}
    versions |= {f"torch {fact['versions']['torch']}" for fact in facts if fact.get("versions", {}).get("torch")}
    days = sorted({fact["time"][:10] for fact in facts if fact.get("time")})
    seeds = sorted({run.seed for run in runs})
    parts = sorted({str(run.setting) for run in runs})
    parts += [f"seeds {', '.join(map(str, seeds))}"] if any(seeds) else []  # 0 is every record's default
    parts += [*sorted(versions), "commit " + ", ".join(commits)]
    parts += [days[0] + (f" to {days[-1]}" if len(days) > 1 else "")] if days else []
    if any(run.record.source == "generated" for run in runs):
        parts.append("generated queries: a demonstration, no evidence about the paper")
    return "; ".join(parts) + "."


def reasons(runs: Iterable[Run]) -> list[str]:
    """A sentence per task and reason for which runs have no numbers."""
    by_reason: dict[tuple, list[str]] = {}
    for r in (run.record for run in runs if not run.ok):
        by_reason.setdefault((r.task, r.status, _brief(r.error)), []).append(printed(r.method))
    return [f"{task}, {', '.join(names)}: {status}: {why}." for (task, status, why), names in by_reason.items()]


def _brief(error: str | None, length: int = 200) -> str:
    line = (error or "no reason recorded").strip().splitlines()[0].rstrip(".")
    return line if len(line) <= length else line[:length] + "…"


def make_table(
    name: str, title: str, lines: list[Row], columns: list[Column], runs: list[Run], notes: Iterable[str] = ()
) -> Table | None:
    """The table, without columns of which no row has anything to show; None where nothing was measured."""
    if not lines:
        return None
    table = Table(name, title, pd.DataFrame(lines), columns, provenance(runs), [*notes, *reasons(runs)])
    text = table.text()
    return replace(table, columns=[column for column in columns if (text[column.header] != NONE).any()])
