"""The device that is measured: its name, its lock, its energy counter."""

from __future__ import annotations

import gc
import os
import platform
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from tabi_bench.cache import locked

T = TypeVar("T")


def resolve(device: str) -> str:
    """ "auto" becomes "cuda:0" where there is one, else "cpu". An absent device is a ValueError."""
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            raise ValueError(f"engine.device={device}: this machine has {count} CUDA device(s); use engine.device=cpu")
        return f"cuda:{index}"
    if device != "cpu":
        raise ValueError(f"engine.device={device!r}: choose auto, cpu or cuda:N")
    return device


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache
def _nvml(device: str) -> Any | None:
    """NVML's handle of a CUDA device by UUID (indices may differ under CUDA_VISIBLE_DEVICES), or None."""
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None


def describe(device: str) -> dict[str, Any]:
    """Name, UUID or host, driver and power limit (W) of a device; what is not known is None."""
    if device == "cpu":
        cores = len(os.sched_getaffinity(0))
        return {"kind": "cpu", "name": f"{_cpu_name()}, {cores} cores", "id": socket.gethostname(), "cores": cores}
    import pynvml
    import torch

    properties = torch.cuda.get_device_properties(device)
    facts: dict[str, Any] = {"kind": "cuda", "name": properties.name, "id": f"GPU-{properties.uuid}"}
    handle = _nvml(device)
    if handle is not None:
        facts["driver"] = pynvml.nvmlSystemGetDriverVersion()
        facts["power_limit_w"] = pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
    return facts


def joules(device: str) -> float | None:
    """The device's energy counter in joules since the driver loaded, or None where there is none."""
    if device == "cpu":
        return rapl_joules()
    import pynvml

    try:
        handle = _nvml(device)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 if handle is not None else None
    except pynvml.NVMLError:
        return None


def rapl_joules(root: Path = Path("/sys/class/powercap")) -> float | None:
    """Joules of all processor packages by Intel's RAPL counters; None where there are none that may be read."""
    try:
        packages = [path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1]
        counters = [int((path / "energy_uj").read_text(encoding="utf-8")) for path in packages]
    except (OSError, ValueError):
        return None
    return sum(counters) / 1e6 if counters else None


def difference(before: float | None, after: float | None) -> float:
    """Joules between two readings; NaN without a counter, or where it began anew."""
    return float("nan") if before is None or after is None or after < before else after - before


def idle_watts(device: str, seconds: float = 0.5) -> float | None:
    """Mean power while nothing is asked of the device; None without a counter."""
    before = joules(device)
    if before is None:
        return None
    time.sleep(seconds)
    return difference(before, joules(device)) / seconds


def exclusive(device_id: str) -> AbstractContextManager[None]:
    """One timing at a time per device: holds the lock of this GPU UUID or host, waiting for whoever has it.

    Take it after every cache lock, never before one.
    """
    path = Path(tempfile.gettempdir()) / f"tabi-bench-{device_id}.lock"
    return locked(path, "this device (one timing at a time)", mode=0o666)


@dataclass(slots=True)
class Begun(Generic[T]):
    """What was begun on a device, and goes on while the host does something else.

    result: waits for it and gives what came of it, to be called once; ready: whether it would not wait.
    """

    result: Callable[..., T]
    ready: Callable[[], bool]

    @classmethod
    def done(cls, value: T) -> Begun[T]:
        """What is there already."""
        return cls(lambda *_: value, lambda: True)

    @classmethod
    def of(cls, result: Callable[[], T], on_cuda: bool) -> Begun[T]:
        """What was last sent to the current CUDA stream, and is read by `result` once it is done; or done already."""
        if not on_cuda:
            return cls(result, lambda: True)
        import torch

        event = torch.cuda.current_stream().record_event()

        def wait() -> T:
            event.synchronize()
            return result()

        return cls(wait, event.query)


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Collects garbage before a timed block, and none inside.

    Of the young generations alone: the answers of all blocks before grow old, and need not be walked each time.
    """
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def old_objects_frozen() -> Iterator[None]:
    """What lives by now outlives the block: collections in it, between timed blocks, need not walk it (0.2 s each)."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
