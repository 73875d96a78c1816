"""`torch.compile`d forward passes, captured as CUDA graphs. Compile time is kept apart from latency."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from tabi_bench.config import CompileConfig
from tabi_bench.engines.graph import GraphEngine

TOGETHER = {"combo_kernels": True}  # small kernels that do not wait for each other run as one
# What follows a product is always fused into Triton's: timed alone, as by default, fusions look dearer than they are
AUTOTUNE = {"max_autotune": True, "max_autotune_gemm_backends": "ATEN,TRITON", "benchmark_epilogue_fusion": False}
MANY = {"recompile_limit": 4096, "accumulated_recompile_limit": 65536}  # every bucket of every model is a compilation


class CompileEngine(GraphEngine):
    """Static shapes, one compilation per bucket; what a graph replays cannot recompile."""

    name = "compile"
    config: CompileConfig

    def __init__(self, config: CompileConfig):
        super().__init__(config)
        self.stats |= {"compile_s": 0.0, "compilations": 0, "recompilations": 0}
        self._counted = self._backend  # one object: compiled code is looked up by its backend's identity
        self._kept: list[Callable] = []  # a graph reads the constants of its compiled code: they must outlive it

    def _backend(self, module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        from torch._inductor.compile_fx import compile_fx

        start = perf_counter()
        compiled = compile_fx(module, inputs, config_patches=AUTOTUNE if self.config.autotune else TOGETHER)
        self.stats["compile_s"] += perf_counter() - start
        self.stats["compilations"] += 1
        self._kept.append(compiled)
        return compiled

    def prepare(self, forward: Callable) -> Callable:
        """`forward`, compiled at its first call with each shape."""
        return torch.compile(forward, backend=self._counted, dynamic=False)

    def record(self, step: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """Compiles in a first call, then captures; whatever compiles after that call is a recompilation."""
        with torch._dynamo.config.patch(**MANY):
            step()
            torch.cuda.synchronize()
            before = self.stats["compilations"]
            graph = super().record(step, pool, stream)
        self.stats["recompilations"] += self.stats["compilations"] - before
        return graph

    def describe(self) -> dict[str, Any]:
        names = ("compilations", "recompilations")
        counts = {name: int(self.stats[name]) for name in names}
        return (
            super().describe()
            | counts
            | {"compile_s": round(self.stats["compile_s"], 3), "autotune": self.config.autotune}
        )

    def close(self) -> None:
        """Also forgets the compiled code: a sweep keeps all of its jobs in one process."""
        super().close()
        self._kept.clear()
        torch._dynamo.reset()
