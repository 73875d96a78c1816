"""Shared fixtures: a composed configuration on a micro setting."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tabi_bench import registry
from tabi_bench.config import Config, compose_config, register
from tests.processes import SMALL

settings.register_profile("shared", deadline=None)  # a busy machine is no failure
settings.load_profile("shared")
register()  # Hydra's store of schemas outlives a test

LONGEST = ("test_presets", "test_notebooks", "test_fault_sessions", "test_files", "test_sessions", "test_experiment")
LONGEST += ("test_host", "test_paper", "test_cli", "test_bundle", "test_graph_rules", "test_sweep")


if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # tests side by side need not wait for each other's device lock
    tempfile.tempdir = os.environ["TMPDIR"] = os.path.join(tempfile.gettempdir(), f"tabi-bench-{worker}")
    os.makedirs(tempfile.tempdir, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # nor fight for cores; read when torch is first imported


def pytest_configure() -> None:
    """Garbage is not sought while test modules import what stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, as a worker runs a file whole: else one would end the run alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def nothing_old_to_collect():
    """Sessions collect garbage before each timed block: what was imported by then need not be walked each time."""
    gc.freeze()


@pytest.fixture
def composed():
    """Composes the real configuration with overrides, as the command line does."""

    return lambda *overrides: compose_config(overrides)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for all tests: the micro zoos are trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def micro(composed, cache, tmp_path, monkeypatch):
    """A configuration on the micro zoo with few generated rows; results go to a fresh folder."""
    monkeypatch.setitem(registry.TABLE["zoo"], "tiny", registry.TABLE["zoo"]["tiny"]._replace(code="tests.micro:load"))

    def build(*overrides: str) -> Config:
        return composed(*SMALL, f"results_dir={tmp_path}/results", f"cache_dir={cache}", *overrides)

    return build


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A small Hugging Face hub on 127.0.0.1 (tests/fake_hub.py)."""
    from tests.fake_hub import serving

    with serving(tmp_path, monkeypatch) as started:
        yield started
