"""Files of a Hugging Face hub repository at a pinned revision: fetched once, then read without a network.

`huggingface_hub` does the fetching, its cache ($HF_HOME) the keeping, and HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and
HF_HUB_DOWNLOAD_TIMEOUT mean what they mean there. Files whose content does not have the hash that the hub gives are
fetched again. What can go wrong ends in one sentence.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabi_bench.cache import file_sha256

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
KINDS = {"model": "model", "dataset": "data set"}
TRIES = 6  # of each request, as huggingface_hub does for files
SHA256, SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be different a moment later


class HubError(ValueError):
    """A repository that cannot be fetched; the message says what, where, and what to do."""


def fetch(repo: str, revision: str | None, patterns: list[str], kind: str = "model", required: bool = True) -> Path:
    """The folder of `repo`'s files that match `patterns`, at `revision` (a commit, branch or tag; None: main).

    kind: "model" or "dataset". required: at least one file must match. Its name is the commit. Raises HubError.
    """
    what = f"{KINDS[kind]} {repo}" + (f" at revision {revision}" if revision else "")
    folder = _snapshot(what, repo, revision, patterns, kind)
    damaged = _damaged(folder, patterns)
    for path in damaged:
        blob = path.resolve()
        if _offline():
            raise HubError(f"{what}: {blob} does not have the hub's hash; remove it, and run once with a network")
        log.warning("%s: %s does not have the hub's hash; it is removed and fetched again", what, blob)
        blob.unlink()
        path.unlink()
    if damaged:
        folder = _snapshot(what, repo, revision, patterns, kind)
        wrong = [path.name for path in _damaged(folder, patterns) if SHA256.fullmatch(path.resolve().name)]
        if wrong:
            raise HubError(f"{what}: {_endpoint()} sends {wrong[0]} with another hash than it announces; a proxy or "
                           f"mirror changes it: set HF_ENDPOINT, or try again later")  # fmt: skip
    if revision and is_commit(revision) and folder.name != revision:
        raise HubError(f"{what}: {_endpoint()} gave {folder.name} instead; a mirror may lag behind, set HF_ENDPOINT")
    if required and not any(path.is_file() for path in folder.rglob("*")):
        raise HubError(
            f"{what}: {_endpoint()} gave no file like {', '.join(patterns)} of that very revision; look at the "
            f"repository, or set HF_ENDPOINT to another mirror"
        )
    return folder


def _snapshot(what: str, repo: str, revision: str | None, patterns: list[str], kind: str) -> Path:
    import httpx
    from huggingface_hub import set_client_factory, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    set_client_factory(_client)
    try:
        return Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise HubError(f"{what}: {_reason(error)}") from error


def _damaged(folder: Path, patterns: list[str]) -> list[Path]:
    """Files of a snapshot whose content does not have the hash that the hub's cache names their blob by.

    Large files are named by SHA-256, small ones by git's SHA-1. The latter are not looked at without a network: a
    mirror may name them otherwise.
    """
    return [path for path in matching(folder, patterns) if path.is_symlink() and not _is_whole(path.resolve())]


def _is_whole(blob: Path) -> bool:
    if SHA256.fullmatch(blob.name):
        return file_sha256(blob) == blob.name
    return not SHA1.fullmatch(blob.name) or _offline() or git_hash(blob.read_bytes()) == blob.name


def matching(folder: Path, patterns: list[str]) -> list[Path]:
    """The files below `folder` that match one of the patterns, sorted."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if any(fnmatch(path.relative_to(folder).as_posix(), p) for p in patterns)]


def git_hash(content: bytes) -> str:
    """The name that git gives a file of this content, 40 hex digits."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _client() -> httpx.Client:
    """The hub's own client, but no request waits for ever, and lists of files are tried again as files are.

    By itself it lists files once and without a timeout, and retries with 60 s.
    """
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.utils._http import hf_request_event_hook

    def limit(request: httpx.Request) -> None:
        longest = constants.HF_HUB_DOWNLOAD_TIMEOUT
        given = request.extensions.get("timeout", {})
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {phase: min(given.get(phase) or longest, longest) for phase in phases}

    class Patient(httpx.Client):
        def send(self, request: httpx.Request, **options) -> httpx.Response:
            answer = super().send(request, **options)
            for attempt in range(1, TRIES if request.url.path.startswith("/api/") else 1):
                if answer.status_code not in PASSING:
                    break
                answer.close()
                pause = min(2.0 ** (attempt - 1), 8.0)
                log.warning("%s answered %d; try %d of %d in %.0f s", request.url, answer.status_code, attempt + 1,
                            TRIES, pause)  # fmt: skip
                time.sleep(pause)
                answer = super().send(request, **options)
            return answer

    return Patient(event_hooks={"request": [hf_request_event_hook, limit]}, follow_redirects=True, timeout=None)


def is_commit(revision: str) -> bool:
    """Whether `revision` names one commit for good (40 hex digits)."""
    return SHA1.fullmatch(revision) is not None


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _reason(error: Exception) -> str:
    """What went wrong and what to do about it. Errors of the hub's client wrap each other, the first cause counts."""
    import httpx
    from huggingface_hub import constants, errors, get_token

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < 8:
        chain.append(cause)

    def among(*kinds: type[Exception]) -> Any | None:
        return next((link for link in chain if isinstance(link, kinds)), None)

    where = _endpoint()
    answer = among(errors.HfHubHTTPError)
    status = answer.response.status_code if answer is not None and answer.response is not None else None
    full = next((link for link in chain if isinstance(link, OSError) and link.errno in LOCAL_TROUBLE), None)
    if full is not None:
        return f"{LOCAL_TROUBLE[full.errno]} {constants.HF_HUB_CACHE}; make room there, or set HF_HOME=DIR"
    if among(errors.OfflineModeIsEnabled) or _offline():
        return "not in the cache, and HF_HUB_OFFLINE is set; unset it for one run with a network"
    if among(errors.GatedRepoError):
        return f"{where} asks for a licence to be accepted on its page; do so and set HF_TOKEN"
    if status == 401 and get_token():
        return f"{where} does not accept your token (401); renew or unset HF_TOKEN, public repositories need none"
    if among(errors.RevisionNotFoundError):
        return f"{where} has no such revision; see the repository's commits and mend the pin"
    if among(errors.RepositoryNotFoundError):
        return f"{where} has no such repository, or it is private (HF_TOKEN); check its name"
    if among(httpx.TimeoutException):
        return f"{where} does not answer in time; try again, or set HF_HUB_DOWNLOAD_TIMEOUT=60"
    if among(httpx.ConnectError):
        return f"{where} cannot be reached; check the network, or set HF_HUB_OFFLINE=1 if it is cached"
    if among(errors.RemoteEntryNotFoundError):
        return f"{where} answered 404 for a file that it lists; try again later"
    if status is not None:
        tried = f" {TRIES} times" if status in PASSING else ""
        return f"{where} answered {status}{tried}; try again later"
    if among(json.JSONDecodeError, errors.FileMetadataError):
        return (
            f"{where} does not answer as a hub does (a login page, a proxy?); see it in a browser, or set HF_ENDPOINT"
        )
    if among(httpx.HTTPError) or "onsistency check failed" in str(error):
        return f"a file from {where} ended early; try again, what was fetched so far is kept"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


LOCAL_TROUBLE: dict[int | None, str] = {
    errno.ENOSPC: "no space is left on the disk of",
    errno.EDQUOT: "your quota is used up on the disk of",
    errno.EACCES: "no right to write to",
    errno.EROFS: "a read-only disk holds",
}


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
