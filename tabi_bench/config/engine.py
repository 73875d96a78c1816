"""Schema of conf/engine: how one model runs one query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabi_bench.config.fields import Choice, among, number, text

if TYPE_CHECKING:
    from tabi_bench.config.session import Config


@dataclass
class EngineConfig(Choice):
    """Base of every engine. `code` makes an Engine of its options."""

    device: str = field(metadata=text(r"auto|cpu|cuda(:\d+)?", "choose auto, cpu or cuda:N"))  # auto: a GPU if any
    dtype: str = field(metadata=among("auto", "float32", "float16", "bfloat16"))  # auto: float16 on a GPU, else float32
    fuse_qkv: bool  # one matrix product instead of three in each attention layer

    @property
    def adds_int8(self) -> bool:
        """Whether every model of the zoo is there in int8 too, as a model of its own."""
        return False


@dataclass
class EagerConfig(EngineConfig):
    """Plain PyTorch."""

    # CPU threads of one forward pass; None: torch's own choice
    threads: int | None = field(metadata=number(least=1, most=1024))

    def unread(self, config: Config) -> dict[str, str]:
        return {"engine.threads": "they are threads of the CPU"} if self.device.startswith("cuda") else {}


@dataclass
class GraphConfig(EngineConfig):
    """CUDA graphs, and the base of what is built on them."""

    device: str = field(metadata=text(r"auto|cuda(:\d+)?", "CUDA graphs need a GPU: auto, cuda:N, or engine=eager"))
    buckets: list[int] = field(metadata=number(least=1))  # lengths that a query is padded to


@dataclass
class FusedConfig(GraphConfig):
    """CUDA graphs of our own kernels."""

    pack: bool  # batches without padding between queries


@dataclass
class CompileConfig(GraphConfig):
    """torch.compile, then CUDA graphs."""

    autotune: bool  # also time Triton's matrix products, a minute more; what wins is partly luck


@dataclass
class OnnxConfig(EngineConfig):
    """ONNX Runtime."""

    device: str = field(metadata=among("auto", "cpu"))
    dtype: str = field(metadata=among("auto", "float32"))
    # of one forward pass; None: every core this process may use
    threads: int | None = field(metadata=number(least=1, most=1024))
    quantize: bool  # dynamic int8
    variants: bool  # every model in float32 and in int8, as two models
    cache_dir: str  # where exported models are kept

    def unread(self, config: Config) -> dict[str, str]:
        return {"engine.variants": "engine.quantize=true has every model in int8 alone"} if self.quantize else {}

    @property
    def adds_int8(self) -> bool:
        return self.variants
