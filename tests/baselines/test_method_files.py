"""Each method's file names every knob of its schema, and says what the schema defaults to."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from tabi_bench.config import METHODS, conf_dir, method_options

FILES = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_a_method_file_is_complete(name):
    raw = OmegaConf.to_container(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml"))
    defaults = raw.pop("defaults")
    knobs = {"name"} if "tabi@tabi" in defaults else set(asdict(METHODS[name](name)))
    assert set(raw) == knobs  # the controls have tabi's own file below them
    assert raw["name"] == name


@pytest.mark.parametrize("name", [name for name in FILES if name != "tabi3"])
def test_a_method_file_says_the_defaults(name):
    assert method_options(name) == METHODS[name](name)
