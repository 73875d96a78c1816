"""How near batches come to matrix products: `python -m tabi_bench.bench.batches --models bert-base --batch 128`.

Models are named by shape, with random weights. Each batch of texts of `--length` tokens runs as a CUDA graph (as it is,
by our own kernels, and compiled), on a CPU without one; the rate of a large matrix product in the same type is measured
beside it, and how far the logits are from those of float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
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


def network_of(name: str, way: str, dtype: torch.dtype, on: str) -> Network:
    """A model of a shape as it runs in a batch."""
    model = random_model(name, dtype, on)
    fuse_projections(model)
    network = Network(model).eval().requires_grad_(False)
    if way == "fused":
        from tabi_bench.engines.fused import FusedStages

        network.stages = FusedStages(model, None)
    return network


def measure(network: Network, way: str, shape: tuple[int, int], on: str) -> tuple[float, np.ndarray]:
    """Milliseconds per text in a batch of full rows, copies in and out included, and the logits (B, K)."""
    step = BatchStep(network, *shape, False, on)
    step.hosts[0][0] = torch.randint(5, 20000, shape, generator=torch.Generator().manual_seed(0))
    step.hosts[0][2] = 1
    if way == "compiled":
        step.forward = torch.compile(network.batch, dynamic=False)
    if on.startswith("cuda"):
        step.graph = capture(step, torch.cuda.graph_pool_handle(), torch.cuda.Stream())
    taken = 1e3 * seconds(step.go, on) / shape[0]
    logits = step.go()[0]
    assert logits is not None
    if on.startswith("cuda"):
        torch.cuda.synchronize()
    return taken, logits.numpy().copy()


def main(argv: list[str] | None = None) -> None:
    """Prints a line per model, batch and way to run it."""
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.bench.batches", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["minilm-l6", "bert-base"], choices=SHAPES)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ways", nargs="+", default=["plain"], choices=["plain", "fused", "compiled"])
    arguments = parser.parse_args(argv)
    on = devices.resolve(arguments.device)
    dtype = torch.float16 if on.startswith("cuda") else torch.float32
    rate = matrix_rate(on, dtype)
    print(f"{devices.describe(on)['name']}, {dtype}: a matrix product runs at {rate / 1e12:.2f} TFLOP/s")
    for name, batch in product(arguments.models, arguments.batch):
        shape = batch, arguments.length
        exact = measure(network_of(name, "plain", torch.float32, on), "plain", shape, on)[1]
        for way in arguments.ways:
            network = network_of(name, way, dtype, on)
            ms, logits = measure(network, way, shape, on)
            share = operations(network, arguments.length) / (ms / 1e3) / rate
            off = np.abs(logits - exact).max() / np.abs(exact).max()
            line = f"{ms:.4f} ms a text, {share:.0%} of that rate, logits off by {off:.2%}"
            print(f"{name} {way} batch {batch}: {line}", flush=True)


if __name__ == "__main__":
    main()
