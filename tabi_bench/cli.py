"""The command line: composes the configuration, runs one session, prints its table."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tabi_bench.config import GROUPS, Config, ConfigError, choices, conf_dir, from_dict_config, register

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tabi_bench.records.record import Record

log = logging.getLogger(__name__)
OWN_PACKAGES = ("tabi_bench", "baselines")


def main() -> None:
    """Entry point of `run.py`, `tabi-bench` and `python -m tabi_bench`. Errors end in one line on standard error."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed by the shell: >&-
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know fewer characters than a table has
    full = os.environ.setdefault("HYDRA_FULL_ERROR", "") not in ("", "0")
    try:
        _run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from what the cache holds\n")
        sys.exit(130)
    except BrokenPipeError:
        pass
    except Exception as error:
        if full:
            raise
        sys.exit(_one_line(error))
    finally:
        _flush()


def _flush() -> None:
    """Whoever read our output may be gone (`| head -1`), which is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> None:
    try:
        folders = [conf_dir(), *_own_folders(arguments)]
    except FileNotFoundError:
        sys.exit("the working directory is gone; change to one that exists")
    if {"--help", "-h"} & set(arguments):
        from tabi_bench.usage import short

        print(short(folders))
        return
    sys.argv[1:] = ["--help" if argument == "--help-all" else argument for argument in arguments]
    _refuse_swept_experiments(arguments)
    _refuse_unknown(arguments, folders)
    _refuse_ray_without_its_extra(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it hands errors on, instead of printing pages
    register()
    import hydra

    from tabi_bench.sweep import guarded

    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(guarded(_job))()


def _own_folders(arguments: list[str]) -> list[Path]:
    """Folders with choices of the user's own: --config-dir DIR and hydra.searchpath=[DIR,...]."""
    line = "\n".join([*arguments, ""])
    given = re.findall(r"^(?:--config-dir|-cd)[=\n](.*)$", line, re.MULTILINE)
    for listed in re.findall(r"^\+*hydra\.searchpath=\[(.*)\]$", line, re.MULTILINE):
        given += [place for place in listed.split(",") if not place.startswith("pkg:")]
    folders = [Path(place.strip("'\" ").removeprefix("file://")).expanduser().absolute() for place in given]
    for folder in folders:
        if not folder.is_dir():
            sys.exit(f"no folder {folder}; --config-dir holds folders as conf/ does: task, zoo, method, ...")
    Path.cwd()
    return folders


def _refuse_swept_experiments(arguments: list[str]) -> None:
    """Hydra would silently drop the presets' own sweeps, so that the tables would miss rows."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+~") == "experiment" and ("," in value or "(" in value):
            sys.exit(f"{argument}: presets cannot be swept, their own sweeps would be ignored; run them one by one")


def _refuse_unknown(arguments: list[str], folders: list[Path]) -> None:
    """Names what there is in one line, where Hydra would list its search path."""
    groups = {place.name for folder in folders for place in folder.iterdir() if place.is_dir()}
    known = dict.fromkeys([*GROUPS, *Config.__dataclass_fields__, *sorted(groups)])
    for argument in arguments:
        group, _, value = argument.partition("=")
        if not re.fullmatch(r"\w[\w.]*", group) or "=" not in argument or group.startswith("hydra"):
            continue
        if group.partition(".")[0] not in known:
            sys.exit(f"unknown setting {group}; there are: {', '.join(known)}")
        if group in groups and re.fullmatch(r"[\w.,-]*|\[.*", value):
            names = choices(group, folders)
            none = [] if group in GROUPS else ["null"]
            for choice in [value] if value.startswith("[") else value.split(","):
                if choice not in names + none:
                    sys.exit(f"unknown {group} {choice!r}; there are: {', '.join(names)}")


def _refuse_ray_without_its_extra(arguments: list[str]) -> None:
    if "hydra/launcher=ray" in arguments:
        from tabi_bench.cluster import require_ray

        require_ray()
        # the plugin keeps its own settings under the same name; ours lie on top of them, which Hydra remarks four times
        warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")


def _job(raw: DictConfig) -> list[Record]:
    """One session, or a derived preset. Raises SystemExit with one line for whatever goes wrong."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    try:
        config = from_dict_config(raw, cast(Any, hydra))
        logging.captureWarnings(True)
        if config.derive:
            return _derive(config, list(map(str, hydra.overrides.task)))
        _import_libraries()
        from tabi_bench.experiment import run_session

        results = run_session(config)
        if results:
            _printed(results, config)
        return results
    except Exception as error:
        if log.isEnabledFor(logging.DEBUG):
            raise
        raise SystemExit(_one_line(error, Path(str(hydra.runtime.output_dir)))) from None


def _printed(results: list[Record], config: Config) -> None:
    """The summary, unless nobody reads it any more: a sweep goes on without."""
    try:
        print_summary(results, config)
        sys.stdout.flush()
    except BrokenPipeError:
        _flush()


def _derive(config: Config, overrides: list[str]) -> list[Record]:
    """A derived preset measures nothing: it draws from the records and profiles below results_dir."""
    from tabi_bench.report.site import rebuild

    for override in overrides:
        if override.lstrip("+").partition("=")[0] not in ("experiment", "results_dir"):
            raise ConfigError(f"{override} would not be read: {config.derive} draws from the records of results_dir")
    print("\n".join(map(str, rebuild(config.results_dir, only=[str(config.derive)]))))
    return []


def _one_line(error: Exception, folder: Path | None = None) -> str:
    """What a person can mend, in its own words; what is a bug, with the file in `folder` that holds its traceback."""
    from hydra.errors import HydraException, OverrideParseException

    if isinstance(error, OverrideParseException):
        key, given, _ = error.override.partition("=")
        if not given:
            return f"{error.override!r} is no setting; write key=value, and --help lists the keys"
        return (
            f"{error.override}: the value cannot be read as it stands; put texts with other characters than letters of "
            f'English, digits and /-.:%+@ in quotation marks, as \'{key}="a text"\' or \'{key}=["one","two"]\''
        )
    if isinstance(error, HydraException):
        return "; ".join(filter(None, map(str.strip, f"{error}\n{error.__cause__ or ''}".splitlines())))
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    from tabi_bench.system import NoAnswer, PlanError

    raised_by = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals.get("__name__", "")
    ours = raised_by.partition(".")[0] in OWN_PACKAGES
    if isinstance(error, OSError | PlanError | NoAnswer) or (ours and isinstance(error, ValueError | ImportError)):
        return str(error)
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="traceback-", suffix=".txt", dir=folder, delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"{reason}. This is a bug, here or in code of your own; please report it with {file.name}"


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


def print_summary(results: list[Record], config: Config) -> None:
    """A table in a terminal, tab-free aligned text in a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from tabi_bench.summary import COLUMNS, heading, rows, where

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)
    console.print(heading(results), soft_wrap=True)
    table = Table(box=SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for row in rows(results):
        table.add_row(*row)
    console.print(table)
    console.print(where(results, config), soft_wrap=True)
