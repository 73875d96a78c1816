"""ONNX Runtime on the CPU: models exported once and cached, float32 or with weights in dynamic int8.

Needs the extra `onnx`. One query is never padded; batches are, under a
mask, in a session of their own. Importance is a second output.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tabi_bench.cache import cached, content_key
from tabi_bench.config import OnnxConfig
from tabi_bench.engines.base import Fallback, Output
from tabi_bench.engines.eager import EagerEngine, EagerModel
from tabi_bench.engines.encoding import Encoding, numbers
from tabi_bench.engines.loaded import LoadedModel, outputs_of_batch, padded, words_from
from tabi_bench.engines.network import Network
from tabi_bench.zoo.base import ModelSpec

log = logging.getLogger(__name__)
OPSET = 17
EXAMPLE = 7  # tokens of the example that the export traces


class Exported(torch.nn.Module):
    """A Network with positional inputs and only the outputs that it has, as the exporter wants it."""

    def __init__(self, network: Network, scored: bool, batched: bool):
        super().__init__()
        self.network = network
        self.run = network.batch if batched else network
        self.inputs = ["ids"] + ["types"] * network.typed + ["keep"] * batched + ["content"] * scored

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.inputs, inputs, strict=True))
        outputs = self.run(given["ids"], given.get("types"), given.get("keep"), given.get("content"))
        return tuple(output for output in outputs if output is not None)


def export(network: Network, scored: bool, batched: bool, file: Path) -> None:
    """Writes `network` as ONNX with a free length, for one query or for batches of any size."""
    module = Exported(network, scored, batched)
    names = ["logits"] + ["scores"] * scored + ["pooled"] * network.keeps_pooled
    example = tuple(torch.ones(1 + batched, EXAMPLE, dtype=torch.int64) for _ in module.inputs)
    if batched:
        axes = {name: {0: "batch", 1: "length"} for name in [*module.inputs, *["scores"] * scored]}
        axes |= {name: {0: "batch"} for name in names if name != "scores"}
    else:
        axes = {name: {1: "length"} for name in module.inputs} | ({"scores": {0: "length"}} if scored else {})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: about sizes that are indeed constant
        torch.onnx.export(
            module,
            example,
            str(file),
            input_names=module.inputs,
            output_names=names,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def quantize(source: Path, target: Path) -> None:
    """Weights of matrix products as int8 per channel, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    narrow, root = not has_int8_products(), logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it logs a line per tensor there, and advice
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=narrow)
    finally:
        root.setLevel(level)


def has_int8_products() -> bool:
    """Whether the processor sums int8 products in 32 bits. Without that, sums of 8-bit weights saturate at 16 bits:
    weights then get 7 bits, as ONNX Runtime's documentation advises for AVX2."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_vnni", "avx_vnni", "asimddp"))


class OnnxModel(LoadedModel):
    """One session per kind of output, made at first use."""

    def __init__(self, spec: ModelSpec, network: Network, engine: OnnxEngine):
        super().__init__(spec, engine.encoders)
        self.network, self.engine = network, engine
        self._eager = EagerModel(spec, engine.encoders, network, "cpu")

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits; importance if the model was loaded with it (a ValueError if not)."""
        if want_importance and self.network.probe is None:
            raise ValueError(
                f"{self.spec.name} was loaded without importance; load it with importance='last' or 'mean'"
            )
        session = self.engine.session(self.spec, self.network, want_importance)
        if session is None:
            return self._eager.forward(encoding, want_importance)
        feeds = {"ids": numbers(encoding.row)[None]}
        if self.network.typed:
            feeds["types"] = numbers(encoding.type_row)[None]
        if want_importance:
            feeds["content"] = encoding.content[None]
        logits, *others = session.run(None, feeds)
        scores = others.pop(0) if want_importance else None
        return Output(logits, words_from(scores, encoding), others[0] if others else None)

    def forward_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> list[Output]:
        """See `Model.forward_batch`: padded to the longest."""
        if len(encodings) < 2 or (want_importance and self.network.probe is None):
            return super().forward_batch(encodings, want_importance)
        session = self.engine.session(self.spec, self.network, want_importance, batched=True)
        if session is None:
            return self._eager.forward_batch(encodings, want_importance)
        tokens = [encoding.n_tokens for encoding in encodings]
        rows = padded(encodings, self.network.pad, len(encodings), max(tokens), want_importance)
        self.engine.padding += [sum(tokens), rows[0].size - sum(tokens)]
        feeds = {"ids": rows[0], "keep": rows[2]}
        if self.network.typed:
            feeds["types"] = rows[1]
        if want_importance:
            feeds["content"] = rows[3]
        logits, *others = session.run(None, feeds)
        scores = others.pop(0) if want_importance else None
        return outputs_of_batch(encodings, self.temperature, logits, scores, others[0] if others else None)


class OnnxEngine(EagerEngine):
    """Runs on the CPU, whatever else the machine has."""

    name = "onnx"
    config: OnnxConfig

    def __init__(self, config: OnnxConfig):
        try:
            import onnx  # noqa: F401 - the exporter needs it
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"engine=onnx needs {error.name}: pip install 'tabi-bench[onnx]'") from error
        super().__init__(replace(config, device="cpu", dtype="float32"))
        self._runtime = onnxruntime
        self.threads = config.threads or len(os.sched_getaffinity(0))
        self.export_s = 0.0
        self.fallbacks: list[Fallback] = []
        self._sessions: dict[tuple[int, bool, bool], Any] = {}
        if config.quantize:
            self.dtype = "int8"

    def network(self, spec: ModelSpec, importance: str | None, pooled: bool, instance: str = "") -> Network:
        """See EagerEngine; weights are float32 until they are exported."""
        chosen, self.dtype = self.dtype, "float32"
        try:
            return super().network(spec, importance, pooled, instance)
        finally:
            self.dtype = chosen

    def load_network(self, spec: ModelSpec, network: Network) -> OnnxModel:
        """See EagerEngine."""
        return OnnxModel(spec, network, self)

    def session(self, spec: ModelSpec, network: Network, scored: bool, batched: bool = False) -> Any | None:
        """The session of one kind of output; None if the model cannot be exported and runs under eager."""
        key = (id(network), scored, batched)
        if key not in self._sessions:
            start = perf_counter()
            try:
                file = self._exported(spec, network, scored, batched)
                self._sessions[key] = self._open(file)
            except Exception as error:  # whatever the exporter meets, the model still runs under eager
                reason = f"export: {type(error).__name__}: {error}"
                self.fallbacks.append(Fallback(spec.name, reason.splitlines()[0][:300]))
                log.warning("%s runs under eager: %s", spec.name, reason)
                self._sessions[key] = None
            else:
                self.loads[spec.name]["weights_mb"] = file.stat().st_size / 1e6  # in int8 a quarter of what was read
            self.export_s += perf_counter() - start
        return self._sessions[key]

    def _exported(self, spec: ModelSpec, network: Network, scored: bool, batched: bool) -> Path:
        narrow = self.config.quantize or spec.int8
        kinds = [
            network.probe.option if scored and network.probe is not None else None,
            network.keeps_pooled,
            self.config.fuse_qkv,
            narrow and ("int8", has_int8_products()),
            *["batched"] * batched,
        ]
        versions = [torch.__version__, self._runtime.__version__, OPSET]
        key = content_key(spec.content_hash, spec.label_order, spec.scale, kinds, versions)

        def build(folder: Path) -> None:
            whole = folder / "model.onnx"
            export(network, scored, batched, whole)
            if narrow:
                whole.rename(folder / "whole.onnx")
                quantize(folder / "whole.onnx", whole)
                (folder / "whole.onnx").unlink()

        return cached(Path(self.config.cache_dir) / "onnx" / key, build) / "model.onnx"

    def _open(self, file: Path) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # else its threads disturb the next model
        return self._runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def load_segments(self, spec: ModelSpec, ramps: dict[int, Any], instance: str = "") -> Any:
        """Segments are not exported: they run under eager, and `describe` says so."""
        self.fallbacks.append(Fallback(spec.name, "a model in segments is not exported"))
        return super().load_segments(spec, ramps, instance)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "threads": self.threads,
            "quantize": self.config.quantize,
            "variants": self.config.variants,
            "onnxruntime": self._runtime.__version__,
            "export_s": round(self.export_s, 3),
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
        }

    def close(self) -> None:
        """Frees sessions and weights."""
        self._sessions.clear()
        super().close()
