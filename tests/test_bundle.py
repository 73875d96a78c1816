"""A bundle: packed, moved elsewhere, whole by its manifest, and run from there without what it was packed from."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tabi_bench.bundle import _copy_data, _instructions, main, pack
from tabi_bench.config import compose_config
from tests.hub_layout import publish
from tests.zoo.toys import permuted, toy_task, trained


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of a local task and two own models, away from all that it was made from."""
    root = tmp_path_factory.mktemp("bundle")
    task = toy_task()
    (root / "data" / "mnli").mkdir(parents=True)
    names = dict(enumerate(task.config.labels))
    for split, file in (("train", "train"), ("validation", "validation_matched")):
        rows = [{**row, "label": names[row["label"]]} for row in getattr(task, split)]
        (root / "data" / "mnli" / f"{file}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = trained(root / "models" / "small", task)
    permuted(small, root / "models" / "turned", (1, 2, 0))
    models = f"zoo.paths=[{root}/models/small,{root}/models/turned]"
    overrides = ["source=local", f"source.dir={root}/data", "zoo=custom", models, "zoo.max_length=24"]
    (root / "packed").mkdir()
    pack(["mnli"], [*overrides, f"cache_dir={root}/cache", "engine.device=cpu"], root / "packed", None, False)
    (root / "packed").rename(root / "elsewhere")
    for gone in ("data", "models", "cache"):
        shutil.rmtree(root / gone)
    return root / "elsewhere"


def run_there(bundle, *command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHONPATH"))}
    environment |= {"HF_HOME": "hub", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=bundle, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_commands_name_places_in_the_bundle(bundle):
    text = (bundle / "README.txt").read_text()
    command = shlex.split(next(line for line in text.splitlines() if "run.py" in line))
    assert command[:3] == ["python", "run.py", "task=mnli"]
    assert {"source.dir=data", "zoo.paths=[models/small,models/turned]", "cache_dir=cache"} <= set(command)
    assert str(bundle.parent) not in text and "pip install" not in text


@pytest.mark.parametrize(
    "wheels, with_torch, python, installs",
    [
        (None, True, "python", None),
        ("3.12", True, "python", "-m venv .venv"),
        ("3.11", False, "python3.11", "site-packages"),
    ],
)
def test_what_to_type_follows_from_what_was_packed(wheels, with_torch, python, installs):
    lines = [line.strip() for line in _instructions(["rte"], ["task=rte"], wheels, with_torch).splitlines()[2:]]
    assert lines[-2:] == [f"{python} -m tabi_bench.bundle . --check", f"{python} run.py task=rte"]
    assert (installs is None) == (lines[0] == "export HF_HOME=hub HF_HUB_OFFLINE=1")
    if installs:
        assert lines[0].startswith(f"python{wheels} -m") and lines[0].split(" -r ")[0].endswith(installs)


def test_data_of_the_tasks_that_a_ladder_is_made_from_goes_along(tmp_path):
    for task in ("rte", "mnli", "qqp"):
        (tmp_path / "data" / task).mkdir(parents=True)
    given = ["source=local", f"source.dir={tmp_path}/data", "zoo=minilm", "zoo.via_mnli=[rte]"]
    for task, also in {"rte": ["mnli", "rte"], "qqp": ["qqp"]}.items():
        config = compose_config([f"task={task}", *given])
        _copy_data(config, tmp_path / task)
        assert sorted(folder.name for folder in (tmp_path / task / "data").iterdir()) == also


def test_a_changed_or_missing_file_is_named(bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as whole:
        main([str(bundle), "--check"])
    assert whole.value.code == 0
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "data/mnli/train.jsonl").write_text("{}")
    with pytest.raises(SystemExit, match=r"data/mnli/train\.jsonl does not match its hash; pack or copy it again"):
        main([str(copy), "--check"])
    with pytest.raises(SystemExit, match="is there already; name a new folder"):
        main([str(copy)])


def test_an_added_file_an_entry_outside_and_an_empty_manifest_are_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    for later in ("outputs/adhoc/x.json", ".venv/bin/python", "tabi_bench/__pycache__/cli.pyc", "cache/x/y.npz"):
        (copy / later).parent.mkdir(parents=True, exist_ok=True)
        (copy / later).write_text("of a bundle that is used")
    with pytest.raises(SystemExit) as whole:
        main([str(copy), "--check"])
    assert whole.value.code == 0
    (copy / "tabi_bench" / "added.py").write_text("")
    with pytest.raises(SystemExit, match=r"tabi_bench/added\.py is not in its manifest; pack or copy it again"):
        main([str(copy), "--check"])
    (copy / "tabi_bench" / "added.py").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    (tmp_path / "outside.py").write_text("")
    for files, reason in (
        (manifest["files"] | {"../outside.py": "0"}, "lies outside the folder"),
        ({}, "its manifest names no files"),
    ):
        (copy / "manifest.json").write_text(json.dumps(manifest | {"files": files}))
        with pytest.raises(SystemExit, match=reason):
            main([str(copy), "--check"])


@pytest.mark.slow
def test_a_bundle_of_a_task_from_the_hub_is_read_without_a_network(hub, tmp_path):
    commits = publish(hub, tmp_path / "data")
    given = ["source=hub", f"task.hub.revision={commits['nyu-mll/glue']}", "zoo=tiny", "zoo.shapes=[1x16]"]
    given += ["zoo.train.max_steps=2", f"cache_dir={tmp_path}/cache", "engine.device=cpu"]
    command = [sys.executable, "-m", "tabi_bench.bundle", str(tmp_path / "packed"), "--tasks", "rte", "--no-wheels"]
    environment = os.environ | {"HF_ENDPOINT": hub.url}
    done = subprocess.run([*command, *given], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    hub.stop()
    (tmp_path / "packed").rename(tmp_path / "moved")
    run_there(tmp_path / "moved", "-m", "tabi_bench.bundle", ".", "--check")
    text = (tmp_path / "moved" / "README.txt").read_text()
    typed = shlex.split(next(line for line in text.splitlines() if "run.py" in line))
    printed = run_there(tmp_path / "moved", *typed[1:], "scenario.min_queries=40", "scenario.profile_rounds=1")
    assert "infaas" in printed
    run_there(tmp_path / "moved", "-m", "tabi_bench.bundle", ".", "--check")


@pytest.mark.slow
def test_code_data_models_and_findings_are_used_from_the_bundle(bundle):
    code = """
import sys, tabi_bench, tabi_bench.zoo.labels as labels
from tabi_bench.config import compose_config
from tabi_bench.tasks import load_task
from tabi_bench.zoo import load_zoo
labels.measure = None
config = compose_config(["task=mnli", *sys.argv[1:]])
task = load_task(config.task, config.source, config.seed)
zoo = load_zoo(config.zoo, task, config.cache_dir, config.seed, "cpu")
print(tabi_bench.__file__, [spec.label_order for spec in zoo.models])
"""
    text = (bundle / "README.txt").read_text()
    command = shlex.split(next(line for line in text.splitlines() if "run.py" in line))
    printed = run_there(bundle, "-c", code, *command[3:])
    assert printed.startswith(str(bundle)) and "(1, 2, 0)" in printed and "(0, 1, 2)" in printed


@pytest.mark.slow
def test_a_session_runs_from_the_bundle(bundle):
    text = (bundle / "README.txt").read_text()
    command = shlex.split(next(line for line in text.splitlines() if "run.py" in line))
    printed = run_there(bundle, *command[1:], "scenario.min_queries=60")
    assert "infaas" in printed and (bundle / "outputs").is_dir()


def test_what_cannot_be_packed_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", "restored afterwards")
    with pytest.raises(SystemExit, match="Error: "):
        main([str(tmp_path / "b"), "--no-wheels", "source=local", f"source.dir={tmp_path}/none"])
    assert not list(tmp_path.iterdir())
