"""When queries arrive: drawn or read beforehand, the same for all systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def poisson(count: int, seed: int) -> np.ndarray:
    """(count,) arrival times of a Poisson process at one query a second; divided by a rate, at that rate."""
    return np.cumsum(np.random.default_rng(seed).exponential(size=count))


def recorded(path: Path) -> np.ndarray:
    """(N,) seconds from the first arrival on, of a file with one number a line. Raises ValueError."""
    try:
        times = np.atleast_1d(np.loadtxt(path, dtype=np.float64))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"scenario.times={path}: not one column of arrival times in seconds ({error}); write a number a line"
        ) from None
    if times.ndim > 1 or len(times) < 2 or not np.isfinite(times).all():
        raise ValueError(f"scenario.times={path}: two finite times or more are needed, one a line, in seconds")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        first, then = times[back[0] : back[0] + 2]
        raise ValueError(
            f"scenario.times={path}: line {back[0] + 2} goes backwards, from {first:g} to {then:g} s; sort the times"
        )
    if times[-1] == times[0]:
        raise ValueError(f"scenario.times={path}: all {len(times)} queries arrive at once; use scenario=offline")
    return times - times[0]
