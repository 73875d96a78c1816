"""What is installed: everything, under names that collide with nobody's, and it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tabi_bench.config import default_cache_dir

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**clean, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_is_whole_and_works_elsewhere(tmp_path):
    tracked = run("git", "ls-files", cwd=ROOT).split()
    source = tmp_path / "source"
    for name in tracked:
        if not name.startswith(("results/h", "tests/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, source, cwd=tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {"baselines/": "tabi_bench/baselines/", "conf/": "tabi_bench/conf/", "results/paper/": "tabi_bench/paper/"}
    for name in tracked:
        folder = next((f for f in inside if name.startswith(f)), None)
        if name.endswith(".md") or not (ROOT / name).is_file():
            continue
        if name.startswith("tabi_bench/") or folder:
            assert (name.replace(folder, inside[folder], 1) if folder else name) in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tabi_bench", "hydra_plugins"}
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=work)
    python = lambda *arguments: run(sys.executable, *arguments, cwd=work, PYTHONPATH=str(site))  # noqa: E731
    assert "tabi-bench: multi-level" in python("-m", "tabi_bench", "--help")
    line = "import tabi_bench; print(tabi_bench.__file__)"
    assert str(site) in python("-c", line)
    assert "infaas" in python("-m", "tabi_bench", "task=mnli", "source.validation_rows=400", "scenario.min_queries=400")
    python("-m", "tabi_bench.report", "outputs")
    assert (work / "outputs" / "report" / "index.html").is_file()


def test_the_cache_follows_the_environment(monkeypatch, composed):
    monkeypatch.delenv("TABI_BENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert composed().cache_dir == "~/.cache/tabi-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/tabi-bench")
    assert composed().cache_dir == "/somewhere/tabi-bench"
    monkeypatch.setenv("TABI_BENCH_CACHE", "/elsewhere")
    assert default_cache_dir() == Path("/elsewhere")
    assert composed("engine=onnx").engine.cache_dir == "/elsewhere"
