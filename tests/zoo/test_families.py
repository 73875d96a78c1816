"""One adapter per architecture, and no architecture's name anywhere else."""

import ast
from pathlib import Path

import pytest

import tabi_bench
from tabi_bench.zoo.families import FAMILIES, cuttable, family
from tabi_bench.zoo.families.base import Family

PACKAGE = Path(tabi_bench.__file__).parent


def sources():
    roots = [PACKAGE, PACKAGE.parent / "baselines"]
    files = [file for root in roots for file in root.rglob("*.py")]
    return [file for file in files if file.parent.name not in ("families", "report")]  # which names the paper's models


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.name)
def test_no_family_is_named_outside_its_adapter(file):
    """As a whole string: what is compared, looked up or listed. Identifiers and prose are not."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in FAMILIES]
    assert [(node.lineno, node.value) for node in named] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_name_has_an_adapter(name):
    assert isinstance(family(name), Family) and family(name) is family(name)


def test_what_can_be_cut_is_what_has_layers_of_its_own():
    assert set(FAMILIES) - set(cuttable()) == {"deberta", "deberta-v2"}
