"""Every file of conf/experiment: each job of its sweep composes, and each preset runs to the end on a micro setting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tabi_bench import cli, registry
from tabi_bench.config import conf_dir
from tabi_bench.records.record import Record
from tests.processes import FEW, ended, start

PRESETS = {file.stem: OmegaConf.load(file) for file in sorted((conf_dir() / "experiment").glob("*.yaml"))}
DERIVED = [name for name, preset in PRESETS.items() if preset.get("derive")]
MEASURED = [name for name in PRESETS if name not in DERIVED]
TWO = "zoo.models=[1x64,4x48]"
QUICK = {  # narrowed to one job each, none of which trains
    "models": [TWO],
    "main_table": [TWO, "method.fewer_levels=false"],  # two levels, whatever this machine's clock says of the models
    "three_level": ["task=sst2"],
    "load": [TWO, "scenario.seconds=0.1", "scenario.rate=50", "scenario.curve=[0.1]", "scenario.goodput=false"],
    "offline": [TWO, "systems.deebert.train.epochs=1", "scenario.least_seconds=0"],
    "pruning": [TWO, "method.alphas=[1.0]", "method.controls=[importance]"],
    "batching": [
        TWO, "scenario.max_batch=8", "method.alphas=[1.0]", "method.controls=[importance]", "scenario.least_seconds=0",
    ],
}  # fmt: skip
IN_BATCHES = ("load", "offline", "batching")
WHOLE = {"all_systems": [], "deebert": [], "ablation": [], "engines": ["engine=eager,onnx"]}


def drive(lines: list[list[str]]) -> None:
    """Command lines one after the other in one process; prints the exit code of each."""
    for arguments in lines:
        GlobalHydra.instance().clear()
        sys.argv = ["run.py", *arguments]
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        print("exit", arguments[0].partition("=")[2], code)


def run(folder: Path, presets: dict[str, list[str]]) -> dict[str, str]:
    """Runs presets one after the other in one process; the exit code of each."""
    measured = [f"cache_dir={folder}/cache", "task=sst2", *FEW]
    batched = [setting for setting in measured if not setting.startswith(("scenario.min_queries", "scenario.warmup"))]
    common = {**dict.fromkeys(DERIVED, ()), **dict.fromkeys(IN_BATCHES, batched)}
    lines = [
        [f"experiment={name}", f"results_dir={folder}/results", *common.get(name, measured), *extra]
        for name, extra in presets.items()
    ]
    ended(start(drive, lines, says=folder / "said"), seconds=1200)
    printed = (folder / "said").read_text()
    ends = [line.split(" ", 2)[1:] for line in printed.splitlines() if line.startswith("exit ")]
    assert len(ends) == len(lines), printed[-2000:]
    return {name: code if code == "0" else f"{code}\n{printed[-2000:]}" for name, code in ends}


def jobs(name: str) -> list[list[str]]:
    """The overrides of each job of a preset's own sweep."""
    params = OmegaConf.select(PRESETS[name], "hydra.sweeper.params") or {}
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    return [list(job) for job in BasicSweeper.split_arguments(overrides, None)[0]]


def check_records(folder: Path, name: str) -> None:
    records = [Record.load(path) for path in (folder / "results" / PRESETS[name].label).rglob("record.json")]
    assert records and {record.status for record in records} <= {"ok", "infeasible"}
    for session in {record.session_id for record in records}:
        assert {r.method for r in records if r.session_id == session} == set(PRESETS[name].compare)


@pytest.mark.parametrize("name", PRESETS)
def test_every_job_of_every_preset_composes(composed, name):
    for overrides in jobs(name):
        config = composed(f"experiment={name}", *overrides)
        assert config.label == name
        assert list(registry.system_classes(config.systems)) == config.compare


def test_every_measured_preset_is_run_here():
    assert set(QUICK) | set(WHOLE) == set(MEASURED)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    return folder, run(folder, {**QUICK, **{name: [] for name in DERIVED}})


@pytest.mark.parametrize("name", QUICK)
def test_measured_presets_run_to_the_end(quick, name):
    folder, codes = quick
    assert codes[name] == "0"
    check_records(folder, name)


@pytest.mark.parametrize("name", DERIVED)
def test_derived_presets_draw_from_the_records_of_the_others(quick, name):
    folder, codes = quick
    assert codes[name] == "0"
    assert {path.suffix for path in (folder / "results" / "report").rglob(f"{name}*")} >= {".csv"}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_presets_that_take_minutes_run_whole(tmp_path, name):
    assert run(tmp_path, {name: WHOLE[name]}) == {name: "0"}
    check_records(tmp_path, name)
