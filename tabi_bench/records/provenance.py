"""Where a number comes from: configuration, contents, versions, commit, device."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tabi_bench
from tabi_bench.cache import content_key, file_sha256
from tabi_bench.config import Config

# settings that do not change what is measured
UNHASHED = ("results_dir", "cache_dir", "overwrite", "prepare", "label", "cost")
PATHS = {"source": "dir", "task": "files", "zoo": "path"}  # their contents are hashed in their place
ROOT = Path(tabi_bench.__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "onnxruntime")


def config_hash(config: Config, *contents: Any) -> str:
    """8 hex digits over the resolved configuration (without paths) and the content hashes of data and models."""
    raw = {key: value for key, value in asdict(config).items() if key not in UNHASHED}
    for group, path in PATHS.items():
        raw[group] = {key: value for key, value in raw[group].items() if key != path}
    if config.plan is not None:
        raw["plan"] = file_sha256(Path(config.plan).expanduser())
    if times := raw["scenario"].get("times"):
        raw["scenario"]["times"] = file_sha256(Path(times).expanduser())
    return content_key(raw, tabi_bench.__version__, *contents)[:8]


def _git(*arguments: str) -> str | None:
    options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": 10}
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def revision() -> dict[str, Any]:
    """The commit of this code: from git, else from a file `.revision`, else None; `dirty`: there were changes."""
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    if commit:
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    note = ROOT / ".revision"
    return {"commit": note.read_text(encoding="utf-8").strip() if note.is_file() else None, "dirty": None}


def provenance(device: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What a number needs beside it: device, dtype, versions, commit, command, time."""
    versions = {"tabi_bench": tabi_bench.__version__, "python": platform.python_version()}
    for package in PACKAGES:
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
