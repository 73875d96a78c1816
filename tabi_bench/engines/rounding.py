"""Arrays in 16 bits with factors in 32: half the bytes to fetch, in steps that each column (or row) chooses.

Integers: more precise here than float16 or bfloat16, and their products are vector instructions anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

VERSION = 1  # of what a model on the host says: outputs cached under another one are not read
LARGEST = 2**15 - 1
INPUT = 2**12 - 1  # steps of the largest input of a layer
LINE = 64  # bytes that a processor's caches fetch at a time


class Rounded(NamedTuple):
    """values: int16; scale: float32, against which they broadcast. An array that is not finite stays as it is."""

    values: np.ndarray
    scale: np.ndarray

    @property
    def exact(self) -> bool:
        """Whether nothing was rounded, since 16 bits have no NaN."""
        return self.values.dtype != np.int16


def scale_of(array: np.ndarray, axis: int, largest: int = LARGEST) -> np.ndarray:
    """The step, along `axis`, in which no value of `array` is beyond `largest` steps."""
    most = np.abs(array).max(axis, keepdims=True) / np.float32(largest)
    return np.where(most > 0, most, np.float32(1))


def rounded(array: np.ndarray, scale: np.ndarray) -> Rounded:
    """`array` (float32, overwritten) in steps of `scale`."""
    if not np.isfinite(array).all():
        return Rounded(array, np.ones_like(scale))
    array /= scale
    values = aligned(array.shape, np.int16)
    np.copyto(values, np.rint(array, out=array), casting="unsafe")
    return Rounded(values, scale)


def aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros from the beginning of a line on. Large arrays get large pages where the system gives numpy some."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Layer:
    """A linear layer: weight (rows, columns) with a factor for each row, bias (rows,) float32."""

    weight: Rounded
    bias: np.ndarray

    @cached_property
    def _weight(self) -> np.ndarray:
        return self.weight.values * self.weight.scale  # float32, made where there is no compiler

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(rows,) of x (columns,), rounded as host.c does."""
        if not self.weight.exact:
            step = np.abs(x).max() / np.float32(INPUT)
            with np.errstate(invalid="ignore"):  # an overflow before is NaN from here on
                x = np.floor(x * (1 / step if step > 0 else step) + np.float32(0.5)) * step
        return self._weight @ x + self.bias


def rounded_layer(weight: np.ndarray, bias: np.ndarray) -> Layer:
    """Each row in such steps that no product with inputs of up to INPUT steps leaves 32 bits."""
    largest_sum = (2**31 - 1) // INPUT - weight.shape[1]
    step = np.maximum(scale_of(weight, 1), np.abs(weight).sum(1, keepdims=True) / np.float32(largest_sum))
    return Layer(rounded(weight.copy(), step), bias)
