"""Content-addressed folders on disk: built once, checked on every read, never seen half-written.

A folder is named by the hash of what it was made from. It is built under a temporary name and moved into place, with a
manifest of its own name and the SHA-256 of each file; a folder that does not match its manifest, or lies under another
name, is rebuilt with a warning. A file lock keeps two processes from building the same folder twice.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
PATIENCE_S = 4 * 3600.0  # how long a lock of another process, or one step, may take; TABI_BENCH_WAIT_S says otherwise


class BusyError(ValueError):
    """Another process holds a lock for too long; the message says which, and what to do."""


def content_key(*parts: Any) -> str:
    """16 hex digits of SHA-256 over the JSON of `parts` (plain data; keys sorted)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damage(folder: Path, name: str | None = None, ignored: Callable[[Path], bool] | None = None) -> str | None:
    """Why `folder` cannot be used (no manifest, a file missing, changed or added, another name), or None.

    name: what it was sealed as, its own name by default. ignored: relative paths that may have been added since.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sealed_as, files = manifest["name"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    if sealed_as != (name or folder.name):
        return f"its manifest belongs to {sealed_as!r}"
    if not files:
        return "its manifest names no files"
    root = folder.resolve()
    for file, digest in files.items():
        path = folder / file
        if not path.resolve().is_relative_to(root):
            return f"{file} lies outside the folder"
        if not path.is_file():
            return f"{file} is missing"
        if file_sha256(path) != digest:
            return f"{file} does not match its hash"
    for path in _files(folder):
        relative = path.relative_to(folder)
        known = relative.as_posix() in files or path.name.startswith(".")  # nothing reads hidden files
        if not known and not (ignored and ignored(relative)):
            return f"{relative.as_posix()} is not in its manifest"
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def seal(folder: Path, name: str | None = None) -> None:
    """Writes the manifest of all files below `folder`, which is to lie under `name` (its own name by default)."""
    files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}
    text = json.dumps({"name": name or folder.name, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def cached(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, built by `build(temporary folder)` unless it is already there and whole.

    Whoever comes second waits for the first, see `locked`. Raises BusyError, and OSError that names the folder where
    its disk is full.
    """
    folder = folder.expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{folder}.lock"), f"{folder.parent.name}/{folder.name}"):
        if folder.exists():
            reason = damage(folder)
            if reason is None:
                return folder
            log.warning("cache folder %s is damaged: %s; building it again", folder, reason)
            shutil.rmtree(folder)
        for stale in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed; we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
            try:
                build(Path(temporary))
                seal(Path(temporary), folder.name)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    text = f"the disk of {folder.parent} is full; make room there, or set cache_dir"
                    raise OSError(error.errno, text) from error
                raise
            os.replace(temporary, folder)
    return folder


@contextmanager
def locked(path: Path, what: str, mode: int = 0o644) -> Iterator[None]:
    """Holds the lock file `path`; while another process holds it, says which and waits. Raises BusyError."""
    lock = FileLock(path, mode=mode)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        patience, holder = patience_s(), _holder(path)
        log.warning("%s is in use by %s; waiting for it, %g s at most", what, holder, patience)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            text = f"{what} is still in use by {holder} after {patience:g} s ({path}); end that process, or set "
            raise BusyError(f"{text}TABI_BENCH_WAIT_S to more seconds") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def patience_s() -> float:
    """Seconds that a lock of another process, or one step, may take. Raises BusyError for what is no number."""
    text = os.environ.get("TABI_BENCH_WAIT_S", str(PATIENCE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise BusyError(f"TABI_BENCH_WAIT_S={text!r}: seconds are a number from 0 on")
    return seconds


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except (OSError, ValueError):
        return "another process"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8) under a temporary name and moves it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_sealed(path: Path, content: bytes) -> None:
    """Writes a cache file that stands alone: its first line is the hash of its place and content."""
    write_atomically(path, _seal_of(path, content) + content)


def read_sealed(path: Path) -> bytes | None:
    """The content of a file of `write_sealed`; None where there is none, or, with a warning, another one."""
    try:
        written = path.read_bytes()
    except OSError:
        return None
    content = written[len(_seal_of(path, b"")) :]
    if written == _seal_of(path, content) + content:
        return content
    log.warning("cache file %s is damaged or was changed; making it again", path)
    return None


def _seal_of(path: Path, content: bytes) -> bytes:
    place = f"{path.parent.name}/{path.name}\0".encode()
    return hashlib.sha256(place + content).hexdigest().encode() + b"\n"
