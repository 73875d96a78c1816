"""Content-addressed folders on disk: built once, checked on every read, never seen half-written.

A folder is named by the hash of what it was made from. It is built under a temporary name and moved into place, with a
manifest of the SHA-256 of each file; a folder whose files do not match its manifest is rebuilt with a warning. A file
lock keeps two processes from building the same folder twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def content_key(*parts: Any) -> str:
    """16 hex digits of SHA-256 over the JSON of `parts` (plain data; keys sorted)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damage(folder: Path) -> str | None:
    """Why `folder` cannot be used (no manifest, a file missing or changed), or None if it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != digest:
            return f"{name} does not match its hash"
    return None


def seal(folder: Path) -> None:
    """Writes the manifest of all files below `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    manifest = {p.relative_to(folder).as_posix(): file_sha256(p) for p in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def cached(folder: Path, build: Callable[[Path], None], lock_timeout: float = -1) -> Path:
    """`folder`, built by `build(temporary folder)` unless it is already there and whole.

    Whoever comes second waits for the first (`lock_timeout` seconds; -1: as long as it takes).
    """
    folder = folder.expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock", timeout=lock_timeout):
        if folder.exists():
            reason = damage(folder)
            if reason is None:
                return folder
            log.warning("cache folder %s is damaged: %s; building it again", folder, reason)
            shutil.rmtree(folder)
        with _temporary_sibling(folder) as temporary:
            build(temporary)
            seal(temporary)
            os.replace(temporary, folder)
    return folder


@contextmanager
def _temporary_sibling(folder: Path) -> Iterator[Path]:
    for stale in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` under a temporary name and moves it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
