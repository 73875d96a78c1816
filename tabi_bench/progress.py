"""How far something is: a bar in a terminal, a line every half a minute in a file or a pipe."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterable, Iterator
from threading import Event, Thread, main_thread
from time import monotonic
from typing import Any, TextIO
from weakref import ref

from tqdm import tqdm

from tabi_bench.cache import patience_s

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


class _Watched(tqdm):
    """Says every half a minute that a step does not end: a model may hang. After TABI_BENCH_WAIT_S it interrupts."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.stepped, self.ended = monotonic(), Event()
        super().__init__(*arguments, **options)
        if not self.disable:
            Thread(target=_watch, args=(ref(self), self.ended, patience_s()), daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            self.stepped = monotonic()
            yield row

    def update(self, n: float | None = 1) -> bool | None:
        self.stepped = monotonic()
        return super().update(n)

    def close(self) -> None:
        self.ended.set()
        super().close()


def _watch(bar: ref[_Watched], ended: Event, patience: float) -> None:
    """Until the bar is closed, or gone with what failed beneath it."""
    while not ended.wait(EVERY_S) and (watched := bar()) is not None:
        desc, waited = watched.desc, monotonic() - watched.stepped
        del watched
        if waited >= patience > 0:
            log.error("%s: no step for %.0f s; ended. TABI_BENCH_WAIT_S sets the limit in seconds", desc, waited)
            return signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)  # as Ctrl-C does
        if waited >= EVERY_S:
            log.warning("%s: no step for %.0f s; a model may hang", desc, waited)


def progress(rows: Iterable[Any] | None = None, *, desc: str, stream: TextIO | None = None, **options: Any) -> tqdm:
    """A tqdm over `rows`, or of `total` steps to be told by `update`. stream: standard error by default."""
    stream = stream or sys.stderr
    if stream.isatty():
        return _Watched(rows, desc=desc, leave=False, file=stream, **options)
    rare = {"mininterval": EVERY_S, "maxinterval": EVERY_S, "miniters": 1, "delay": EVERY_S}
    return _Watched(rows, desc=desc, leave=False, file=_Lines(), bar_format=LINE, **options, **rare)
