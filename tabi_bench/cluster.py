"""The jobs of a sweep on a Ray cluster (hydra/launcher=ray; knobs in conf/hydra/launcher/ray.yaml, docs/SWEEPS.md).

hydra-ray-launcher starts Ray and runs a job in its worker. This adds what a sweep here promises: workers stand in the
driver's folder, a worker that dies does not end the sweep, progress is told as jobs end, and each job gets a GPU where
there is one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from tabi_bench.sweep import lost, number_of_jobs, progress, read_jobs

if TYPE_CHECKING:
    from hydra_plugins.tabi_bench_ray import RayLauncher

log = logging.getLogger(__name__)
OWN_CLUSTER = ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard")  # a running cluster refuses them
CARRIED = ("TABI_BENCH_", "HF_", "TOKENIZERS_")  # variables that jobs read; workers elsewhere have their own
LAST_LINES_S = 1.0  # what workers print arrives by way of files that Ray reads a few times a second


def require_ray() -> None:
    """Ends in one line where hydra/launcher=ray is chosen without its extra."""
    if not (find_spec("ray") and find_spec("hydra_plugins.hydra_ray_launcher")):
        sys.exit("hydra/launcher=ray needs Ray: pip install 'tabi-bench[ray]' (in a checkout: pip install '.[ray]')")


# --- in the worker ----------------------------------------------------------------------------------------------------


@dataclass
class Here:
    """What a worker takes over from the process that started the sweep."""

    folder: str = field(default_factory=os.getcwd)
    arguments: list[str] = field(default_factory=lambda: list(sys.argv))
    variables: dict[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith(CARRIED)}
    )

    def enter(self) -> None:
        """Relative paths, the command in the records and the place of the cache are then those of the driver."""
        if not Path(self.folder).is_dir():
            raise FileNotFoundError(f"{os.uname().nodename} has no folder {self.folder}; all hosts must share it")
        os.chdir(self.folder)
        sys.argv = list(self.arguments)
        os.environ.update(self.variables)


def run_in_worker(here: Here, **job: Any) -> JobReturn:
    """One job, with Hydra's callbacks around it."""
    from hydra_plugins.hydra_ray_launcher._launcher_util import _run_job

    here.enter()
    return _run_job(**job)


# --- in the driver ----------------------------------------------------------------------------------------------------


def launch(launcher: RayLauncher, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Hands all jobs to Ray at once, which runs as many at a time as it has GPUs (or cores), and waits for them."""
    setup_globals()
    configure_log(launcher.config.hydra.job_logging, launcher.config.hydra.verbose)
    start(launcher.options.init)
    configs = [_config(launcher, first + i, overrides) for i, overrides in enumerate(job_overrides)]
    total = number_of_jobs(launcher.config)
    ended = _collect({_submit(launcher, config): config for config in configs}, total)
    time.sleep(LAST_LINES_S)
    return [ended[config.hydra.job.num] for config in configs]


def start(init: DictConfig) -> None:
    """Starts a cluster of this machine, or joins the one at `address`."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else like lines of several workers are printed once
    os.environ.setdefault("RAY_COLOR_PREFIX", str(int(sys.stdout.isatty())))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

    options = _plain(init)
    joins = options.get("address") not in (None, "local")
    options = {k: v for k, v in options.items() if v is not None and not (joins and k in OWN_CLUSTER)}
    start_ray(OmegaConf.create(options))


def resources(remote: DictConfig, device: str, cluster: dict[str, float]) -> dict[str, Any]:
    """What one job asks of Ray: a GPU, unless the cluster has none or the job does without."""
    wanted = {k: v for k, v in _plain(remote).items() if v is not None}
    return {"num_gpus": int(device != "cpu" and cluster.get("GPU", 0) >= 1)} | wanted


def _plain(settings: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))


def _config(launcher: RayLauncher, number: int, overrides: Sequence[str]) -> DictConfig:
    config = launcher.context.config_loader.load_sweep_config(launcher.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = f"ray-{number}", number
    return config


def _submit(launcher: RayLauncher, config: DictConfig) -> Any:
    """Ray's reference to what the job will return."""
    import ray

    wanted = resources(launcher.options.remote, config.engine.device, ray.cluster_resources())
    job = ray.remote(run_in_worker).options(name=f"job {config.hydra.job.num}", **wanted)
    return job.remote(
        Here(),
        hydra_context=launcher.context,
        sweep_config=config,
        task_function=launcher.task_function,
        singleton_state=Singleton.get_state(),
    )


def _collect(jobs: dict[Any, DictConfig], total: int) -> dict[int, JobReturn]:
    """What the jobs returned, by number; of a worker that died, the reason, as `sweep.guarded` returns a failure."""
    import ray

    ended, waiting = {}, list(jobs)
    while waiting:
        (reference,), waiting = ray.wait(waiting, num_returns=1)
        hydra = jobs[reference].hydra
        folder = Path(hydra.sweep.dir) / str(hydra.sweep.subdir)
        try:
            ended[hydra.job.num] = ray.get(reference)
        except ray.exceptions.RayError as error:
            log.error("job %s: %s", hydra.job.num, reason(error))
            lost(folder, " ".join(hydra.overrides.task), reason(error))
            ended[hydra.job.num] = JobReturn(_return_value=reason(error), status=JobStatus.COMPLETED)
        log.info("job %s ended (%s)", hydra.job.num, progress(read_jobs(folder.parent), total))
    return ended


def reason(error: Exception) -> str:
    """Ray's errors run over pages: their cause, or their first line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {next(iter(str(cause).strip().splitlines()), '')}"
