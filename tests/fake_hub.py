"""A small Hugging Face hub on 127.0.0.1, for the real clients: repositories in the hub's layout, and misbehaviour.

It speaks what `huggingface_hub` asks for: repository info, the tree of a revision, HEAD and GET of files with ETag,
commit, ranges, and a redirect to a store for large files.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tabi_bench.hub import git_hash

LARGE = (".parquet", ".safetensors", ".bin")


class FakeHub:
    """`add` repositories, `start` it, set `misbehave` to a status (404, 500, ...), stall, truncate, change, html or
    other.

    A misbehaviour holds for the paths that contain `trouble`, so many `times` (None: always). `requests` lists what was
    asked for.
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.misbehave, self.trouble = "", "/resolve/"
        self.times: int | None = None
        self.requests: list[str] = []
        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, repo: str, files: dict[str, bytes], kind: str = "models") -> str:
        """Commits `files` to `repo` and returns the commit; the last one is also its main branch."""
        content = "".join(f"{name}{hashlib.sha1(data).hexdigest()}" for name, data in sorted(files.items()))
        commit = hashlib.sha1(f"{kind}{repo}{content}".encode()).hexdigest()
        self.repositories.setdefault((kind, repo), {}).update({commit: files})
        self.repositories[kind, repo]["main"] = files
        return commit

    def add_folder(self, repo: str, folder: Path, kind: str = "models") -> str:
        """The files of `folder` as a commit of `repo`."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.add(repo, files, kind)

    def commit_of(self, kind: str, repo: str, revision: str) -> str | None:
        revisions = self.repositories[kind, repo]
        if revision == "main":
            return next(name for name, files in revisions.items() if files is revisions["main"])
        return revision if revision in revisions else None

    def start(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                path = unquote(urlsplit(self.path).path).strip("/")
                troubled = hub.trouble in self.path and hub.times != 0
                self.troubled = hub.misbehave if troubled else ""
                if self.troubled and hub.times:
                    hub.times -= 1
                if self.troubled == "stall":
                    hub.released.wait(20)
                    self.close_connection = True
                elif self.troubled.isdecimal():
                    reason = {"404": {"X-Error-Code": "EntryNotFound"}}
                    reason["401"] = {"X-Error-Message": "Invalid credentials in Authorization header"}
                    self.answer(int(self.troubled), b"", reason.get(self.troubled, {}))
                elif self.troubled == "html":
                    self.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
                elif path.startswith("api/"):
                    self.api(*path.removeprefix("api/").split("/"))
                elif path.startswith("store/"):
                    self.store(path.removeprefix("store/"))
                else:
                    self.resolve(path)

            def api(
                self, kind: str, owner: str = "", name: str = "", verb: str = "revision", revision: str = "main", *_
            ) -> None:
                stored = self.find(kind, f"{owner}/{name}", revision)
                if stored is None:
                    return
                commit, files = stored
                if verb == "tree":
                    entries = [self.entry(path, data) for path, data in sorted(files.items())]
                else:
                    names = [{"rfilename": path} for path in sorted(files)]
                    entries = {"id": f"{owner}/{name}", "sha": commit, "siblings": names, "private": False}
                self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

            def entry(self, path: str, data: bytes) -> dict:
                large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                own = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
                return own | ({"lfs": large} if path.endswith(LARGE) else {})

            def find(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
                if (kind, repo) not in hub.repositories:
                    return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
                commit = hub.commit_of(kind, repo, revision)
                if commit is None:
                    return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return commit, hub.repositories[kind, repo][commit]

            def resolve(self, path: str) -> None:
                kind, _, remainder = path.partition("/") if path.startswith("datasets/") else ("models", "", path)
                repo, _, tail = remainder.partition("/resolve/")
                revision, _, name = tail.partition("/")
                stored = self.find(kind, repo, revision)
                if stored is None:
                    return
                commit, files = stored
                if name not in files:
                    return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                data = files[name]
                headers = {"X-Repo-Commit": "f" * 40 if self.troubled == "other" else commit}
                if name.endswith(LARGE):
                    digest = hashlib.sha256(data).hexdigest()
                    headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
                    headers["Location"] = (
                        f"http://localhost:{hub.server.server_port}/store/{digest}"  # another host, as there
                    )
                    return self.answer(302, b"", headers)
                self.body(data, headers | {"ETag": f'"{git_hash(data)}"'})

            def store(self, digest: str) -> None:
                files = (
                    f for revisions in hub.repositories.values() for one in revisions.values() for f in one.values()
                )
                data = next(data for data in files if hashlib.sha256(data).hexdigest() == digest)
                data = data[::-1] if self.troubled == "change" else data
                self.body(data, {"ETag": f'"{digest}"'})

            def body(self, data: bytes, headers: dict[str, str]) -> None:
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
                self.answer(206 if start else 200, data[start:], headers)

            def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    short = self.troubled == "truncate" and status == 200
                    self.wfile.write(data[: len(data) // 2] if short else data)
                    self.close_connection = self.close_connection or short

        return Handler


@contextmanager
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A started hub that the clients of this process use, with short timeouts, no pauses and a fresh cache."""
    from huggingface_hub import constants

    hub = FakeHub().start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield hub
    hub.stop()
