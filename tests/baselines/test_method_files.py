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
    knobs = set(asdict(METHODS[name](name)))
    if {"tabi", "tabi@tabi"} & set(defaults):  # tabi's own file, as it is or below it
        assert set(raw) < knobs
    else:
        assert set(raw) == knobs
    assert raw["name"] == name


@pytest.mark.parametrize("name", FILES)
def test_chosen_or_compared_a_method_has_the_same_options(composed, name):
    """Composed by Hydra with its defaults list, or read alone for a session beside the chosen one."""
    assert composed(f"method={name}").method == method_options(name)
