"""The command line: composes the configuration, runs one session, prints its table."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tabi_bench.config import Config, ConfigError, conf_dir, from_dict_config, register
from tabi_bench.sweep import guarded

if TYPE_CHECKING:
    from tabi_bench.records.record import Record

log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `run.py` and `tabi-bench`."""
    _refuse_swept_experiments(sys.argv[1:])
    _refuse_unknown_choices(sys.argv[1:])
    _refuse_ray_without_its_extra(sys.argv[1:])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    register()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(guarded(_job))()
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from what the cache holds\n")
        sys.exit(130)


def _refuse_swept_experiments(arguments: list[str]) -> None:
    """Hydra would silently drop the presets' own sweeps, so that the tables would miss rows."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+~") == "experiment" and ("," in value or "(" in value):
            sys.exit(f"{argument}: presets cannot be swept, their own sweeps would be ignored; run them one by one")


def _refuse_unknown_choices(arguments: list[str]) -> None:
    """Names the choices of a group in one line, before Hydra lists its search path."""
    for argument in arguments:
        group, _, value = argument.partition("=")
        folder = conf_dir() / group
        if not group.isalpha() or not folder.is_dir() or not value.replace(",", "").replace("_", "").isalnum():
            continue
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        for choice in value.split(","):
            if choice not in (*known, "null"):
                sys.exit(f"unknown {group} {choice!r}; there are: {', '.join(known)}")


def _refuse_ray_without_its_extra(arguments: list[str]) -> None:
    if "hydra/launcher=ray" in arguments:
        from tabi_bench.cluster import require_ray

        require_ray()
        # the plugin keeps its own settings under the same name; ours lie on top of them, which Hydra remarks four times
        warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")


def _job(raw: DictConfig) -> list[Record]:
    """One session, or a derived preset. Errors that a person can mend end in one line; others keep their traceback."""
    try:
        config = from_dict_config(raw)
    except (ConfigError, OmegaConfBaseException) as error:
        raise SystemExit(f"configuration: {error}") from None
    logging.captureWarnings(True)
    if config.derive:
        return _derive(config)
    _import_libraries()
    from tabi_bench.experiment import run_session
    from tabi_bench.system import PlanError

    try:
        found = run_session(config)
    except (ValueError, OSError, PlanError) as error:
        if log.isEnabledFor(logging.DEBUG):
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    if found:
        print_summary(found, config)
    return found


def _derive(config: Config) -> list[Record]:
    """A derived preset measures nothing: it draws from the records and profiles below results_dir."""
    from tabi_bench.report.site import rebuild

    try:
        written = rebuild(config.results_dir, only=[config.derive])
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{config.derive}: {error}") from None
    print("\n".join(map(str, written)))
    return []


@cache
def _import_libraries() -> None:
    """Once in a process, before any session: half a million objects that stay, so garbage is not sought among them.

    No bars for reading a file of a few megabytes; downloads and training keep theirs.
    """
    gc.disable()
    import datasets
    import huggingface_hub.utils
    import transformers

    import tabi_bench.experiment  # noqa: F401 - and torch with it

    gc.freeze()
    gc.enable()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.utils.enable_progress_bars()


def print_summary(found: list[Record], config: Config) -> None:
    """A table in a terminal, tab-free aligned text in a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from tabi_bench.summary import COLUMNS, heading, rows, where

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(heading(found), soft_wrap=True)
    table = Table(box=SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(where(found, config), soft_wrap=True)
