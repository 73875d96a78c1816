"""How far something is: a bar in a terminal, a line every half a minute in a file or a pipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

log = logging.getLogger(__name__)
EVERY_S = 30.0
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, about {remaining} to go"


class _Lines:
    """Takes what tqdm would draw and logs it."""

    def write(self, text: str) -> None:
        if line := text.strip():
            log.info(line)

    def flush(self) -> None:
        """Nothing is held back."""


def progress(rows: Iterable[Any] | None = None, *, desc: str, stream: TextIO | None = None, **options: Any) -> tqdm:
    """A tqdm over `rows`, or of `total` steps to be told by `update`. stream: standard error by default."""
    stream = stream or sys.stderr
    if stream.isatty():
        return tqdm(rows, desc=desc, leave=False, file=stream, **options)
    rare = {"mininterval": EVERY_S, "maxinterval": EVERY_S, "miniters": 1, "delay": EVERY_S}
    return tqdm(rows, desc=desc, leave=False, file=_Lines(), bar_format=LINE, **options, **rare)
