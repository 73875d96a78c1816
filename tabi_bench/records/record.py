"""One system's result in one session: the fields of record.json, and how it is read."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypedDict, get_origin, get_type_hints, is_typeddict

import numpy as np

from tabi_bench.cache import write_atomically
from tabi_bench.system import Predicted

SCHEMA_VERSION = 2


class TargetFacts(TypedDict, total=False):
    """The score that every system of the session is to reach: value is the folds' mean, weighted by size."""

    kind: Literal["relative", "paper", "absolute"]
    value: float
    folds: list[float]


class Accuracy(TypedDict, total=False):
    """The task's metric on the first pass, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float
    n: int


class Latency(TypedDict, total=False):
    """Milliseconds over all served queries. Intervals are over blocks; None where too few blocks or queries stand."""

    mean: float
    mean_low: float | None
    mean_high: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_low: float | None
    p99_high: float | None
    n: int
    distinct: int  # queries behind them: topping up repeats some
    blocks: int


class Reference(TypedDict, total=False):
    """Beside the session's reference, on the same queries: differences are this system's minus the reference's."""

    method: str
    accuracy_difference: dict[str, Any]  # value, low, high, n
    mcnemar_p: float | None
    latency_ms: float  # mean, the reference's
    reduction_pct: float  # of mean latency
    reduction_low: float | None
    reduction_high: float | None
    same_plan: bool  # whether both served the same operating points


class Cost(TypedDict, total=False):
    """Of one query after the other; joules where the device counts them."""

    device_seconds_per_1k: float
    usd_per_1k: float
    joules_per_query: float | None


class ModelFacts(TypedDict, total=False):
    """A model of the zoo: its score on all rows, its profiled mean milliseconds per query as the scenario serves.

    Where that is in batches: the same by batch size, and the share of rows whose label a batch keeps.
    """

    name: str
    params: int
    layers: int
    score: float
    mean_ms: float
    in_batches: dict[int, float]
    labels_kept: float


class Agreement(TypedDict):
    """Live answers against replayed ones: borderline ones lie at a threshold or tie; the others must be equal."""

    compared: int
    equal: int
    borderline: int
    unexplained: int
    predicted_ms: float


class Footprint(TypedDict):
    """Models on the device: their number, seconds to load them, megabytes of their weights."""

    models: int
    load_s: float
    weights_mb: float


class Details(TypedDict, total=False):
    """What is particular to the method, the data, the zoo or the engine."""

    also: dict[str, float]  # metrics reported beside
    data: dict[str, Any]  # what loading the rows found
    zoo: dict[str, Any]  # {"models": [ModelFacts], and the zoo's notes}
    engine: dict[str, Any]
    plan: list[Predicted]  # by fold
    system: dict[str, Any]  # System.describe, System.conclude
    failures: int
    truncated: int
    replay: Agreement
    harness_us: float | None  # median beside tokenising and forward passes, of early returns
    small_level: dict[str, Any] | None
    plain_rule: dict[str, Any] | None
    footprint: Footprint
    load: dict[str, Any] | None  # what serving.offline or serving.server says of its runs
    traceback: str


@dataclass
class Record:
    """The fields of record.json. Times are milliseconds, shares and scores fractions, intervals 95 %."""

    run_id: str
    session_id: str
    task: str
    method: str
    source: str
    zoo: str
    engine: str
    device: str
    scenario: str = "single_stream"
    status: Literal["ok", "failed", "infeasible"] = "ok"  # results are empty unless it is ok
    error: str | None = None
    config: dict[str, Any] = field(default_factory=dict)  # as composed; "method": this system's own options
    target: TargetFacts = field(default_factory=TargetFacts)
    accuracy: Accuracy = field(default_factory=Accuracy)
    outcome: Literal["met", "within noise", "missed"] | None = None
    latency_ms: Latency = field(default_factory=Latency)
    breakdown_ms: dict[str, float] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)  # of queries returned at each level
    words_pruned_share: float = 0.0  # of the words of re-routed queries
    reference: Reference = field(default_factory=Reference)
    cost: Cost = field(default_factory=Cost)
    throughput_qps: float | None = None
    offline_s: dict[str, float] = field(default_factory=dict)  # train, profile, search
    details: Details = field(default_factory=Details)
    warnings: list[str] = field(default_factory=list)  # said above every table of this session
    provenance: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Writes record.json into `folder`, last and at once: a folder with a record is a finished run."""
        write_atomically(folder / "record.json", json.dumps(_plain(asdict(self)), indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Reads a record.json (or the folder that holds one), of this schema or an older one. Raises ValueError."""
        path = path / "record.json" if path.is_dir() else path
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ValueError(f"{path} is no record: a {type(raw).__name__}, not an object")
        version, unknown = raw.get("schema_version", 0), set(raw) - {f.name for f in fields(cls)}
        if not isinstance(version, int):
            raise ValueError(f"{path} is no record: schema_version is {version!r}")
        if version > SCHEMA_VERSION or unknown:
            raise ValueError(f"{path} was written by a newer version (schema {version}): {sorted(unknown)}")
        try:
            record = cls(**raw)
        except TypeError as error:
            raise ValueError(f"{path} is no whole record: {error}") from None
        for name, kind in _kinds().items():
            if not isinstance(getattr(record, name), kind):
                raise ValueError(f"{path} is no record: {name} is {getattr(record, name)!r:.40}")
        if not isinstance(record.provenance.get("versions", {}), dict):
            raise ValueError(f"{path} is no record: provenance.versions is {record.provenance['versions']!r:.40}")
        return record


@cache
def _kinds() -> dict[str, type]:
    """What the fields that hold texts, lists or objects are of, whatever these hold."""
    kinds = {}
    for name, hint in get_type_hints(Record).items():
        origin = str if get_origin(hint) is Literal else get_origin(hint) or (dict if is_typeddict(hint) else hint)
        if origin in (str, list, dict):
            kinds[name] = origin
    return kinds


def _plain(value: Any) -> Any:
    """As JSON: numpy's scalars and arrays, and paths; what is no finite number as null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def age(record: Record) -> str:
    """How long ago a record was made, for people."""
    seconds = time.time() - datetime.fromisoformat(record.provenance["time"]).timestamp()
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} seconds"
