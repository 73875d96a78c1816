"""How far something is: a bar in a terminal, a line every half a minute in a file or a pipe."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
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


class Watched(tqdm):
    """Says every half a minute that a step does not end: a model may hang. After TABI_BENCH_WAIT_S it interrupts.

    within: of a long step, how many parts are done; read by the thread that watches, so that the step pays nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.steps, self.ended = 0, Event()
        self.within: Callable[[], int] = int
        super().__init__(*arguments, **options)
        if not self.disable:
            Thread(target=_watch, args=(ref(self), self.ended, patience_s()), daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            self.steps += 1
            yield row

    def update(self, n: float | None = 1) -> bool | None:
        self.steps += 1
        return super().update(n)

    def close(self) -> None:
        self.ended.set()
        super().close()


def _watch(bar: ref[Watched], ended: Event, patience: float) -> None:
    """Until the bar is closed, or gone with what failed beneath it."""
    last, since = (0, 0), monotonic()
    while not ended.wait(EVERY_S) and (watched := bar()) is not None:
        desc, now = watched.desc, (watched.steps, watched.within())
        if now[0] == last[0] and now != last:  # no step has drawn it
            watched.refresh()
        del watched
        if now != last:
            last, since = now, monotonic()
            continue
        waited = monotonic() - since
        if waited >= patience > 0:
            log.error("%s: no step for %.0f s; ended. TABI_BENCH_WAIT_S sets the limit in seconds", desc, waited)
            return signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)  # as Ctrl-C does
        if waited >= EVERY_S:
            log.warning("%s: no step for %.0f s; a model may hang", desc, waited)


def progress(rows: Iterable[Any] | None = None, *, desc: str, stream: TextIO | None = None, **options: Any) -> Watched:
    """A tqdm over `rows`, or of `total` steps to be told by `update`. stream: standard error by default."""
    stream = stream or sys.stderr
    if stream.isatty():
        return Watched(rows, desc=desc, leave=False, file=stream, **options)
    rare = {"mininterval": EVERY_S, "maxinterval": EVERY_S, "miniters": 1, "delay": EVERY_S}
    return Watched(rows, desc=desc, leave=False, file=_Lines(), bar_format=LINE, **options, **rare)
