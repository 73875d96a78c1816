"""host.c, compiled when it is first needed, for the processor at hand: a fraction of numpy's time.

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

from tabi_bench.engines.rounding import INPUT, Layer, Rounded, aligned
from tabi_bench.zoo.layerless import COMPARED, FILTERS, HIDDEN, KEYS

SOURCE = Path(__file__).with_name("host.c")
# sums in any order, no traps and no errno; NaN and infinity stay what they are, as an answer of NaN must be noticed
FLAGS = ("-O3", "-march=native", "-funroll-loops", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
         "-fno-math-errno")  # fmt: skip
SIZES = {"FILTERS": FILTERS, "KEYS": KEYS, "COMPARED": COMPARED, "HIDDEN": HIDDEN, "INPUT": INPUT}


class Linear(ctypes.Structure):
    """The struct `linear` of host.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_int32) for name in ("rows", "columns")),
    )


class Parameters(ctypes.Structure):
    """The struct `model` of host.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("table", "scale")),
        *((name, Linear) for name in ("hidden", "head")),
        *((name, ctypes.c_void_p) for name in ("ids", "scratch", "features", "outputs")),
        *((name, ctypes.c_float) for name in ("temperature", "sure")),
    )


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled host.c, or None and why there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None, "no C compiler: install one, or name it by CC"
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "host.so"
        command = [
            compiler,
            *FLAGS,
            *(f"-D{name}={size}" for name, size in SIZES.items()),
            "-shared",
            "-fPIC",
            "-o",
            str(built),
            str(SOURCE),
            "-lm",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
            return ctypes.CDLL(str(built)), ""
        except (OSError, subprocess.SubprocessError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            return None, f"{compiler} failed: {lines[0] if lines else error}"


class Compiled:
    """One function of host.c with a model's arrays. Calls write into the same buffers: not safe for concurrent use.

    outputs: (2, K), logits and probabilities until the next call; features: what the head read.
    """

    def __init__(self, compiled: ctypes.CDLL, function: str, table: Rounded, layers: dict[str, Layer], max_length: int):
        """layers: "head" and, for a comparison, "hidden"."""
        n_outputs, n_features = layers["head"].weight.values.shape
        self.features, self.outputs = np.zeros(n_features, np.float32), np.zeros((2, n_outputs), np.float32)
        self._ids = (ctypes.c_int32 * max_length)()
        scratch = (max_length + 12) * max(COMPARED, HIDDEN) + max_length * (max_length // 2 + 4)
        self._kept = (table, layers, aligned((scratch,), np.float32))
        self.parameters = Parameters(
            table=table.values.ctypes.data,
            scale=table.scale.ctypes.data,
            ids=ctypes.addressof(self._ids),
            scratch=self._kept[-1].ctypes.data,
            features=self.features.ctypes.data,
            outputs=self.outputs.ctypes.data,
            temperature=1.0,
            **{name: Linear(*(array.ctypes.data for array in (*layer.weight, layer.bias)), *layer.weight.values.shape)
               for name, layer in layers.items()},
        )  # fmt: skip
        self._function = getattr(compiled, function)
        self._function.restype = ctypes.c_int32
        self._pointer = ctypes.byref(self.parameters)

    def __call__(self, ids: list[int], first: int, length: int) -> int:
        """The likeliest output of `length` token ids, `first` of them of the first text."""
        self._ids[:length] = ids  # type: ignore[assignment]  # a slice takes any sequence of integers
        return self._function(self._pointer, first, length)
