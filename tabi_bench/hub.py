"""Files of a Hugging Face hub repository at a pinned revision: fetched once, then read without a network.

`huggingface_hub` does the fetching, its cache ($HF_HOME) the keeping, and HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and
HF_HUB_DOWNLOAD_TIMEOUT mean what they mean there. What can go wrong ends in one sentence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

KINDS = {"model": "model", "dataset": "data set"}


class HubError(ValueError):
    """A repository that cannot be fetched; the message says what, where, and what to do."""


def fetch(repo: str, revision: str | None, patterns: list[str], kind: str = "model") -> Path:
    """The folder of `repo`'s files that match `patterns`, at `revision` (a commit, branch or tag; None: main).

    kind: "model" or "dataset". Its name is the commit. Raises HubError.
    """
    import httpx
    from huggingface_hub import set_client_factory, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    set_client_factory(_client)
    what = f"{KINDS[kind]} {repo}" + (f" at revision {revision}" if revision else "")
    try:
        folder = Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise HubError(f"{what}: {_reason(error)}") from error
    if revision and is_commit(revision) and folder.name != revision:
        raise HubError(f"{what}: {_endpoint()} gave {folder.name} instead; a mirror may lag behind, set HF_ENDPOINT")
    if not any(path.is_file() for path in folder.rglob("*")):
        raise HubError(
            f"{what}: {_endpoint()} gave no file like {', '.join(patterns)} of that very revision; look at the "
            f"repository, or set HF_ENDPOINT to another mirror"
        )
    return folder


def _client() -> httpx.Client:
    """The hub's own client, but no request waits for ever: it lists files without a timeout, and retries with 60 s."""
    from huggingface_hub import constants
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: httpx.Request) -> None:
        longest = constants.HF_HUB_DOWNLOAD_TIMEOUT
        given = request.extensions.get("timeout", {})
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {phase: min(given.get(phase) or longest, longest) for phase in phases}

    client = default_client_factory()
    client.event_hooks["request"].append(limit)
    return client


def is_commit(revision: str) -> bool:
    """Whether `revision` names one commit for good (40 hex digits)."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _reason(error: Exception) -> str:
    """What went wrong and what to do about it. Errors of the hub's client wrap each other, the first cause counts."""
    import httpx
    from huggingface_hub import errors

    chain = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < 8:
        chain.append(cause)

    def among(*kinds: type[Exception]) -> Exception | None:
        return next((link for link in chain if isinstance(link, kinds)), None)

    where = _endpoint()
    if among(errors.OfflineModeIsEnabled) or _offline():
        return "not in the cache, and HF_HUB_OFFLINE is set; unset it for one run with a network"
    if among(errors.GatedRepoError):
        return f"{where} asks for a licence to be accepted on its page; do so and set HF_TOKEN"
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
    answer = among(errors.HfHubHTTPError)
    if answer is not None and answer.response is not None:
        return f"{where} answered {answer.response.status_code}; try again later"
    if among(httpx.HTTPError) or "onsistency check failed" in str(error):
        return f"a file from {where} ended early; try again, what was fetched so far is kept"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
