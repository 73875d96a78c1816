"""All tables of a setting by name, each built when it is first asked for: some take seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from tabi_bench.report import from_profiles, from_records, load, pruning, side_by_side
from tabi_bench.report.cells import Table
from tabi_bench.report.reading import Results, Setting

OF_RECORDS = (*side_by_side.WHOLE, *from_records.BUILDERS, *side_by_side.CHOSEN)
EVERY = (*OF_RECORDS, *from_profiles.BUILDERS, *load.TABLES, *pruning.TABLES)
BUILDERS = {builder.__name__: builder for builder in EVERY}


class Tables:
    """The tables of one setting."""

    def __init__(self, results: Results, setting: Setting) -> None:
        self.results, self.setting = results, setting
        self._built: dict[str, Table | None] = {}

    def get(self, name: str) -> Table | None:
        """The table, or None where this setting has nothing for it. Raises KeyError for an unknown name."""
        if name not in self._built:
            self._built[name] = self.attempt(name, partial(BUILDERS[name], self.results, self.setting))
        return self._built[name]

    def attempt(self, name: str, make: Callable[[], Any]) -> Any:
        """A table or figure; None where the details of a record hold what nobody can draw, which is a problem noted."""
        return self.results.problems.attempt(self.results.root / self.setting.slug / name, make)

    def build(self, only: Collection[str] = ()) -> dict[str, Table]:
        """Every table (or those named in `only`) for which the setting has something."""
        tables = {name: self.get(name) for name in BUILDERS if not only or name in only}
        return {name: table for name, table in tables.items() if table is not None}
