"""One system's result in one session, its provenance, and how it is written and found again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tabi_bench
from tabi_bench.cache import content_key, file_sha256, write_atomically
from tabi_bench.config import Config

SCHEMA_VERSION = 2  # from 2 on, intervals of latencies are over blocks, not over the queries within them
# settings that do not change what is measured
UNHASHED = ("results_dir", "cache_dir", "overwrite", "prepare", "label", "cost")


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
    status: str = "ok"  # ok | failed | infeasible
    error: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)  # kind, value, folds
    accuracy: dict[str, Any] = field(default_factory=dict)  # metric, value, low, high, n
    outcome: str | None = None  # met | within noise | missed
    latency_ms: dict[str, Any] = field(default_factory=dict)  # mean, p50, p90, p95, p99, n, ...
    breakdown_ms: dict[str, float] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)  # of queries returned at each level
    words_pruned_share: float = 0.0  # of the words of re-routed queries
    reference: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    throughput_qps: float | None = None
    offline_s: dict[str, float] = field(default_factory=dict)  # train, profile, search
    details: dict[str, Any] = field(default_factory=dict)  # what is particular to the method, the data or the engine
    provenance: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Writes record.json into `folder`, last and at once: a folder with a record is a finished run."""
        write_atomically(folder / "record.json", json.dumps(asdict(self), indent=1, default=_plain))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Reads a record.json (or the folder that holds one); fields of a newer schema are refused by name."""
        path = path / "record.json" if path.is_dir() else path
        raw = json.loads(path.read_text())
        unknown = set(raw) - {f.name for f in fields(cls)}
        if raw.get("schema_version", 0) > SCHEMA_VERSION or unknown:
            raise ValueError(f"{path} was written by a newer version (schema {raw.get('schema_version')}): {unknown}")
        return cls(**raw)


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, and paths, as JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def config_hash(config: Config, *contents: Any) -> str:
    """8 hex digits over the resolved configuration (without paths) and the content hashes of data and models."""
    raw = {key: value for key, value in asdict(config).items() if key not in UNHASHED}
    raw["source"] = {key: value for key, value in raw["source"].items() if key != "dir"}
    raw["task"] = {key: value for key, value in raw["task"].items() if key != "files"}
    raw["zoo"] = {key: value for key, value in raw["zoo"].items() if key != "path"}
    if config.plan is not None:
        raw["plan"] = file_sha256(Path(config.plan).expanduser())
    return content_key(raw, tabi_bench.__version__, *contents)[:8]


def new_session_id(session_hash: str) -> str:
    """The session's hash, and the time at which it began (UTC)."""
    return f"{session_hash}-{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _git(*arguments: str) -> str | None:
    root = Path(tabi_bench.__file__).resolve().parents[1]
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def revision() -> dict[str, Any]:
    """The commit of this code: from git, else from a file `.revision`, else None; `dirty`: there were changes."""
    commit = _git("rev-parse", "HEAD") if (Path(tabi_bench.__file__).resolve().parents[1] / ".git").exists() else None
    if commit:
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    note = Path(tabi_bench.__file__).resolve().parents[1] / ".revision"
    return {"commit": note.read_text().strip() if note.is_file() else None, "dirty": None}


def provenance(device: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What a number needs beside it: device, dtype, versions, commit, command, time."""
    versions = {"tabi_bench": tabi_bench.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "datasets", "numpy", "onnxruntime"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": device,
        "dtype": dtype,
        "versions": versions,
        **revision(),
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "system": platform.platform(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def finished(folders: list[Path]) -> list[Record] | None:
    """The records of a finished session, or None if one is missing, failed, unreadable or of another session."""
    records = []
    for folder in folders:
        try:
            records.append(Record.load(folder))
        except (OSError, ValueError, TypeError):
            return None
    sessions = {record.session_id for record in records}
    return records if len(sessions) == 1 and all(r.status != "failed" for r in records) else None


def age(record: Record) -> str:
    """How long ago a record was made, for people."""
    seconds = time.time() - datetime.fromisoformat(record.provenance["time"]).timestamp()
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} seconds"


def check_writable(folder: Path, needed_bytes: int = 50_000_000) -> None:
    """Raises OSError, before work is spent, if `folder` cannot be written or its disk is nearly full."""
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {error.strerror or error}; set another results_dir / cache_dir"
        ) from None
    if free < needed_bytes:
        raise OSError(f"only {free / 1e6:.0f} MB left on the disk of {folder}; a run needs {needed_bytes / 1e6:.0f} MB")
