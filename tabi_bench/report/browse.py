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
NAMES = (HEADLINE, *dict.fromkeys([*tables.NAMES, *(builder.__name__ for builder in figures.BUILDERS)]))


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
        runs = self.results.runs
        groups = frame(runs).groupby(["label", *(field.name for field in fields_of(Setting))], dropna=False)
        columns = {"tasks": ("task", _tasks), "systems": ("method", _systems), "records": ("run_id", "size")}
        data = groups.agg(**columns).reset_index().rename(columns={"label": "preset"})
        shown = [word(key, key) for key in data.columns]
        return Table("contents", "What was measured", data, shown, provenance(runs), list(self.results.problems))

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
        unmeasured = Note(f"*Not measured: these results hold nothing for `{name}`.*")
        if name == HEADLINE:
            table = from_records.headline(self.results)
            return [Note(f"**{table.title}**"), table] if table else [unmeasured]
        parts = {setting: self._parts(name, setting) for setting in self._tables}
        if not any(parts.values()):
            return [unmeasured]
        shown: list[Entry] = []
        for setting, own in parts.items():
            shown += [Note(f"**{own[0].title}**: {setting}"), *own] if own else []
        return shown + [Note(f"*Nothing of it under {setting}.*") for setting, own in parts.items() if not own]

    def _parts(self, name: str, setting: Setting) -> list[Drawing | Table]:
        own = self._tables[setting]
        known = own.build([name]) if name in tables.NAMES else {}
        return [*figures.build(own, [name]).values(), *known.values()]


def _tasks(values: pd.Series) -> str:
    return ", ".join(sorted(set(values), key=lambda task: names.place(names.TASKS, task)))


def _systems(values: pd.Series) -> str:
    return ", ".join(map(names.printed, sorted(set(values), key=lambda name: names.place(names.SYSTEMS, name))))
