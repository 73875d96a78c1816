"""Time as a load generator sees it: real, or simulated for tests."""

from __future__ import annotations

import time
from typing import Protocol

SPIN_NS = 5_000_000  # a sleeping thread wakes up late: on a virtual machine by a millisecond, once in a thousand times


class Clock(Protocol):
    """Nanoseconds that only grow."""

    def now(self) -> int: ...

    def wait_until(self, ns: int) -> None:
        """Returns once `now()` is at least `ns`."""
        ...


class WallClock:
    """The real one. It sleeps, then spins the last five milliseconds."""

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, ns: int) -> None:
        """See Clock."""
        remaining = ns - self.now()
        if remaining > SPIN_NS:
            time.sleep((remaining - SPIN_NS) / 1e9)
        while self.now() < ns:
            pass


class SimulatedClock:
    """Time passes only where someone lets it pass."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> int:
        """See Clock."""
        return self.ns

    def wait_until(self, ns: int) -> None:
        """See Clock."""
        self.ns = max(self.ns, ns)
