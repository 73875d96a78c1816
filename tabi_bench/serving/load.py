"""One run under load, and what it says: percentiles, busy shares, a growing queue, the highest rate that passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tabi_bench.serving.queues import Stream

STEP = 0.05  # bisection ends when the highest pass and the lowest fail are this near
TRIES = 24
TAIL = 0.99  # the quantile that keeps a bound


@dataclass(frozen=True)
class Run:
    """One run at one rate. latency_ms: (N,), in order of arrival, its start left out."""

    rate: float
    latency_ms: np.ndarray
    overloaded: bool

    @classmethod
    def of(cls, rate: float, stream: Stream, due_ns: np.ndarray, skipped: int) -> Run:
        """From a served stream, without its first `skipped` queries."""
        ms = (stream.finished_ns - stream.started_ns - due_ns)[skipped:] / 1e6
        return cls(rate, ms, stream.overloaded or grew(ms))

    @classmethod
    def joined(cls, runs: Sequence[Run]) -> Run:
        """Runs at one rate as if they were one, for percentiles; overloaded if one of them is."""
        ms = np.concatenate([run.latency_ms for run in runs])
        return cls(runs[0].rate, ms, any(run.overloaded for run in runs))

    def keeps(self, slo_ms: float) -> bool:
        """Whether p99 is within the bound, over all and again in the last quarter."""
        if self.overloaded:
            return False
        last = self.latency_ms[-max(1, len(self.latency_ms) // 4) :]
        return max(np.quantile(part, TAIL) for part in (self.latency_ms, last)) <= slo_ms

    def facts(self) -> dict[str, Any]:
        """Plain data. Of an overloaded run no latency is given: it only says how long the run was."""
        if self.overloaded:
            return {"rate": self.rate, "overloaded": True}
        p50, p99 = np.quantile(self.latency_ms, [0.5, 0.99]).tolist()
        return {"rate": self.rate, "p50": p50, "p99": p99, "mean": float(self.latency_ms.mean()), "overloaded": False}


def most_late(count: int) -> float:
    """With more of `count` queries later than a bound than this, their p99 cannot keep it any more."""
    return (1 - TAIL) * count + 1


Serve = Callable[[float], Iterable[Run]]  # runs at a rate, all of which must keep the bound


def grew(latency_ms: np.ndarray) -> bool:
    """Whether latencies (N,), in order of arrival, rose all along the run, as in a queue without bound.

    Each quarter's median is above the one before, the last above three times the first and by more than its spread.
    """
    if len(latency_ms) < 40:
        return False
    parts = np.array_split(latency_ms, 4)
    medians = np.array([np.median(part) for part in parts])
    spread = np.subtract(*np.quantile(parts[0], [0.75, 0.25]))
    return bool((np.diff(medians) > 0).all() and medians[-1] > 3 * medians[0] and medians[-1] - medians[0] > 4 * spread)


def busy_shares(stream: Stream, wall_ns: int) -> dict[str, float]:
    """Of the wall time: the thread at work on batches, and in forward passes alone (the device's share, with what the
    host does to launch them)."""
    forward = sum(
        ns for a in stream.answered for stage, ns in a.stages_ns.items() if stage.startswith(("level", "members"))
    )
    return {
        "busy_share": float(stream.busy_ns.sum() / wall_ns),
        "forward_share": float(forward / wall_ns),
        "mean_batch": float(stream.items / max(stream.batches, 1)),
    }


def _holds(serve: Serve, slo_ms: float, rate: float) -> bool:
    return all(run.keeps(slo_ms) for run in serve(rate))


def goodput(serve: Serve, slo_ms: float, start: float, factor: float = 1.5) -> dict[str, Any]:
    """The highest rate that keeps the bound and the lowest that does not, within 5 %, from the rate `start` on.

    factor: between the rates that are tried until one passes and one fails. {"passed": None} where even a thousandth of
    `start` does not keep it.
    """
    passed, failed, rate = None, None, start
    for _ in range(TRIES):
        if _holds(serve, slo_ms, rate):
            passed = rate
            rate = rate * factor if failed is None else float(np.sqrt(rate * failed))
        else:
            failed = rate
            rate = rate / factor if passed is None else float(np.sqrt(rate * passed))
        if passed and failed and failed / passed <= 1 + STEP:
            break
        if failed and failed < start / 1000:
            break
    return {"passed": passed, "failed": failed}


def confirmed(serve: Serve, slo_ms: float, rate: float) -> float:
    """The first of `rate`, 5, 14, 29, 52 and 78 % less that keeps the bound; 0 if none of them does.

    Runs are long here: steps that double end after six, though between two of them a higher rate may hold.
    """
    for lower in (rate * (1 + STEP) ** -(2.0 ** np.arange(6) - 1)).tolist():
        if _holds(serve, slo_ms, lower):
            return lower
    return 0.0
