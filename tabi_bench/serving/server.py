"""Queries arrive by themselves: open loop, latency from the scheduled arrival, batches formed as queries wait.

A block is one run: its queue is drained at its end, its start discarded. Systems take turns, with the same arrivals.
Each fold is served in runs of its own (`scenario.parts`), at the whole rate: that is what its plan would meet alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tabi_bench import device
from tabi_bench.config import ServerConfig
from tabi_bench.progress import progress
from tabi_bench.serving.arrivals import poisson, recorded
from tabi_bench.serving.load import Run, busy_shares, confirmed, goodput, most_late
from tabi_bench.serving.queues import Limits, Stream
from tabi_bench.serving.scenario import Expected, Scenario, Serving, Systems, parts, serve_stream, turns, warm_up
from tabi_bench.serving.single_stream import served_order
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import System
from tabi_bench.tasks.base import Query

log = logging.getLogger(__name__)
START = 0.1  # of a run's queries come before those that count
SATURATED = 0.7  # of the reference's saturation: the default rate
SLO = 5  # times the reference alone: the default bound
PATIENCE = 20  # bounds' worth of arrivals may wait before a run is given up as overloaded,
LEAST_S = 0.25  # and as many seconds' worth at least: a machine may stall
LEAST_QUERIES = 400  # of a run whose p99 is looked at


class OpenLoop(Scenario):
    """MLPerf's Server, and beyond it the highest rate within a bound."""

    def __init__(self, config: ServerConfig, seed: int, on: str) -> None:
        """Raises ValueError for a file of times that cannot be read."""
        super().__init__(config, seed, on)
        self.gaps = None if config.times is None else recorded(Path(config.times).expanduser())

    def serve(self, systems: Systems, queries: list[Query], expected: Expected) -> Serving:
        """See Scenario. Raises ValueError for a bound below the floor, or a rate that no system survives."""
        config = self.config
        self.systems, self.queries = systems, queries
        self.slo_ms, self.parts = self._bound(expected.alone_ms), parts(systems)
        warm_up(systems, queries, config.max_batch)
        runs = config.arrival_seeds * (len(self.parts) + config.goodput) + config.confirms
        steps = len(systems) * (runs + len(config.curve))
        self.bar = progress(total=steps, desc="serving", unit="step")
        with self.bar, device.old_objects_frozen():
            self.saturation = self._saturation(next(iter(systems.values())))
            self.rate = config.rate or self._default_rate()
            idle = device.idle_watts(self.on)
            serving = self._at_the_rate()
            for name in self.systems:
                facts = {"rate": self.rate, "slo_ms": self.slo_ms, "saturation_qps": self.saturation, "idle_w": idle}
                facts["predicted_qps"] = 1e3 / expected.device_ms
                serving.facts[name] = {**facts, "policy": config.policy, **serving.facts.get(name, {})}
            self._curve(serving)
            if config.goodput:
                self._goodput(serving)
        return serving

    def _bound(self, alone_ms: float) -> float:
        slo_ms = self.config.slo_ms
        if slo_ms is not None and slo_ms < alone_ms:
            raise ValueError(
                f"scenario.slo_ms={slo_ms:g} is below the floor: the reference alone takes {alone_ms:.3f} ms a query; "
                "leave it null for five times that"
            )
        return slo_ms or SLO * alone_ms

    def _saturation(self, reference: Sequence[System]) -> float:
        """Queries a second of the reference where all are there at once, as they come.

        Measured: the profile's prediction lacks what the thread does beside the models.
        """
        taken_ns = 0
        for part in self.parts:
            rows = _drawn(part, len(part), self.seed)
            calls = [(reference[row], self.queries[row]) for row in rows.tolist()]
            limits = Limits(self.config.max_batch, policy=self.config.policy)
            stream = serve_stream(calls, np.zeros(len(calls), np.int64), limits, self.bar)
            taken_ns += int(stream.finished_ns.max() - stream.started_ns)
        return len(self.queries) / (taken_ns / 1e9)

    def _default_rate(self) -> float:
        if self.gaps is not None:
            return (len(self.gaps) - 1) / float(self.gaps[-1])
        return SATURATED * self.saturation

    # --- one run ---

    def _due(self, count: int, seed: int, rate: float) -> np.ndarray:
        """(count,) nanoseconds after the start; recorded times are repeated as often as it takes."""
        if self.gaps is None:
            return (poisson(count, seed) / rate * 1e9).astype(np.int64)
        gaps = np.diff(self.gaps)
        times = np.concatenate([[0.0], np.cumsum(np.resize(gaps, count - 1))])
        return (times * len(gaps) / float(self.gaps[-1]) / rate * 1e9).astype(np.int64)

    def _run(
        self, systems: Sequence[System], rows: np.ndarray, seed: int, rate: float, bounded: bool = False
    ) -> tuple[Run, Stream, int]:
        """Serves some rows and, before them, a tenth as many that do not count: their number is the third.

        bounded: the run is given up once its p99 cannot keep the bound any more.
        """
        before = rows[-math.ceil(START * len(rows)) :]
        calls = [(systems[row], self.queries[row]) for row in np.concatenate([before, rows]).tolist()]
        due = self._due(len(calls), seed, rate)
        config = self.config
        most = rate * max(PATIENCE * self.slo_ms / 1e3, LEAST_S) + 2 * config.max_batch
        limits = Limits(config.max_batch, round(config.max_wait_ms * 1e6), config.policy, most)
        if bounded:
            bound_ns, late = self.slo_ms * 1e6, most_late(len(rows))
            limits = replace(limits, bound_ns=bound_ns, most_late=late, counted=len(before))
        stream = serve_stream(calls, due, limits, self.bar)
        if not stream.overloaded:
            for answer, ns, busy in zip(
                stream.answered, stream.finished_ns - stream.started_ns - due, stream.busy_ns, strict=True
            ):
                answer.stages_ns["wait"] = int(ns - busy)
        return Run.of(rate, stream, due, len(before)), stream, len(before)

    def _at_the_rate(self) -> Serving:
        """The runs that the records are made of: together they serve every query."""
        names = list(self.systems)
        served: dict[str, list[Served]] = {name: [] for name in names}
        runs: dict[str, list[dict]] = {name: [] for name in names}
        refused: dict[str, str] = {}
        for number, (seed, rows) in enumerate(self._rows_at_the_rate()):
            for name in turns(names, number):
                self.bar.update()
                if name in refused:
                    continue
                joules = device.joules(self.on)
                run, stream, skipped = self._run(self.systems[name], rows, seed, self.rate)
                if run.overloaded:
                    refused[name] = self._overload(self.rate)
                    log.warning("%s: %s", name, refused[name])
                    continue
                energy = device.difference(joules, device.joules(self.on)) / (len(rows) + skipped)
                wall = int(stream.finished_ns.max() - stream.started_ns)
                runs[name].append({**run.facts(), **busy_shares(stream, wall)})
                answers = stream.answered[skipped:]
                times = zip(rows.tolist(), run.latency_ms * 1e6, answers, strict=True)
                served[name] += [Served(number, row, ns, energy, answer) for row, ns, answer in times]
        kept = [name for name in names if name not in refused]
        if not kept:
            raise ValueError(f"no system survives scenario.rate: {self._overload(self.rate)}")
        traces = {name: trace_of(served[name]) for name in kept}
        return Serving(traces, refused, {name: {"runs": runs[name], **_over_runs(runs[name])} for name in kept})

    def _rows_at_the_rate(self) -> Iterator[tuple[int, np.ndarray]]:
        """The arrival seed and the rows of every run at the rate: each seed's of every part, together all rows."""
        seeds, orders = self.config.arrival_seeds, []
        for part in self.parts:
            count = math.ceil(max(self.rate * self.config.seconds, len(part) / seeds))
            orders.append(_drawn(part, count * seeds, self.seed).reshape(seeds, count))
        for number, of_seed in enumerate(zip(*orders, strict=True)):
            for rows in of_seed:
                yield self.seed + number, rows

    def _overload(self, rate: float) -> str:
        return (
            f"overloaded at {rate:.0f} queries a second: its queue grows without bound; the reference "
            f"saturates at {self.saturation:.0f}; set a lower scenario.rate"
        )

    # --- many rates ---

    def _each(
        self, systems: Sequence[System], seed: int, seconds: float, rate: float, bounded: bool = True
    ) -> Iterator[Run]:
        """One run of each part, served when it is asked for: after a failed one nobody asks."""
        count = max(math.ceil(rate * seconds), LEAST_QUERIES)
        for part in self.parts:
            yield self._run(systems, _drawn(part, count, seed), seed, rate, bounded)[0]

    def _curve(self, serving: Serving) -> None:
        """One run of every system at every rate, with the same arrivals. Above an overload, no rate is tried."""
        for share in sorted(self.config.curve):
            rate = share * self.saturation
            for name in self.systems:
                self.bar.update()
                points = serving.facts[name].setdefault("curve", [])
                if points and points[-1]["overloaded"]:
                    continue
                runs = self._each(self.systems[name], self.seed, self.config.seconds, rate, bounded=False)
                points.append(Run.joined(list(runs)).facts())

    def _goodput(self, serving: Serving) -> None:
        """The median over arrival seeds of each system's highest rate within the bound, confirmed by a longer run.

        Systems take turns, seed by seed: what changes on the machine meanwhile meets all of them.
        """
        names, longer = list(self.systems), self.config.confirm_seconds
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(self.config.arrival_seeds):
            for name in turns(names, number):
                self.bar.update()
                results[name].append(self._highest(name, self.seed + number, results[name]))
        for name in names:
            passed = sorted(result["passed"] or 0.0 for result in results[name])
            qps = passed[len(passed) // 2]
            if self.config.confirms:
                self.bar.update()
                qps = confirmed(partial(self._each, self.systems[name], self.seed, longer), self.slo_ms, qps)
            seconds = max(self.config.seconds, longer)
            serving.facts[name]["goodput"] = {"qps": qps, "seeds": results[name], "seconds": seconds}
            log.info("%s: %.0f queries a second within %.2f ms", name, qps, self.slo_ms)

    def _highest(self, name: str, seed: int, before: list[dict[str, Any]]) -> dict[str, Any]:
        """Of one system and arrival seed, from where the seed before ended."""
        start, factor = (before[-1]["passed"] or self.rate, 1.1) if before else (self.rate, 1.5)
        return goodput(partial(self._each, self.systems[name], seed, self.config.seconds), self.slo_ms, start, factor)


def _drawn(part: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) rows of a part, in a seeded order; all of them before any comes again."""
    return part[served_order(len(part), count, seed)[:count]]


def _over_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over runs of p50, p99 and the busy shares; percentiles with a t interval over runs."""
    facts: dict[str, Any] = {
        key: float(np.mean([run[key] for run in runs])) for key in ("busy_share", "forward_share", "mean_batch")
    }
    for key in ("p50", "p99"):
        values = np.array([run[key] for run in runs])
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        facts[key] = {
            "value": float(values.mean()),
            "low": float(values.mean() - half),
            "high": float(values.mean() + half),
        }
    return facts
