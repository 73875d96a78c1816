"""Schema of conf/scenario: how queries arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tabi_bench.config.fields import Choice, ConfigError, among, number

if TYPE_CHECKING:
    from tabi_bench.config.session import Config

MOST_ARRIVALS = 10_000_000


@dataclass
class ScenarioConfig(Choice):
    """Base of every scenario. `code` serves the rows of a task to the systems of a session."""

    mixed: ClassVar[bool] = False  # whether a batch holds queries of any length, padded to its longest
    profile_rounds: int = field(metadata=number(least=1, most=1000))  # of profiling, each model at every length

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes at which models are timed; plans minimise the time per query at the last."""
        return (1,)


@dataclass
class SingleStreamConfig(ScenarioConfig):
    """One query at a time, the next when the last is answered."""

    min_queries: int = field(metadata=number(least=1, most=10_000_000))
    # queries that one system serves before the next system's turn
    block: int = field(metadata=number(least=1, most=10_000_000))
    warmup: int = field(metadata=number(least=0, most=1_000_000))  # queries per system before the clock counts


@dataclass
class BatchedConfig(ScenarioConfig):
    """Queries are served in batches: plans minimise the device's time per query at the largest."""

    max_batch: int = field(metadata=number(least=1, most=4096))
    timed_batches: list[int] = field(metadata=number(least=1, most=4096))  # timed beside 1 and max_batch

    @property
    def batches(self) -> tuple[int, ...]:
        """See ScenarioConfig."""
        smaller = {size for size in self.timed_batches if size < self.max_batch}
        return (*sorted({1} | smaller - {self.max_batch}), self.max_batch) if self.max_batch > 1 else (1,)


@dataclass
class OfflineConfig(BatchedConfig):
    """All queries are there at once."""

    passes: int = field(metadata=number(least=5, most=10_000))  # blocks of one pass over all queries, or more:
    least_seconds: float = field(metadata=number(least=0, most=3600))  # of passes, one after the other, in a block


@dataclass
class ServerConfig(BatchedConfig):
    """Queries arrive by themselves, whether or not those before them are answered."""

    mixed = True
    rate: float | None = field(metadata=number(above=0))  # per second; None: 70 % of saturation
    times: str | None  # a file of arrival times in seconds, one a line, in place of Poisson's
    max_wait_ms: float = field(metadata=number(least=0, most=60_000))
    policy: str = field(metadata=among("large_first", "small_first", "deadline", "fullest"))  # serving.queues
    slo_ms: float | None = field(metadata=number(above=0))  # of p99; None: 5 x the reference alone
    seconds: float = field(metadata=number(above=0, most=3600))  # of arrivals in one run
    arrival_seeds: int = field(metadata=number(least=3, most=100))  # runs at the rate, each with arrivals of its own
    goodput: bool  # also bisect the highest rate that keeps slo_ms
    confirm_seconds: float = field(metadata=number(least=0, most=3600))  # of a run that a goodput must keep again
    curve: list[float] = field(metadata=number(above=0, most=10))  # rates to serve at, too, in saturations

    @property
    def confirms(self) -> bool:
        """Whether a goodput is looked at again, in a run longer than those that it was found by."""
        return self.goodput and self.confirm_seconds > self.seconds

    def check(self, config: Config, path: str) -> None:
        if (self.rate or 0) * self.seconds > MOST_ARRIVALS:
            raise ConfigError(f"scenario.rate={self.rate:g} for scenario.seconds={self.seconds:g}: at most "
                              f"{MOST_ARRIVALS:,} queries in a run")  # fmt: skip
        if self.times is not None and not Path(self.times).expanduser().is_file():
            raise ConfigError(f"scenario.times={self.times}: no such file; it holds arrival times, one a line")
