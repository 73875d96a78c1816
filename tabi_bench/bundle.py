"""Packs code, wheels, data and models into one folder, for a machine without a network.

    python -m tabi_bench.bundle DIR --tasks clinc,rte --python 3.12 zoo=encoders source=local source.dir=DATA

Models are trained or fetched as a run would do it; what that leaves in the cache goes along. `manifest.json` holds the
SHA-256 of every file, `--check` compares; `README.txt` says what to type there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException

from tabi_bench.cache import damage, seal
from tabi_bench.config import (
    Config,
    ConfigError,
    CustomZooConfig,
    EncoderConfig,
    EncodersZooConfig,
    LocalConfig,
    ZooConfig,
    compose_config,
    conf_dir,
)

if TYPE_CHECKING:
    from tabi_bench.zoo.base import Zoo

log = logging.getLogger(__name__)
SEALED_AS = "bundle of tabi-bench"  # in the manifest: a bundle may lie under any name
MADE_LATER = (".venv", "site-packages", "outputs", "cache")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SOURCE_ONLY = ("antlr4-python3-runtime",)  # pure Python that the index has no wheel of
TORCH = ("torch", "triton", "nvidia-", "cuda-")  # what a GPU machine often has already
INSTALL = """    python{python} -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links wheels -r requirements.txt
    export PATH=$PWD/.venv/bin:$PATH
"""
# for the Python that has torch, which a new environment would not; dill tells libraries by the name of this folder
BESIDE_TORCH = """    python{python} -m pip install --no-index --no-deps -f wheels -t site-packages -r requirements.txt
    export PYTHONPATH=$PWD/site-packages
"""


def pack(tasks: list[str], overrides: list[str], out: Path, wheels: str | None, with_torch: bool) -> None:
    """Fills the empty folder `out` with what `run.py task=... overrides` needs for each of `tasks`.

    wheels: the Python version to pack wheels for, e.g. "3.12"; None: none.
    """
    configs, commands = [compose_config([f"task={task}", *overrides]) for task in tasks], []
    _copy_code(out)
    for one in configs:
        _copy_data(one, out)
        one = dataclasses.replace(one, zoo=_with_copied_folders(one.zoo, out, Path(one.cache_dir).expanduser()))
        _copy_models(one, out)
        commands.append(_arguments(one, overrides))
    if wheels:
        _download_wheels(out, wheels, with_torch)
    (out / "README.txt").write_text(_instructions(tasks, commands, wheels, with_torch), encoding="utf-8")
    seal(out, SEALED_AS)


def _made_later(path: Path) -> bool:
    """Whether a file may have come into a bundle that was used: environments, results, locks, compiled code.

    What a run adds to the cache is checked when it is read.
    """
    return path.parts[0] in MADE_LATER or bool({"__pycache__", ".locks"} & set(path.parts)) or path.suffix == ".lock"


def _instructions(tasks: list[str], commands: list[str], wheels: str | None, with_torch: bool) -> str:
    """What to type in the unpacked bundle; commands: the arguments of each run."""
    beside_torch = bool(wheels) and not with_torch
    python = f"python{wheels}" if beside_torch else "python"
    install = (BESIDE_TORCH if beside_torch else INSTALL).format(python=wheels) if wheels else ""
    runs = "".join(f"    {python} run.py {command}\n" for command in commands)
    return (
        f"tabi-bench with tasks {', '.join(tasks)}. Nothing here needs a network. In this folder:\n\n{install}"
        f"    export HF_HOME=hub HF_HUB_OFFLINE=1\n    {python} -m tabi_bench.bundle . --check\n{runs}"
    )


def _copy_code(out: Path) -> None:
    """The packages, the configuration, run.py and the lock, as they are here."""
    import baselines
    import tabi_bench
    from tabi_bench.records.provenance import revision

    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package in (tabi_bench, baselines):
        folder = Path(package.__path__[0])
        shutil.copytree(folder, out / folder.name, ignore=ignore)
    launcher = Path("hydra_plugins") / "tabi_bench_ray.py"  # hydra_plugins is shared by all plugins of Hydra
    (out / launcher.parent).mkdir()
    shutil.copy(Path(tabi_bench.__file__).parents[1] / launcher, out / launcher)
    shutil.copytree(conf_dir(), out / "conf", ignore=ignore, dirs_exist_ok=True)
    (out / "run.py").write_text("from tabi_bench.cli import main\n\nmain()\n", encoding="utf-8")
    (out / ".revision").write_text(f"{revision()['commit'] or 'unknown'}\n", encoding="utf-8")
    lock = conf_dir().parent / "requirements.txt"
    if not lock.is_file():
        raise ConfigError(f"no {lock}: bundles are packed in a checkout, which has the lock of all dependencies")
    shutil.copy(lock, out)


def _copy_data(config: Config, out: Path) -> None:
    """source=local: the folders of the task and of those that its ladder is made from.

    Of the hub, the cache is in `out` already; generated data need none.
    """
    from tabi_bench.zoo.ladder import tasks_needed

    if isinstance(config.source, LocalConfig):
        if config.source.dir is None:
            raise ConfigError("a bundle needs source.dir=DIR; put your own files there as <task>/train.csv")
        task = config.task.name
        for name in tasks_needed(config.zoo, task) if isinstance(config.zoo, EncodersZooConfig) else [task]:
            shutil.copytree(Path(config.source.dir).expanduser() / name, out / "data" / name, dirs_exist_ok=True)


def _with_copied_folders(zoo: ZooConfig, out: Path, cache: Path) -> ZooConfig:
    """The zoo's configuration with local folders of models copied to `models/` and named relative to the bundle."""

    def copied(entry: str, name: str = "") -> str:
        folder = Path(entry).expanduser()
        if not folder.is_dir():
            return entry
        shutil.copytree(folder, out / "models" / (name or folder.name), dirs_exist_ok=True)
        return f"models/{name or folder.name}"

    if isinstance(zoo, EncodersZooConfig):
        from tabi_bench.zoo.encoder import encoder_folder

        encoders: dict[str, EncoderConfig | None] = {}
        for name, encoder in zoo.used.items():
            folder = str(encoder_folder(encoder.source, cache))
            encoders[name] = dataclasses.replace(encoder, source=copied(folder, name))
        return dataclasses.replace(zoo, encoders=encoders)
    if isinstance(zoo, CustomZooConfig):
        names = [Path(entry).name for entry in zoo.paths]
        if len(set(names)) < len(names):
            raise ConfigError("zoo.paths: two folders have the same name; rename one, they go side by side")
        return dataclasses.replace(zoo, paths=[copied(entry) for entry in zoo.paths])
    return zoo


def _copy_models(config: Config, out: Path) -> None:
    """Trains or fetches the zoo as a run does, and copies what it left in the cache."""
    from tabi_bench import device
    from tabi_bench.tasks import load_task
    from tabi_bench.zoo import load_zoo

    cache = Path(config.cache_dir).expanduser().absolute()
    source = config.source
    if isinstance(source, LocalConfig) and source.dir is not None:
        source = dataclasses.replace(source, dir=str(Path(source.dir).expanduser().absolute()))
    with contextlib.chdir(out):  # models/ is named relative to the bundle
        task = load_task(config.task, source, config.seed)
        zoo = load_zoo(config.zoo, task, cache, config.seed, device.resolve(config.engine.device))
    for entry in _left_in(cache, config, zoo):
        shutil.copytree(cache / entry, out / "cache" / entry, dirs_exist_ok=True)
        log.info("%s: %s goes along", task.name, entry)


def _left_in(cache: Path, config: Config, zoo: Zoo) -> list[Path]:
    """Folders of the cache, relative to it: of models, of what these were chosen from and started from, of labels."""
    paths = [spec.path.absolute() for spec in zoo.models]
    if isinstance(config.zoo, EncodersZooConfig):
        from tabi_bench.zoo.ladder import tasks_needed

        for name in tasks_needed(config.zoo, config.task.name):
            paths += (cache / "encoders").glob(f"{name}-*")
    entries = {Path(*path.relative_to(cache).parts[:2]) for path in paths if path.is_relative_to(cache)}
    return [entry for entry in sorted({*entries, Path("labels")}) if (cache / entry).is_dir()]


def _arguments(config: Config, overrides: list[str]) -> str:
    """What to type after `run.py` in the unpacked bundle: as it was given here, with the places in the bundle."""
    zoo = config.zoo
    data = "data" if isinstance(config.source, LocalConfig) else None
    places = {"source.dir": data, "cache_dir": "cache", "results_dir": None}
    if isinstance(zoo, EncodersZooConfig):
        places |= {f"zoo.encoders.{name}.source": encoder.source for name, encoder in zoo.used.items()}
    places["zoo.paths"] = f"[{','.join(zoo.paths)}]" if isinstance(zoo, CustomZooConfig) else None
    kept = [override for override in overrides if override.split("=")[0] not in places]
    moved = [f"{key}={value}" for key, value in places.items() if value]
    return shlex.join([f"task={config.task.name}", *kept, *moved])


def _download_wheels(out: Path, python: str, with_torch: bool) -> None:
    """The lock's wheels for another Python, through pip, and requirements.txt cut to them."""
    lines = [line for line in (out / "requirements.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    chosen = [line for line in lines if with_torch or not line.startswith(TORCH)]
    (out / "requirements.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip"]
    binary = [line for line in chosen if not line.startswith(SOURCE_ONLY)]
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    options += [] if with_torch else ["--no-deps"]
    subprocess.run([*pip, "download", "-q", *options, "-d", str(out / "wheels"), *binary], check=True)
    source = [line for line in chosen if line.startswith(SOURCE_ONLY)]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(out / "wheels"), *source], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.bundle", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to make; with --check: to compare with its manifest")
    parser.add_argument("--tasks", default="mnli", help="comma-separated, e.g. clinc,rte")
    parser.add_argument("--python", default=f"3.{sys.version_info.minor}", help="Python to pack wheels for")
    parser.add_argument("--no-wheels", action="store_true", help="the machine has all dependencies")
    parser.add_argument("--no-torch", action="store_true", help="the machine has torch; its wheels are gigabytes")
    parser.add_argument("--check", action="store_true", help="compare every file of `out` with the manifest")
    parser.add_argument("overrides", nargs="*", help="key=value as for run.py: source=..., zoo=..., seed=...")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Packs a bundle, or checks one."""
    arguments = _parser().parse_intermixed_args(argv)
    out = arguments.out.absolute()
    if arguments.check:
        reason = damage(out, SEALED_AS, _made_later)
        raise SystemExit(f"{out}: {reason}; pack or copy it again" if reason else 0)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if out.exists():
        raise SystemExit(f"{out} is there already; name a new folder")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    os.environ["HF_HOME"] = str(partial / "hub")  # before the hub's client is imported: what it fetches is packed
    wheels = None if arguments.no_wheels else arguments.python
    try:
        partial.mkdir(parents=True)
        pack(arguments.tasks.split(","), arguments.overrides, partial, wheels, not arguments.no_torch)
        partial.rename(out)
    except (ValueError, OSError, HydraException, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"packed {sum(file.stat().st_size for file in out.rglob('*') if file.is_file()) / 2**20:.0f} MiB: {out}")


if __name__ == "__main__":
    main()
