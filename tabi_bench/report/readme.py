"""`python -m tabi_bench.report.readme [FILE ...]`: rewrites the tables between markers in Markdown files.

A marker names a table, the folder of its records (relative to where this runs) and, if not all, its columns:

    <!-- table: main results/NAME | task, system, score % -->
    <!-- /table -->

`paper` needs no folder; `headline` is the main table's Tabi in one row per task, the engines side by side; `ladder`
comes from the folder's training*.json; `shapes`, `projection` and `projection_summary` from the bench's files. A folder
without records gets a sentence that says so; an unknown table or column is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from tabi_bench.report import shapes, tables
from tabi_bench.report.cells import Table
from tabi_bench.report.ladder import ladder
from tabi_bench.report.reading import read

MARKER = re.compile(
    r"^(<!-- table: (?P<name>\w+)(?: (?P<folder>[^|\n]+?))?(?: \| (?P<columns>[^\n]+?))? -->\n)"
    r"(?:(?!<!-- table:).)*?^(<!-- /table -->)$",
    re.MULTILINE | re.DOTALL,
)
OPENING = re.compile(r"^<!-- table:", re.MULTILINE)


def rewritten(text: str, root: Path) -> str:
    """`text` with every table between markers anew; folders are below `root`.

    Raises ValueError for a marker that is not closed or not understood, an unknown table and an unknown column.
    """
    if len(OPENING.findall(text)) != len(MARKER.findall(text)):
        raise ValueError(
            "a marker is not closed or not understood: <!-- table: NAME FOLDER | COLUMNS --> <!-- /table -->"
        )
    return MARKER.sub(lambda found: found[1] + _fill(found, root) + found[5], text)


def _fill(found: re.Match, root: Path) -> str:
    name, folder, columns = found["name"], found["folder"], found["columns"]
    if name == "paper":
        return _chosen(tables.printed(), columns)
    if name == "headline" and folder:
        return _chosen(tables.headline(read(root / folder)), columns)
    known = [*(builder.__name__ for builder in tables.BUILDERS), "ladder", *shapes.NAMES]
    if name not in known or not folder:
        every = ", ".join(known)
        raise ValueError(f"{found[1].strip()}: a table is 'paper', 'headline', or one of {every} and a results folder")
    if name == "ladder":
        mine = [_chosen(table, columns)] if (table := ladder(root / folder)) else []
    elif name in shapes.NAMES:
        mine = [_chosen(table, columns) for table in shapes.build(root / folder)[name]]
    elif settings := _settings(root / folder):
        mine = [_chosen(table, columns) for setting in settings if (table := setting.get(name))]
    else:
        return f"*No records in {folder} yet.*\n"
    if not mine:
        return f"*Nothing measured for {name} in {folder} yet.*\n"
    return "\n".join(mine)


@cache
def _settings(folder: Path) -> list[tables.Tables]:
    """The tables of every setting of a results folder; none where it holds no records."""
    try:
        results = read(folder)
    except FileNotFoundError:
        return []
    return [tables.Tables(results, setting) for setting in results.settings()]


def _chosen(table: Table, columns: str | None) -> str:
    if columns is None:
        return table.markdown()
    there = {column.header: column for column in table.columns}
    wanted = [name.strip() for name in columns.split(",")]
    if unknown := [name for name in wanted if name not in there]:
        raise ValueError(f"table {table.name} has no column {', '.join(unknown)}; it has {', '.join(there)}")
    return replace(table, columns=[there[name] for name in wanted]).markdown()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report.readme", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=["README.md", *map(str, sorted(Path("docs").glob("*.md")))])
    try:
        for path in map(Path, parser.parse_args(arguments).files):
            text = path.read_text()
            if (new := rewritten(text, Path())) != text:
                path.write_text(new)
                print(f"{path}: tables rewritten")
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
