"""Cache folders: built once, checked on reading, never half-written."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tabi_bench.cache import (
    MANIFEST,
    BusyError,
    cached,
    content_key,
    damage,
    locked,
    read_sealed,
    seal,
    write_atomically,
    write_sealed,
)


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


def test_entries_swapped_between_keys_are_built_again(tmp_path, caplog):
    for name in "ab":
        cached(tmp_path / name, build(name))
    for source, target in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / source).rename(tmp_path / target)
    assert damage(tmp_path / "a") == "its manifest belongs to 'b'"
    assert [(cached(tmp_path / name, build(name)) / "data.txt").read_text() for name in "ab"] == ["a", "b"]
    assert caplog.text.count("its manifest belongs to") == 2


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda folder: (folder / "more.txt").write_text("added"), "more.txt is not in its manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), r"its manifest cannot be read \(KeyError\)"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), r"its manifest cannot be read \(TypeError\)"),
        (lambda folder: (folder / MANIFEST).write_text('{"name": "a", "files": {}}'), "its manifest names no files"),
        (
            lambda folder: (folder / MANIFEST).write_text('{"name": "a", "files": {"../b.txt": "0"}}'),
            "../b.txt lies outside the folder",
        ),
        (
            lambda folder: (folder / "data.txt").unlink() or (folder / "data.txt").symlink_to("/etc/hostname"),
            "data.txt lies outside the folder",
        ),
    ],
)
def test_what_a_manifest_must_say(change, reason, tmp_path):
    folder = cached(tmp_path / "a", build("x"))
    change(folder)
    assert re.fullmatch(reason, damage(folder))
    assert damage(cached(tmp_path / "a", build("x"))) is None


def test_manifests_of_folders_within_are_sealed_too(tmp_path):
    cached(tmp_path / "outer" / "inner", build("x"))
    seal(tmp_path / "outer")
    (tmp_path / "outer" / "inner" / MANIFEST).write_text("{}")
    assert damage(tmp_path / "outer") == f"inner/{MANIFEST} does not match its hash"


def test_a_held_lock_names_its_holder_and_ends_at_the_time_set(tmp_path, monkeypatch, caplog):
    script = (
        "import sys, time, pathlib; from tabi_bench.cache import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a.lock")], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setenv("TABI_BENCH_WAIT_S", "0.1")
    holder = f"{tmp_path.name}/a is still in use by process {process.pid} on .* after 0.1 s .*end that process"
    with pytest.raises(BusyError, match=holder):
        cached(tmp_path / "a", build("x"))
    assert f"is in use by process {process.pid} on" in caplog.text
    for odd in ("soon", "nan", "-1"):
        monkeypatch.setenv("TABI_BENCH_WAIT_S", odd)
        with pytest.raises(BusyError, match=f"TABI_BENCH_WAIT_S='{odd}': seconds are a number from 0 on"):
            cached(tmp_path / "a", build("x"))
    process.kill()
    process.wait()
    assert cached(tmp_path / "a", build("x")).is_dir()
    with locked(tmp_path / "a.lock", "x"):
        assert str(os.getpid()) in (tmp_path / "a.lock").read_text()


def test_a_full_disk_names_the_folder(tmp_path):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=rf"the disk of {tmp_path} is full; make room there, or set cache_dir"):
        cached(tmp_path / "a", full)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_single_files_are_sealed_with_their_place(tmp_path, caplog):
    write_sealed(tmp_path / "labels" / "a.json", b"one")
    write_sealed(tmp_path / "labels" / "b.json", b"two\n\0")
    assert read_sealed(tmp_path / "labels" / "b.json") == b"two\n\0" and read_sealed(tmp_path / "none") is None
    (tmp_path / "labels" / "a.json").replace(tmp_path / "labels" / "b.json")
    assert read_sealed(tmp_path / "labels" / "b.json") is None
    write_sealed(tmp_path / "labels" / "a.json", b"one")
    for change in (b"", b"one", (tmp_path / "labels" / "a.json").read_bytes().replace(b"one", b"two")):
        (tmp_path / "labels" / "a.json").write_bytes(change)
        assert read_sealed(tmp_path / "labels" / "a.json") is None
    assert caplog.text.count("is damaged or was changed; making it again") == 4
