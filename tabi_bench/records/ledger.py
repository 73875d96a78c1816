"""The records of one session: their names and folders, blank ones, failed ones."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tabi_bench.cache import BusyError
from tabi_bench.config import Config
from tabi_bench.records.provenance import provenance
from tabi_bench.records.record import Record
from tabi_bench.records.store import finished, write_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """key: hash of configuration and contents; facts: of the device (`device.describe`)."""

    config: Config
    key: str
    facts: dict[str, Any]
    dtype: str
    started: float = field(default_factory=time.perf_counter)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def session_id(self) -> str:
        """The session's hash, and the time at which it began (UTC), in microseconds."""
        return f"{self.key}-{self.began:%Y%m%dT%H%M%S%f}"

    @property
    def root(self) -> Path:
        """The folder of this session's label."""
        return Path(self.config.results_dir).expanduser() / self.config.label

    def folder(self, method: str) -> Path:
        """Of one system's record."""
        c = self.config
        return self.root / f"{c.task.name}-{method}-{c.source.name}-{c.zoo.name}-{c.engine.name}-{self.key}"

    def finished(self) -> list[Record] | None:
        """The records of this session if it was measured before and nothing of it is damaged."""
        return finished({method: self.folder(method) for method in self.config.systems}, self.key)

    def blank(self, method: str) -> Record:
        """A record with everything but results."""
        c = self.config
        return Record(
            run_id=self.folder(method).name,
            session_id=self.session_id,
            task=c.task.name,
            method=method,
            source=c.source.name,
            zoo=c.zoo.name,
            engine=c.engine.name,
            scenario=c.scenario.name,
            device=self.facts["name"],
            config={**asdict(c), "method": asdict(c.systems[method])},
            provenance=provenance(self.facts, self.dtype),
            wall_s=time.perf_counter() - self.started,
        )

    def record_failure(self, error: Exception) -> None:
        """A failed run leaves a record that says why, unless an earlier good one is there."""
        for method in self.config.systems:
            if finished({method: self.folder(method)}, self.key):
                continue
            record = self.blank(method)
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            record.details["traceback"] = "".join(traceback.format_exception(error)[-3:])
            try:
                write_run(self.folder(method), record, None, None)
            except (OSError, BusyError) as problem:
                log.error("the failure could not be recorded in %s: %s", self.folder(method), problem)
