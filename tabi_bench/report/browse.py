"""Tables and figures one at a time, as notebooks show them: built when asked for, for every setting that has them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tabi_bench.report import figures, tables
from tabi_bench.report.cells import Table, provenance, word
from tabi_bench.report.drawing import Drawing
from tabi_bench.report.reading import METHODS, TASKS, Setting, frame, read

OVER_SETTINGS = ("paper", "headline")  # tables that are not of one setting
NAMES = (*OVER_SETTINGS, *dict.fromkeys(builder.__name__ for builder in (*tables.BUILDERS, *figures.BUILDERS)))


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
        found = frame(runs).groupby(["label", *Setting.__dataclass_fields__], dropna=False)
        told = {"tasks": ("task", _listed), "systems": ("method", _listed), "records": ("run_id", "size")}
        data = found.agg(**told).reset_index().rename(columns={"label": "preset"})
        columns = [word(key, key) for key in data.columns]
        return Table("contents", "What was measured", data, columns, provenance(runs), self.results.problems)

    def entries(self, *names: str) -> list[Entry]:
        """The figure and the table of each name, setting by setting; a note says where nothing was measured.

        Raises ValueError for a name that is neither a table nor a figure.
        """
        if unknown := [name for name in names if name not in NAMES]:
            raise ValueError(f"no table or figure {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return [entry for name in names for entry in self._entries(name)]

    def show(self, *names: str) -> None:
        """Displays `entries` in a notebook."""
        from IPython.display import display  # only where notebooks run

        display(*self.entries(*names))

    def _entries(self, name: str) -> list[Entry]:
        if name in OVER_SETTINGS:
            table = tables.printed() if name == "paper" else self._headline()
            return [Note(f"**{table.title}**"), table] if table else [_unmeasured(name)]
        parts = {setting: self._parts(name, setting) for setting in self._tables}
        if not any(parts.values()):
            return [_unmeasured(name)]
        shown: list[Entry] = []
        for setting, mine in parts.items():
            shown += [Note(f"**{mine[0].title}**: {setting}"), *mine] if mine else []
        return shown + [Note(f"*Nothing of it under {setting}.*") for setting, mine in parts.items() if not mine]

    def _headline(self) -> Table | None:
        return tables.headline(self.results) if any(run.label == "main_table" for run in self.results.runs) else None

    def _parts(self, name: str, setting: Setting) -> list[Drawing | Table]:
        mine = self._tables[setting]
        drawn = figures.build(self.results, setting, mine, [name])
        return [*drawn.values(), *mine.build([name]).values()]


def _unmeasured(name: str) -> Note:
    return Note(f"*Not measured: these results hold nothing for `{name}`.*")


def _listed(values: pd.Series) -> str:
    """Tasks or systems, each once, in their usual order."""
    order = {name: place for place, name in enumerate((*TASKS, *METHODS))}
    return ", ".join(sorted(set(values), key=lambda name: (order.get(name, len(order)), name)))
