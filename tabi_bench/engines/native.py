"""host.c, compiled when it is first needed, for the processor at hand: a third to a half of numpy's time.

Compiling takes half a second and leaves nothing on disk. Without a C compiler numpy does the work, and the record says
so.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("host.c")
# sums in any order, no traps and no errno; NaN and infinity stay what they are, as an answer of NaN must be noticed
FLAGS = ("-O3", "-march=native", "-funroll-loops", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
         "-fno-math-errno")  # fmt: skip
TABLES = ("before", "at", "after", "keys", "own", "other", "summary")
ARRAYS = (*TABLES, "hidden_weight", "hidden_bias", "head_weight", "head_bias")


class Parameters(ctypes.Structure):
    """The struct `model` of host.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ARRAYS),
        *((name, ctypes.c_int32) for name in ("width", "n_keys", "n_features", "n_outputs")),
        ("temperature", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("ids", "scratch", "features", "logits", "odds")),
        ("total", ctypes.c_float),
        ("sum", ctypes.c_float),
    )


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled host.c, or None and why there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None, "no C compiler: install one, or name it by CC"
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "host.so"
        command = [compiler, *FLAGS, "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            return ctypes.CDLL(str(built)), ""
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            return None, f"{compiler} failed: {said[0] if said else error}"


class Compiled:
    """One function of host.c with a model's arrays (float32, by the names of ARRAYS; absent ones are not read).

    Calls write into the same buffers: not safe for concurrent use.
    """

    def __init__(self, found: ctypes.CDLL, function: str, arrays: dict[str, np.ndarray], max_length: int):
        self._arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        n_outputs, n_features = self._arrays["head_weight"].shape
        tables = [self._arrays[name] for name in TABLES if name in arrays]
        width = tables[-1].shape[1]
        self.features, self.logits, self.odds = (np.zeros(n, np.float32) for n in (n_features, n_outputs, n_outputs))
        self._ids, self._scratch = np.zeros(max_length, np.int64), np.zeros(max_length**2 + 7 * width, np.float32)
        buffers = {"ids": self._ids, "scratch": self._scratch}
        buffers |= {"features": self.features, "logits": self.logits, "odds": self.odds}
        pointers = {name: array.ctypes.data for name, array in (self._arrays | buffers).items()}
        sizes = {"width": width, "n_keys": tables[0].shape[1], "n_features": n_features, "n_outputs": n_outputs}
        self.parameters = Parameters(**pointers, **sizes, temperature=1.0)
        self._function = getattr(found, function)
        self._function.restype = ctypes.c_int32
        self._pointer = ctypes.byref(self.parameters)

    def __call__(self, ids: list[int], *lengths: int, temperature: float) -> int:
        """The likeliest output of L piece ids. The buffers hold logits, odds and features until the next call."""
        self._ids[: len(ids)] = ids
        self.parameters.temperature = temperature
        return self._function(self._pointer, *lengths)
