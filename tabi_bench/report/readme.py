"""`python -m tabi_bench.report.readme [FILE ...]`: rewrites the tables between markers in Markdown files.

A marker names a table, the folder of its records (relative to where this runs) and, if not all, its columns:

    <!-- table: main results/NAME | task, system, score % -->
    <!-- /table -->

`headline` is the main table's Tabi in one row per task, the engines side by side; `claims` are the paper's, with a
verdict; `ladder` comes from the folder's training*.json, `shapes` from the bench's files. A folder without records gets
a sentence that says so; an unknown table or column is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from tabi_bench.report import from_records, tables
from tabi_bench.report.cells import Table
from tabi_bench.report.claims import claims
from tabi_bench.report.from_files import ladder, shapes
from tabi_bench.report.reading import read

MARKER = re.compile(
    r"^(<!-- table: (?P<name>\w+)(?: (?P<folder>[^|\n]+?))?(?: \| (?P<columns>[^\n]+?))? -->\n)"
    r"(?:(?!<!-- table:).)*?^(<!-- /table -->)$",
    re.MULTILINE | re.DOTALL,
)
OPENING = re.compile(r"^<!-- table:", re.MULTILINE)
_read = cache(read)
OTHERS = ("headline", "claims", "ladder", "shapes")


def rewritten(text: str, root: Path) -> str:
    """`text` with every table between markers anew; folders are below `root`.

    Raises ValueError for a marker that is not closed or not understood, an unknown table and an unknown column.
    """
    if len(OPENING.findall(text)) != len(MARKER.findall(text)):
        raise ValueError(
            "a marker is not closed or not understood: <!-- table: NAME FOLDER | COLUMNS --> <!-- /table -->"
        )
    return MARKER.sub(lambda match: match[1] + _fill(match, root) + match[5], text)


def _fill(match: re.Match, root: Path) -> str:
    name, folder = match["name"], match["folder"]
    known = (*OTHERS, *tables.BUILDERS)
    if name not in known or not folder:
        raise ValueError(f"{match[1].strip()}: a table is one of {', '.join(known)}, then stands a results folder")
    try:
        made = _tables(name, root / folder, match["columns"] or "")
    except FileNotFoundError:
        return f"*No records in {folder} yet.*\n"
    return "\n".join(_chosen(t, match["columns"]) for t in made) or f"*Nothing measured for {name} in {folder} yet.*\n"


def _tables(name: str, folder: Path, columns: str) -> list[Table]:
    """The tables of that name, of each setting (or file) one. Raises FileNotFoundError without records."""
    if name == "shapes":
        return shapes(folder)
    if name == "ladder":
        return [table for table in (ladder(folder),) if table is not None]
    results = _read(folder)
    over_settings = {"headline": from_records.headline, "claims": claims}.get(name)
    if over_settings:
        made = [over_settings(results, columns)]
    else:
        made = [tables.Tables(results, setting).get(name) for setting in results.settings()]
    return [table for table in made if table is not None]


def _chosen(table: Table, columns: str | None) -> str:
    if columns is None:
        return table.markdown()
    known = {column.header: column for column in table.columns}
    wanted = [name.strip() for name in columns.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"table {table.name} has no column {', '.join(unknown)}; it has {', '.join(known)}")
    return replace(table, columns=[known[name] for name in wanted]).markdown()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report.readme", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=["README.md", *map(str, sorted(Path("docs").glob("*.md")))])
    try:
        for path in map(Path, parser.parse_args(arguments).files):
            text = path.read_text(encoding="utf-8")
            if (new := rewritten(text, Path())) != text:
                path.write_text(new, encoding="utf-8")
                print(f"{path}: tables rewritten")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
