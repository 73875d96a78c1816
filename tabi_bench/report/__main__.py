"""`python -m tabi_bench.report RESULTS [--out DIR] [--only NAME ...]`: tables and figures from records alone.

A folder in which the bench measured the paper's shapes gets their tables, beside the bench's files.
"""

from __future__ import annotations

import argparse
import logging
import sys

from tabi_bench.report import shapes
from tabi_bench.report.site import rebuild, write_shapes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("results", help="a folder with records, e.g. outputs or results/NAME")
    parser.add_argument("--out", help="where to write; default: RESULTS/report")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these tables and figures; no pages")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s")
    try:
        write = write_shapes if shapes.benches(options.results) else rebuild
        written = write(options.results, options.out, options.only)
    except (FileNotFoundError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} files; {written[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
