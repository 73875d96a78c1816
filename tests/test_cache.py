"""Cache folders: built once, checked on reading, never half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tabi_bench.cache import cached, content_key, damage, write_atomically


def build(text: str, calls: list | None = None):
    def write(folder: Path) -> None:
        (folder / "data.txt").write_text(text)
        if calls is not None:
            calls.append(text)

    return write


def test_builds_once(tmp_path):
    calls: list[str] = []
    for _ in range(2):
        folder = cached(tmp_path / "a", build("x", calls))
    assert calls == ["x"]
    assert (folder / "data.txt").read_text() == "x"


def test_damage_is_noticed_and_rebuilt(tmp_path, caplog):
    folder = cached(tmp_path / "a", build("x"))
    (folder / "data.txt").write_text("tampered")
    assert damage(folder) == "data.txt does not match its hash"
    cached(tmp_path / "a", build("x"))
    assert (folder / "data.txt").read_text() == "x"
    assert "damaged" in caplog.text


def test_a_missing_file_is_damage(tmp_path):
    folder = cached(tmp_path / "a", build("x"))
    (folder / "data.txt").unlink()
    assert damage(folder) == "data.txt is missing"


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached(tmp_path / "a", fail)
    assert not (tmp_path / "a").exists()
    assert cached(tmp_path / "a", build("x")).is_dir()


def test_two_at_once_build_once(tmp_path):
    calls: list[str] = []

    def slow(folder: Path) -> None:
        time.sleep(0.2)
        build("x", calls)(folder)

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: cached(tmp_path / "a", slow), range(2)))
    assert calls == ["x"] and folders[0] == folders[1]


def test_a_killed_build_is_never_read(tmp_path):
    script = (
        "import sys, time, pathlib; from tabi_bench.cache import cached\n"
        "def b(f): (f / 'data.txt').write_text('half'); print('started', flush=True); time.sleep(60)\n"
        "cached(pathlib.Path(sys.argv[1]), b)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a")], stdout=subprocess.PIPE)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a").exists()
    folder = cached(tmp_path / "a", build("whole"))
    assert (folder / "data.txt").read_text() == "whole"
    assert not list(tmp_path.glob(".a.*"))


def test_content_key_ignores_order_of_keys():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 1, "b": 3})


def test_write_atomically_replaces(tmp_path):
    write_atomically(tmp_path / "deep" / "x.json", "1")
    write_atomically(tmp_path / "deep" / "x.json", "2")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.json"]
    assert (tmp_path / "deep" / "x.json").read_text() == "2"
