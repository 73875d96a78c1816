"""The house keeps its walls: imports run downwards, names stay where they belong, functions are short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tabi_bench import registry
from tabi_bench.zoo.families import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("tabi_bench/**/*.py"), *ROOT.glob("baselines/*.py")])
LAYERS = (  # a room imports from its own layer and those below it, which come first
    {"cache", "device", "config", "registry", "hub", "names", "progress"},
    {"evaluation"},
    {"tasks"},
    {"zoo"},
    {"engines"},
    {"system"},
    {"profiling"},
    {"cascade"},
    {"planning"},
    {"serving"},
    {"records"},
)
METHODS = set(registry.TABLE["method"]) - {"single", "random"}  # which are words, too
LONGEST, MOST_PARAMETERS = 40, 6


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def only_for_types(tree: ast.AST) -> set[ast.AST]:
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    return {inner for block in blocks for inner in ast.walk(block)}


def imports(name: str) -> Iterator[str]:
    """Modules of this project that `name` imports at run time, wherever in the file."""
    skipped = only_for_types(TREES[name])
    for node in ast.walk(TREES[name]):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in TREES)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(name.split(".")[: -node.level]) if node.level else ""  # of a relative import
            source = ".".join(filter(None, (above, node.module)))
            inside = [f"{source}.{alias.name}" for alias in node.names]
            yield from (target for target in inside if target in TREES)
            if source in TREES and any(target not in TREES for target in inside):
                yield source


GRAPH = {name: set(imports(name)) - {name, "tabi_bench"} for name in TREES}


def test_no_import_circle():
    def reach(name: str, seen: set[str]) -> set[str]:
        for other in GRAPH[name] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    assert [name for name in GRAPH if name in reach(name, set())] == []


def test_imports_run_downwards():
    height = {room: k for k, layer in enumerate(LAYERS) for room in layer}
    upwards = []
    for name, others in GRAPH.items():
        here = name.split(".")[1] if name.startswith("tabi_bench.") else name.split(".")[0]
        for other in others:
            there = other.split(".")[1] if other.startswith("tabi_bench.") else other.split(".")[0]
            if here in height and (there not in height or height[there] > height[here]):
                upwards.append(f"{name} imports {other}")
    assert upwards == []


def test_nobody_in_the_core_imports_the_report_or_a_baseline():
    core = [name for name in GRAPH if name.startswith("tabi_bench.") and not name.startswith("tabi_bench.report")]
    above = ("tabi_bench.cli", "tabi_bench.compare", "tabi_bench.bundle")  # the bundle packs them all
    wrong = [(n, o) for n in core for o in GRAPH[n] if o.startswith(("tabi_bench.report", "baselines"))]
    assert [pair for pair in wrong if pair[0] not in above] == []


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Constants that are text, but docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = [n.body[0] for n in ast.walk(tree) if isinstance(n, documented) and n.body]
    notes = {first.value for first in bodies if isinstance(first, ast.Expr)}
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and n not in notes]
    yield from (n for n in constants if isinstance(n.value, str))


@pytest.mark.parametrize("name", sorted(TREES))
def test_names_of_methods_and_families_stay_at_home(name):
    """A method's name stands in its own file, the tables of code and of printed names, conf/ and the report."""
    words = {node.value for node in strings(TREES[name])}
    tables = ("tabi_bench.registry", "tabi_bench.names")
    at_home = name.startswith(("baselines.", "tabi_bench.report", "tabi_bench.planning.tabi", *tables))
    assert at_home or not words & METHODS
    assert name.startswith("tabi_bench.zoo.families") or not words & set(FAMILIES)


@pytest.mark.parametrize("name", sorted(TREES))
def test_no_protocol_is_searched_for(name):
    """Rooms meet in base classes and protocols: nobody asks an object whether it has a method."""
    calls = [n for n in ast.walk(TREES[name]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    asked = [n for n in calls if n.func.id in ("getattr", "hasattr") and isinstance(n.args[1], ast.Constant)]
    foreign = ("tabi_bench.zoo", "tabi_bench.engines.native", "tabi_bench.cluster", "tabi_bench.records.record")
    assert not asked or name.startswith(foreign), ast.dump(asked[0])  # of libraries' objects


@pytest.mark.parametrize("name", sorted(set(TREES) - {"tabi_bench.engines.kernels"}))
def test_functions_are_short_and_take_few_parameters(name):
    source = (ROOT / (name.replace(".", "/") + ".py")).resolve()
    path = source if source.exists() else ROOT / name.replace(".", "/") / "__init__.py"
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1:] if isinstance(node.body[0], ast.Expr) and len(node.body) > 1 else node.body
            body = lines[first[0].lineno - 1 : node.end_lineno]
            code = [line for line in body if line.strip() and not line.strip().startswith("#")]
            assert len(code) <= LONGEST, f"{node.name}: {len(code)} lines"
            options = {a for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None}
            arguments = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a not in options
            ]  # keyword-only options with a default are named where they are given
            count = len([a for a in arguments if a not in ("self", "cls")])
            free = node.name == "__init__" or name == "tabi_bench.zoo.families.attention"  # transformers' signature
            assert count <= MOST_PARAMETERS or free, f"{node.name}: {count} parameters"


def test_layers_are_named_once():
    assert all(not below & above for below, above in pairwise(LAYERS))


@pytest.mark.parametrize("name", sorted(TREES))
def test_variables_say_what_they_hold(name):
    nodes = list(ast.walk(TREES[name]))
    names = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    vague = {"found", "said", "told", "mine", "each", "rest", "rung", "piece"}
    assert not vague & (names | {n.attr for n in nodes if isinstance(n, ast.Attribute)})
