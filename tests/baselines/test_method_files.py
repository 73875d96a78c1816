"""Each method's file names every setting of its schema."""

from __future__ import annotations

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from tabi_bench import registry
from tabi_bench.config import conf_dir, read_file

FILES = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_a_method_file_is_complete(name):
    raw = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
    schema = registry.load(registry.TABLE["method"][name].schema)
    assert set(raw) == {field.name for field in fields(schema)} - {"code", "cascade"}
    assert raw.name == name


def test_every_method_of_the_table_has_a_file():
    assert set(FILES) == set(registry.TABLE["method"])


@pytest.mark.parametrize("name", FILES)
def test_chosen_or_compared_a_method_has_the_same_options(composed, name):
    """Composed by Hydra, or read alone for a session beside the chosen one."""
    assert composed(f"method={name}").method == read_file("method", name)
