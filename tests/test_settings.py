"""Every setting is read by the code of its choice, or refused by name before any work.

That a setting is read is seen in the source: an attribute of its name, of something that holds the settings of its
group (READERS), in a module that the code of the choice imports. Nobody writes `engine.quantize` in what eager runs.
"""

from __future__ import annotations

import ast
from dataclasses import fields
from functools import cache
from typing import Any

import pytest

from tabi_bench import registry
from tabi_bench.config import GROUPS, ConfigError, conf_dir, read_file
from tabi_bench.config.fields import settings
from tests.test_house import GRAPH, TREES

READERS = {  # what holds the settings of a group where they are read
    "engine": {"config", "engine"},
    "source": {"source"},
    "scenario": {"scenario", "config", "self"},
    "method": {"options", "o"},
    "zoo": {"config", "zoo", "base", "steps", "train", "recipe"},
    "task": {"task", "config", "hub", "files"},
    "": {"config", "search", "target", "certify", "cost", "options"},
}
EVERYWHERE = ("tabi_bench.experiment", "tabi_bench.session", "tabi_bench.tasks", "tabi_bench.zoo", "tabi_bench.engines")
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((conf_dir() / group).glob("*.yaml"))]
NEEDED = {"local": ["source.dir=somewhere"], "custom": ["zoo.paths=[d]"]}
NOT_SETTINGS = ("name", "code")


def reachable(module: str) -> set[str]:
    """The module and what it imports, directly or not, without the schemas."""
    seen, left = set(), [module]
    while left:
        name = left.pop()
        if name not in seen and not name.startswith("tabi_bench.config"):
            seen.add(name)
            left += GRAPH.get(name, ())
    return seen & set(TREES)


@cache
def attributes(module: str) -> frozenset[tuple[str, str]]:
    """(holder, attribute) of every `holder.attribute` or `x.holder.attribute` in a module."""
    nodes = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)]
    holders = [getattr(node.value, "id", getattr(node.value, "attr", "")) for node in nodes]
    return frozenset(zip(holders, (node.attr for node in nodes), strict=True))


def is_read(name: str, group: str, modules: set[str]) -> bool:
    """name: of the setting, dotted; one of `task.hub` or `task.files` is read of these alone."""
    part, _, name = name.rpartition(".")
    holders = {part} if part in ("hub", "files") else READERS[group]
    return any(attribute == name and holder in holders for m in modules for holder, attribute in attributes(m))


def modules_of(group: str, choice: str) -> set[str]:
    """Where the settings of a choice may be read."""
    if group in ("", "task"):  # of a task: by the session, and by the source, which is added
        return reachable("tabi_bench.experiment") | reachable("tabi_bench.cli")
    own = {"tabi_bench.config.scenario"} if group == "scenario" else set()  # whose properties the session asks
    return reachable(registry.TABLE[group][choice].code.partition(":")[0]) | set(EVERYWHERE) | own


def another(value: Any, field: Any) -> str:
    """Some other value that a setting may have, as typed on a command line."""
    if "choices" in field.metadata:
        return str(next(c for c in field.metadata["choices"] if c != value and [c] != value))
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return str(value / 2 if value else 0.5)
    if isinstance(value, list):
        return f"[{value[0]}]" if value and str(value[:1]) != str(value) else "[]" if value else "[x]"
    if isinstance(value, dict):
        return "{x: 1}"
    return "0.5" if "float" in str(field.type) else "5" if "int" in str(field.type) else "other"


def leaves(options: Any) -> list[tuple[str, Any, Any]]:
    return [leaf for leaf in settings(options) if leaf[0] not in NOT_SETTINGS]


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] != "task"])
def test_every_setting_of_a_choice_is_read_or_refused(composed, group, choice):
    modules = modules_of(group, choice)
    for name, value, field in leaves(read_file(group, choice)):
        if not is_read(name, group, modules):
            with pytest.raises(ConfigError, match=name):
                composed(f"{group}={choice}", *NEEDED.get(choice, []), f"{group}.{name}={another(value, field)}")


@pytest.mark.parametrize("source", registry.TABLE["source"])
@pytest.mark.parametrize("task", ["mnli", "custom"])
def test_every_setting_of_a_task_is_read_with_every_source_or_refused(composed, task, source):
    modules = modules_of("task", task) | modules_of("source", source)
    refused = []
    for name, value, field in leaves(read_file("task", task)):
        if not is_read(name, "task", modules):
            with pytest.raises(ConfigError, match=f"task.{name}"):
                given = f"task.{name}={another(value, field)}"
                composed(f"task={task}", f"source={source}", *NEEDED.get(source, []), given)
            refused.append(name)
    assert "texts" not in refused and (source != "generated" or "files.train" in refused)


def test_every_setting_of_the_session_is_read(composed):
    config, modules = composed(), modules_of("", "")
    names = [name for name, *_ in settings(config) if name.partition(".")[0] not in GROUPS]
    unread = {name for name in names if not is_read(name, "", modules)}
    assert unread == {"compare"}  # which `systems` follows from: the next test


def test_compare_and_systems_become_the_systems_in_order(composed):
    overrides = ["compare=[infaas,tabi,cocktail,reference_again]", "systems.cocktail.smoothed=false", "method.levels=1"]
    config = composed(*overrides, "systems.infaas.slo_ms=3")
    assert list(config.systems) == config.compare == ["infaas", "tabi", "cocktail", "reference_again"]
    assert config.systems["cocktail"].smoothed is False
    assert config.systems["tabi"] is not None and config.systems["tabi"].levels == config.method.levels == 1
    assert config.systems["reference_again"].slo_ms == config.systems["infaas"].slo_ms == 3.0


def test_a_setting_that_nobody_reads_would_be_seen():
    assert is_read("quantize", "engine", modules_of("engine", "onnx"))
    assert not is_read("quantize", "engine", modules_of("engine", "eager"))
    assert not is_read("buckets", "engine", modules_of("engine", "eager"))
    assert not is_read("cells", "zoo", modules_of("zoo", "tiny"))
    assert not is_read("thresholds", "method", modules_of("method", "tabi"))
    assert not is_read("policy", "scenario", modules_of("scenario", "single_stream"))


@pytest.mark.parametrize("group", registry.TABLE)
def test_a_setting_of_another_choice_is_refused_by_name(group):
    names = {choice: {name for name, *_ in leaves(read_file(group, choice))} for choice in registry.TABLE[group]}
    for choice, own in names.items():
        others = set().union(*names.values()) - own
        for name in others:
            part = name.partition(".")[0]
            if part not in own:
                with pytest.raises(ConfigError, match=rf"unknown setting {group}\.{part}.*; {group}={choice} has: "):
                    read_file(group, choice, [f"{name}=1"])


def test_every_file_holds_every_field_of_its_schema():
    """Else a default would stand in two places, or nowhere."""
    for group, choice in CHOICES:
        assert all(field.default is field.default_factory for field in fields(read_file(group, choice)))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scenario.name=server"], "scenario.name='server': the name is that of the file; choose with scenario=NAME"),
        (["method.name=tabi3"], "method.name='tabi3': the name is that of the file"),
        (["engine.code=os:getcwd"], "engine 'eager' ships with its code"),
        (["task.family=nonsense"], "task.family='nonsense': choose one of sentence, pair, intent, custom"),
        (["task.name=../up"], "task.name='../up': letters, digits"),
        (["method.sigmoid_k=3"], "method.sigmoid_k=3.0 would not be read: dispatcher=threshold has no slope"),
        (["method.alphas=[0]", "method.importance=mean"], "method.importance=mean would not be read: alphas=[0.0]"),
        (["method.levels=1", "method.confidence=margin"], "method.confidence=margin would not be read: levels=1"),
        (["task=stsb", "method.calibrate=false"], "method.calibrate=False would not be read: pearson is a score"),
        (["task=stsb", "method=random", "systems.tabi.confidence=margin"], "systems.tabi.confidence=margin would not"),
        (["task=stsb", "task.labels=[a,b]"], "task.labels=['a', 'b']: metric pearson is of scores"),
        (["task=stsb", "method=cocktail", "method.smoothed=false"], "method.smoothed=False would not be read: scores"),
        (["certify.delta=0.1"], "certify.delta=0.1 would not be read: certify.epsilon=null"),
        (["compare=[infaas,cocktail]", "certify.epsilon=0.1"], "certify.epsilon=0.1 would not be read: compare="),
        (["compare=[infaas,cocktail]", "search.verify=true"], "search.verify=True would not be read: compare="),
        (["compare=[infaas,cocktail]", "method.confidence=entropy"], "method.confidence is set, but compare="),
        (["compare=[infaas,cocktail]", "method=tabi"], "method is set, but compare="),
        (["systems.cocktail.smoothed=false"], "systems.cocktail is set, but no system of compare="),
        (["systems.tabi.levels=1", "method.calibrate=false"], "method.calibrate and systems.tabi are both set"),
        (["systems.tabi=3"], "systems.tabi=3: it has settings of its own"),
        (
            ["compare=[infaas,tabi,reference_again]", "systems.reference_again.slo_ms=3"],
            "systems.reference_again is set",
        ),
        (["compare=[reference_again,tabi]"], "reference_again serves the first system once more"),
        (["compare=[]"], "compare=[]: a list of methods, the reference first"),
        (
            ["method=random", "method.confidence=entropy"],
            "unknown setting method.confidence; method=random has: stands_on",
        ),
        (["method=random", "method.stands_on=infaas"], "method.stands_on=infaas: it is no cascade"),
        (["method=random", "+method.cascade.levels=1"], "method.cascade: random stands on tabi; set systems.tabi"),
        (["target.kind=absolute", "target.value=0.9", "task.slack=0.5"], "task.slack=0.5 would not be read"),
        (["target.slack=0.1", "task.slack=0.5"], "task.slack=0.5 would not be read: target.slack is set"),
        (["task.paper_target=0.5"], "task.paper_target=0.5 would not be read: target.kind=relative"),
        (
            ["zoo.shapes=[1x64]", "zoo.train.distill=0.1"],
            "zoo.train.distill=0.1 would not be read: zoo.shapes names one",
        ),
        (["zoo.shapes=[huge]"], "zoo.shapes='huge': layers x hidden, as 4x48"),
        (["zoo=paper", "zoo.random_weights=true", "zoo.train.epochs=9"], "zoo.train.epochs=9.0 would not be read"),
        (["source=local", "source.dir=d", "task.files.train=a.csv"], "source.dir and task.files are both set"),
        (
            ["engine.device=cuda:0", "engine.threads=3"],
            "engine.threads=3 would not be read: they are threads of the CPU",
        ),
        (["engine=graph", "engine.device=cpu"], "engine.device='cpu': CUDA graphs need a GPU"),
        (["seed=1180591620717411303424"], "seed=1180591620717411303424: at most 4294967295"),
        (["seed=null"], "seed: Incompatible value 'None' for field of type 'int'"),
        (["search.margin_se=inf"], "search.margin_se=inf: a finite number is needed"),
        (["target=0.95"], "target=0.95: write target.kind=absolute target.value=0.95"),
        (["search=3"], "search=3: it has settings of its own, as search.key=value"),
        (["cache_dir='~nobody-of-this-name/cache'"], "cache_dir=~nobody-of-this-name/cache: no such home"),
    ],
)
def test_what_is_not_read_beside_the_others_is_refused_in_one_sentence(composed, overrides, says):
    with pytest.raises(ConfigError) as refused:
        composed(*overrides)
    assert says in str(refused.value) and "\n" not in str(refused.value)
