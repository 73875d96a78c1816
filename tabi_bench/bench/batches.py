"""How near batches come to matrix products: `python -m tabi_bench.bench.batches --models bert-base --batch 128`.

Models are named by shape, with random weights. Each batch of texts of `--length` tokens runs as a CUDA graph (as it is,
and compiled), on a CPU without one; the rate of a large matrix product in the same type is measured beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from tabi_bench import device as devices
from tabi_bench.engines.batches import BatchStep
from tabi_bench.engines.fuse import fuse_projections
from tabi_bench.engines.graph import capture
from tabi_bench.engines.network import Network
from tabi_bench.zoo.families.shapes import SHAPES, random_model

ROUNDS = 20


def seconds(call: Callable[[], object], on: str) -> float:
    """Median of some calls, each waited for."""
    taken = []
    for _ in range(ROUNDS + 3):  # the first three warm up
        start = perf_counter()
        call()
        if on.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(perf_counter() - start)
    return float(np.median(taken[3:]))


def matrix_rate(on: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product."""
    size = 8192 if on.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, dtype=dtype, device=on) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, on)


def operations(network: Network, length: int) -> float:
    """Floating-point operations of the matrix products of one text's forward pass, attention's included."""
    config = network.model.config
    blocks = network.family.blocks(network.model)
    weights = sum(m.weight.numel() for block in blocks for m in block.modules() if isinstance(m, torch.nn.Linear))
    return 2.0 * length * weights + 4.0 * config.num_hidden_layers * length**2 * config.hidden_size


def milliseconds(network: Network, batch: int, length: int, on: str, compiled: bool) -> float:
    """Per text, in a batch of full rows, copies in and out included."""
    step = BatchStep(network, batch, length, False, on)
    step.host[2] = 1
    if compiled:
        step.forward = torch.compile(network.batch, dynamic=False)
    run = step
    if on.startswith("cuda"):
        run = capture(step, torch.cuda.graph_pool_handle(), torch.cuda.Stream()).replay
    return 1e3 * seconds(run, on) / batch


def main(argv: list[str] | None = None) -> None:
    """Prints a line per model, batch and way to run it."""
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.bench.batches", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["minilm-l6", "bert-base"], choices=SHAPES)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compiled", action="store_true", help="also compiled: a minute per model and batch")
    arguments = parser.parse_args(argv)
    on = devices.resolve(arguments.device)
    dtype = torch.float16 if on.startswith("cuda") else torch.float32
    rate = matrix_rate(on, dtype)
    print(f"{devices.describe(on)['name']}, {dtype}: a matrix product runs at {rate / 1e12:.2f} TFLOP/s")
    for name in arguments.models:
        model = random_model(name, dtype, on)
        fuse_projections(model)
        network = Network(model).eval().requires_grad_(False)
        for batch in arguments.batch:
            for compiled in (False, True) if arguments.compiled else (False,):
                ms = milliseconds(network, batch, arguments.length, on, compiled)
                share = operations(network, arguments.length) / (ms / 1e3) / rate
                way = "compiled" if compiled else "plain"
                print(f"{name} {way} batch {batch}: {ms:.4f} ms a text, {share:.0%} of that rate", flush=True)


if __name__ == "__main__":
    main()
