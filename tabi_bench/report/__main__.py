"""`python -m tabi_bench.report RESULTS [--out DIR] [--only NAME ...]`: tables and figures from records alone.

A folder in which the bench measured the paper's shapes gets their table, beside the bench's files.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from tabi_bench.report.from_files import shapes
from tabi_bench.report.site import rebuild


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("results", help="a folder with records, e.g. outputs or results/NAME")
    parser.add_argument("--out", help="where to write; default: RESULTS/report")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these tables and figures; no pages")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s")
    try:
        measured = shapes(options.results)
        folder = Path(options.out or options.results).expanduser()
        written = [path for table in measured for path in table.save(folder)]
        written = written or rebuild(options.results, options.out, options.only)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"{len(written)} files; {written[-1]}")


if __name__ == "__main__":
    main()
