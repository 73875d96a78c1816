"""Schema of conf/scenario: how queries arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabi_bench.config.fields import number

if TYPE_CHECKING:
    from tabi_bench.config.session import Config


@dataclass
class ScenarioConfig:
    """Base of every scenario. `code` serves the rows of a task to the systems of a session."""

    name: str
    code: str
    profile_rounds: int = field(
        metadata=number(least=1, most=1000)
    )  # times that every model is profiled at every length

    def unread(self, config: Config) -> dict[str, str]:
        """Settings that this choice does not read, and why."""
        return {}


@dataclass
class SingleStreamConfig(ScenarioConfig):
    """One query at a time, the next when the last is answered."""

    min_queries: int = field(metadata=number(least=1, most=10_000_000))
    block: int = field(metadata=number(least=1))  # queries that one system serves before the next system's turn
    warmup: int = field(metadata=number(least=0, most=1_000_000))  # queries per system before the clock counts
