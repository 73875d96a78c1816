"""Sessions and command lines in processes of their own, forked from one that has imported what they need.

To import torch and transformers takes longer than a micro session. What is forked is a process like any other: it can
be killed or interrupted, and shares nothing but files.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tabi_bench.cli", "tabi_bench.experiment", "datasets", "tests.micro"])
SMALL = ["source.train_rows=600", "source.validation_rows=120", "scenario.min_queries=120", "engine.device=cpu"]
SMALL += ["scenario.warmup=4", "scenario.profile_rounds=1"]
FEW = ["source.validation_rows=80", "scenario.min_queries=80", "engine.device=cpu"]  # of what need not train
FEW += ["scenario.warmup=2", "scenario.profile_rounds=1"]


def start(target: Callable[..., None], *arguments, says: Path | None = None, errors: Path | None = None) -> BaseProcess:
    """Runs `target(*arguments)` in the checkout; what it prints goes to the file `says`, and errors to their own if
    there is one."""
    files = [str(file or os.devnull) for file in (says, errors or says)]
    process = FORKS.Process(target=_alone, args=(target, arguments, files, dict(os.environ)))
    process.start()
    return process


def _alone(target: Callable[..., None], arguments: tuple, files: list[str], environment: dict[str, str]) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in enumerate(files, 1):
        with open(file, "a", encoding="utf-8") as stream:
            os.dup2(stream.fileno(), descriptor)
    gc.freeze()  # as in conftest.py: what is imported need not be walked before each timed block
    signal.signal(signal.SIGINT, signal.default_int_handler)
    target(*arguments)


def command_line(*arguments: str) -> None:
    """`python run.py ARGUMENTS` with the micro zoo in place of the tiny one."""
    from tabi_bench import cli, registry

    registry.TABLE["zoo"]["tiny"] = registry.TABLE["zoo"]["tiny"]._replace(code="tests.micro:load")
    sys.argv = ["run.py", *arguments]
    cli.main()


def command_line_without_rights(*arguments: str) -> None:
    """The same by a user whom files can be closed to, which they cannot be to root (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for k in range(3):  # effective, permitted, inheritable
        sets[k] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    command_line(*arguments)


def wait_until(true: Callable[[], object], process: BaseProcess, seconds: float = 120.0) -> None:
    """Waits until `true()`, while the process runs."""
    end = time.monotonic() + seconds
    while not true():
        if not process.is_alive() or time.monotonic() > end:
            process.kill()  # else the tests would wait for it at their end
            raise AssertionError(f"it did not come so far; exit code {process.exitcode}")
        time.sleep(0.05)


def ended(process: BaseProcess, seconds: float = 240.0) -> int | None:
    """The exit code, negative for a signal; None, and it is killed, if it still runs after `seconds`."""
    process.join(seconds)
    code = process.exitcode
    process.kill()
    return code
