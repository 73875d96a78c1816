"""Sweeps on a Ray cluster: what each job gets, dead workers, and (slow) real sweeps on clusters of CPU workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from tabi_bench import cluster
from tabi_bench.config import conf_dir, register
from tabi_bench.sweep import lost, read_jobs, summary
from tests.processes import FEW

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled"}  # no token is left in the home folder
CLUSTER = """
import ray, sys
started = ray.init(address="local", num_cpus=3, object_store_memory=100_000_000, include_dashboard=False)
print(started.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def launcher_settings(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ("hydra/launcher=ray", *overrides)
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra.launcher


# --- without Ray ------------------------------------------------------------------------------------------------------


def test_the_launcher_composes_with_knobs_of_ray(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = launcher_settings("hydra.launcher.ray.remote.num_gpus=0.5", "+hydra.launcher.ray.init.namespace=mine")
    assert settings._target_ == "hydra_plugins.tabi_bench_ray.RayLauncher"
    assert settings.ray.init.address == "local" and settings.ray.init.namespace == "mine"
    assert settings.ray.remote.num_gpus == 0.5


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"hydra/launcher=ray needs Ray: pip install 'tabi-bench\[ray\]'"):
        cluster.require_ray()


@pytest.mark.parametrize(
    ("gpus", "device", "chosen", "gets"),
    [(8, "auto", None, 1), (0, "auto", None, 0), (8, "cpu", None, 0), (8, "auto", 0.5, 0.5), (0, "auto", 1, 1)],
)
def test_a_job_gets_a_gpu_where_there_is_one(gpus, device, chosen, gets):
    remote = OmegaConf.create({"num_gpus": chosen, "num_cpus": 2, "max_retries": 0})
    wanted = cluster.resources(remote, device, {"CPU": 4.0, "GPU": float(gpus)})
    assert wanted == {"num_gpus": gets, "num_cpus": 2, "max_retries": 0}


@pytest.fixture
def started(monkeypatch) -> list[dict]:
    """What the plugin is told to start Ray with."""
    options_seen: list[dict] = []
    plugin = ModuleType("_launcher_util")
    plugin.start_ray = lambda options: options_seen.append(OmegaConf.to_container(options))
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher", ModuleType("hydra_ray_launcher"))
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher._launcher_util", plugin)
    for name in ("RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")
    return options_seen


def test_a_running_cluster_is_not_told_its_size(started, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster.start(launcher_settings("hydra.launcher.ray.init.num_cpus=3").ray.init)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster.start(launcher_settings("hydra.launcher.ray.init.num_cpus=3").ray.init)
    own = {"address": "local", "num_cpus": 3, "object_store_memory": 100000000, "include_dashboard": False}
    assert started == [own, {"address": "10.0.0.1:6379"}]


def test_a_worker_stands_where_the_driver_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("TABI_BENCH_CACHE", "shared")
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", "task=sst2,rte"])
    monkeypatch.chdir(tmp_path)
    here = cluster.Here()
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", ["default_worker.py"])
    monkeypatch.setenv("TABI_BENCH_CACHE", "its own")
    here.enter()
    assert Path.cwd() == tmp_path and sys.argv[0] == "run.py" and os.environ["TABI_BENCH_CACHE"] == "shared"
    here.folder = str(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="all hosts must share it"):
        here.enter()


class FakeRay(ModuleType):
    """References are what they stand for; an exception is a worker's end."""

    exceptions = SimpleNamespace(RayError=OSError)

    def wait(self, waiting, num_returns):
        return waiting[-num_returns:], waiting[:-num_returns]

    def get(self, reference):
        if reference == "dies":
            raise OSError("The worker died unexpectedly.\nPages of more.")
        return reference


def test_a_worker_that_dies_does_not_end_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay("ray"))
    jobs = {}
    for number, reference in enumerate(["lives", "dies"]):
        sweep = {"dir": str(tmp_path), "subdir": number}
        jobs[reference] = OmegaConf.create(
            {"hydra": {"job": {"num": number}, "sweep": sweep, "overrides": {"task": [f"seed={number}"]}}}
        )
    ended = cluster._collect(jobs, 2)
    assert ended[0] == "lives" and ended[1].return_value == "OSError: The worker died unexpectedly."
    died = read_jobs(tmp_path)[1]
    assert (died["status"], died["overrides"]) == ("failed", "seed=1") and died["error"] == ended[1].return_value


def test_a_lost_job_keeps_its_beginning(tmp_path):
    (tmp_path / "0").mkdir()
    begun = {"overrides": "task=sst2", "status": "running", "started": time.time() - 60}
    (tmp_path / "0" / "job.json").write_text(json.dumps(begun))
    lost(tmp_path / "0", "", "WorkerCrashedError: killed")
    job = read_jobs(tmp_path)[0]
    assert job["overrides"] == "task=sst2" and job["wall_s"] >= 60
    assert "failed" in summary({0: job}, 1) and "WorkerCrashedError: killed" in summary({0: job}, 1)


# --- with Ray ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path) -> Iterator[str]:
    """A cluster of three CPU workers that runs already, and stands in another folder."""
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    (tmp_path / "cluster").mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], cwd=tmp_path / "cluster", env=ENVIRONMENT, **pipes)
    yield process.stdout.readline().strip()
    process.communicate(timeout=120)
    assert not list((tmp_path / "cluster").iterdir())


def sweep(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    """A sweep typed in `folder`, with relative places."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "run.py"), "-m", "hydra/launcher=ray", *arguments, *FEW]
    command += ["results_dir=out", "cache_dir=cache"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env={**ENVIRONMENT, **options}, **pipes)


def job_files(folder: Path) -> dict[int, dict]:
    """Those of the latest sweep typed in `folder`."""
    return read_jobs(max((folder / "out" / ".hydra").iterdir()))


def records(folder: Path) -> dict[str, tuple[str, str]]:
    """Session and command of each record, by run."""
    files = (folder / "out" / "adhoc").glob("*/record.json")
    records = {file.parent.name: json.loads(file.read_text()) for file in files}
    return {run: (record["session_id"], record["provenance"]["command"]) for run, record in records.items()}


@pytest.mark.slow
def test_a_sweep_on_a_running_cluster_fails_goes_on_and_is_resumed(address, tmp_path):
    driver = tmp_path / "driver"
    failing = sweep(driver, "task=sst2,rte,custom", RAY_ADDRESS=address)
    printed = failing.communicate(timeout=600)[0]
    assert failing.returncode == 1 and "2 of 3 jobs ok" in printed, printed
    jobs = job_files(driver)
    assert [job["status"] for job in jobs.values()] == ["ok", "ok", "failed"]
    assert "task 'custom' has no generator" in jobs[2]["error"]
    for number, task in enumerate(("sst2", "rte", "custom")):
        assert f"I job {number}: task={task}" in printed and f"I job {number} ended (" in printed
    assert "sst2 from source generated, zoo tiny" in printed and "rte from source generated, zoo tiny" in printed
    measured = records(driver)
    assert len(measured) == 4 and all("run.py -m hydra/launcher=ray" in command for _, command in measured.values())
    again = sweep(driver, "task=sst2,rte", f"hydra.launcher.ray.init.address={address}")
    printed = again.communicate(timeout=600)[0]
    assert again.returncode == 0 and "2 of 2 jobs ok" in printed and printed.count("measured before") == 2, printed
    assert records(driver) == measured


@pytest.mark.slow
def test_a_killed_worker_is_a_failed_job(tmp_path):
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    driver = sweep(tmp_path, "task=sst2,rte", "hydra.launcher.ray.init.num_cpus=2")
    deadline, victims = time.monotonic() + 300, []
    while not victims and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.2)
        workers = psutil.Process(driver.pid).children(recursive=True)
        victims = [worker for worker in workers if worker.is_running() and "ray::job 1" in _title(worker)]
    for worker in victims:
        worker.kill()
    printed = driver.communicate(timeout=600)[0]
    assert victims and driver.returncode == 1 and "1 of 2 jobs ok" in printed, printed
    jobs = job_files(tmp_path)
    assert [job["status"] for job in jobs.values()] == ["ok", "failed"] and "WorkerCrashedError" in jobs[1]["error"]
    assert len(records(tmp_path)) == 2


def _title(process) -> str:
    """The command line of a process, which may be gone by now."""
    try:
        return " ".join(process.cmdline())
    except Exception:
        return ""
