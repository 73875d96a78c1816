"""What Hydra finds under hydra/launcher=ray.

It looks for launchers in the namespace `hydra_plugins` only, and executes each file there at every start: so the story
is told in tabi_bench/cluster.py, which imports Ray when jobs are launched.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Runs the jobs of a sweep on a Ray cluster; `ray` holds the knobs of conf/hydra/launcher/ray.yaml."""

    def __init__(self, ray: DictConfig) -> None:
        from tabi_bench.cluster import require_ray

        require_ray()
        self.options = ray

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from tabi_bench.cluster import launch

        return launch(self, job_overrides, initial_job_idx)
