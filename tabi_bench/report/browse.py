"""Tables and figures one at a time, as notebooks show them: built when asked for, for every setting that has them."""

from __future__ import annotations

from dataclasses import fields as fields_of
from pathlib import Path

import pandas as pd

from tabi_bench import names
from tabi_bench.report import figures, from_records, tables
from tabi_bench.report.cells import Table, provenance, word
from tabi_bench.report.drawing import Drawing
from tabi_bench.report.fields import frame
from tabi_bench.report.reading import Setting, read

HEADLINE = "headline"  # the table that is not of one setting
NAMES = (HEADLINE, *dict.fromkeys([*tables.BUILDERS, *figures.BUILDERS]))


class Note(str):
    """A piece of Markdown between tables and figures."""

    def _repr_markdown_(self) -> str:
        return str(self)


Entry = Note | Table | Drawing


class Report:
    """What the records below a folder have to show."""

    def __init__(self, root: Path | str) -> None:
        """Raises FileNotFoundError where there are no records."""
        self.results = read(root)
        self._tables = {setting: tables.Tables(self.results, setting) for setting in self.results.settings()}

    def contents(self) -> Table:
        """What was measured: per preset and setting its tasks, systems and number of records."""
        data = frame(self.results.runs).rename(columns={"label": "preset"})
        keys = ["preset", *(field.name for field in fields_of(Setting))]
        groups = data.assign(systems=data.method.map(names.printed)).groupby(keys, dropna=False)
        columns = {"tasks": ("task", _listed), "systems": ("systems", _listed), "records": ("run_id", "size")}
        shown = groups.agg(**columns).reset_index()
        cells = [word(key, key) for key in shown]
        source = provenance(self.results.runs)
        return Table("contents", "What was measured", shown, cells, source, list(self.results.problems))

    def entries(self, *wanted: str) -> list[Entry]:
        """The figure and the table of each name, setting by setting; a note says where nothing was measured.

        Raises ValueError for a name that is neither a table nor a figure.
        """
        if unknown := [name for name in wanted if name not in NAMES]:
            raise ValueError(f"no table or figure {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return [entry for name in wanted for entry in self._entries(name)]

    def show(self, *wanted: str) -> None:
        """Displays `entries` in a notebook."""
        from IPython.display import display  # only where notebooks run

        display(*self.entries(*wanted))

    def _entries(self, name: str) -> list[Entry]:
        shown: list[Entry] = []
        for setting, own in self._tables.items() if name != HEADLINE else ():
            parts: list[Table | Drawing] = [*figures.build(own, [name]).values(), *own.build([name]).values()]
            shown += [Note(f"**{parts[0].title}**: {setting}"), *parts] if parts else []
        if name == HEADLINE and (table := from_records.headline(self.results)):
            shown = [Note(f"**{table.title}**"), table]
        return shown or [Note(f"*Not measured: these results hold nothing for `{name}`.*")]


def _listed(values: pd.Series) -> str:
    """Each once, in its usual order."""
    order = [*names.TASKS, *names.SYSTEMS.values()]
    return ", ".join(sorted(set(values), key=lambda value: names.place(order, value)))
