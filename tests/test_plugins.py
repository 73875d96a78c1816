"""Choices of one's own: YAML files in a folder outside the repository, their code beside them."""

from __future__ import annotations

import json
import textwrap

import pytest

from tabi_bench.config import ConfigError, compose_config
from tests.processes import SMALL, command_line, ended, start

FILES = {
    "task/mytask.yaml": """
        defaults: [custom, _self_]
        name: mytask
        texts: [sentence]
        labels: [bad, good]
    """,
    "zoo/mine.yaml": """
        name: mine
        code: tests.micro:load
        max_length: 64
        models: []
    """,
    "engine/plain.yaml": """
        name: plain
        code: pieces:PlainEngine
        device: cpu
        dtype: float32
        fuse_qkv: false
    """,
    "scenario/steady.yaml": """
        defaults: [single_stream, _self_]
        name: steady
        code: tabi_bench.serving.single_stream:SingleStream
        schema: tabi_bench.config:SingleStreamConfig
    """,
    "method/pick.yaml": """
        name: pick
        code: pieces:Pick
        schema: pieces:PickConfig
        position: 0
    """,
    "pieces.py": """
        from dataclasses import dataclass

        from baselines.infaas import one_model
        from tabi_bench.cascade.system import Cascade
        from tabi_bench.config import MethodConfig
        from tabi_bench.engines.eager import EagerEngine


        @dataclass
        class PickConfig(MethodConfig):
            position: int


        class Pick(Cascade):
            name = "pick"

            @classmethod
            def plan(cls, profile, target, options):
                return one_model(profile, target, profile.names[options.position])


        class PlainEngine(EagerEngine):
            name = "plain"
    """,
}


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "mine"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return folder


@pytest.fixture
def data(tmp_path):
    """Sentences whose label one word names, as files of the task."""
    folder = tmp_path / "data" / "mytask"
    folder.mkdir(parents=True)
    for split, count in (("train", 400), ("validation", 80)):
        lines = [
            f"{'good' if k % 2 else 'bad'} film number {k * 7 % 31},{('bad', 'good')[k % 2]}" for k in range(count)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["sentence,label", *lines]) + "\n")
    return folder.parent


def test_a_session_of_nothing_but_ones_own_pieces(own, data, tmp_path):
    """A task, zoo, engine, scenario and method; the method with a setting, set on the command line."""
    few = [one for one in SMALL if not one.startswith(("source.", "engine."))]
    chosen = ["task=mytask", "source=local", f"source.dir={data}", "zoo=mine", "engine=plain", "scenario=steady"]
    systems = ["compare=[infaas,pick]", "systems.pick.position=1"]
    places = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    arguments = ["--config-dir", str(own), *chosen, *systems, *places, *few]
    code = ended(start(command_line, *arguments, says=tmp_path / "printed"), seconds=240)
    assert code == 0, (tmp_path / "printed").read_text()[-2000:]
    record = json.loads(next((tmp_path / "results").rglob("mytask-pick-local-mine-plain-*/record.json")).read_text())
    assert record["status"] == "ok" and record["config"]["systems"]["pick"]["position"] == 1
    assert record["config"]["systems"]["pick"]["code"] == "pieces:Pick"
    assert record["config"]["scenario"]["name"] == "steady"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["method=pick", "method.positon=1"], "unknown setting method.positon; method=pick has: position"),
        (
            ["compare=[infaas,pick]", "systems.pick.positon=1"],
            "unknown setting systems.pick.positon; method=pick has: pos",
        ),
        (
            ["method=pick", "method.position=first"],
            "method.position: Value 'first' of type 'str' could not be converted",
        ),
        (
            ["engine=plain", "engine.threads=1"],
            "unknown setting engine.threads; engine=plain has: device, dtype, fuse_qkv",
        ),
        (["compare=[infaas,pikc]"], "compare names an unknown method 'pikc'; there are: cocktail"),
    ],
)
def test_typos_in_settings_of_ones_own_are_refused_by_name(own, arguments, says):
    with pytest.raises(ConfigError) as refused:
        compose_config(arguments, own)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("method/pick.yaml", "name: pick\nposition: 0\n", "method 'pick': its YAML file needs code: module:attribute"),
        ("method/pick.yaml", "name: pick\ncode: nowhere:Pick\n", "method 'pick': 'nowhere:Pick' names no code"),
        (
            "method/pick.yaml",
            "name: pick\ncode: pieces:Pick\nschema: pieces:Pick\n",
            "must be a dataclass based on Method",
        ),
        (
            "method/pick.yaml",
            "name: pick\ncode: pieces:Pick\nschema: pieces:PickConfig\n",
            "method.position has no value",
        ),
        ("method/pick.yaml", "name: peck\ncode: pieces:Pick\n", "method.name='peck': the name is that of the file"),
        ("method/tabi.yaml", "name: tabi\ncode: pieces:Pick\n", "method 'tabi' is taken; rename yours"),
    ],
)
def test_files_that_cannot_be_used_are_named(own, file, text, says):
    (own / file).write_text(text)
    with pytest.raises(ConfigError) as refused:
        compose_config(["compare=[infaas,pick]" if "tabi" in file else "method=pick"], own)
    assert says in str(refused.value)


def test_unknown_choices_name_ones_own_too(own, tmp_path):
    code = ended(start(command_line, "--config-dir", str(own), "zoo=huge", says=tmp_path / "printed"), seconds=60)
    assert code == 1
    assert (
        tmp_path / "printed"
    ).read_text() == "unknown zoo 'huge'; there are: custom, encoders, mine, minilm, paper, tiny\n"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    code = ended(start(command_line, "--config-dir", str(tmp_path / "no"), says=tmp_path / "printed"), seconds=60)
    assert code == 1 and (tmp_path / "printed").read_text().startswith(f"no folder {tmp_path}/no; --config-dir holds")
