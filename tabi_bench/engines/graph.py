"""One CUDA graph per model, length bucket and kind of output: one replay and one synchronisation per query.

A graph holds the copy in, forward pass, probabilities, scores of tokens and the copy out, on static buffers. All graphs
of an engine share one memory pool: they are replayed one at a time, and nothing of one is read after another started.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

import torch

from tabi_bench.config import GraphConfig
from tabi_bench.device import Begun
from tabi_bench.engines.base import Fallback, Output
from tabi_bench.engines.batches import BatchStep, PackedStep, packed_shape, rooms_up_to
from tabi_bench.engines.buffers import Inputs, Outputs, out_of_memory
from tabi_bench.engines.eager import EagerEngine, EagerModel
from tabi_bench.engines.encoding import Encoding
from tabi_bench.engines.loaded import LoadedModel, words_from
from tabi_bench.engines.network import Network
from tabi_bench.zoo.base import ModelSpec

log = logging.getLogger(__name__)
WARMUPS = 3  # calls before a capture: libraries pick their kernels and workspaces


class Step:
    """What one graph records: copy in, forward pass, probabilities, copy out. Plain code until it is captured."""

    def __init__(self, forward: Callable, length: int, scored: bool, device: str, decide: Callable | None = None):
        """decide: as `decided`, which it is by default."""
        self.forward, self.scored, self.decide = forward, scored, decide or decided
        self.inputs, self.outputs = Inputs(length, device), Outputs()
        self.graph: torch.cuda.CUDAGraph  # once it is captured

    @torch.no_grad()
    def __call__(self) -> None:
        self.inputs.copy_in()
        ids, types, keep, content = self.inputs.rows()
        logits, scores, pooled = self.forward(ids, types, keep, content if self.scored else None)
        k, extras = len(logits), {"scores": scores, "pooled": pooled}
        vectors, sizes = [logits], {"logits": k}
        if k > 1:
            vectors, sizes = [self.decide(logits, self.inputs)], {"verdict": 2, "logits": k, "probabilities": k}
        given = {name: part for name, part in extras.items() if part is not None}
        sizes |= {name: len(part) for name, part in given.items()}
        self.outputs.copy_out([*vectors, *given.values()], sizes)

    def output(self, encoding: Encoding) -> Output:
        """The outputs of the last replay, copied out of the buffer."""
        parts = self.outputs.read()
        importance = words_from(parts.get("scores"), encoding)
        verdict = None
        if "verdict" in parts:
            label, largest = parts["verdict"].tolist()
            verdict = int(label), largest
        return Output(parts["logits"], importance, parts.get("pooled"), parts.get("probabilities"), verdict)


def decided(logits: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """(2 + 2K,) label, largest probability (NaN if a logit (K,) is not finite), logits, softmax(logits / T)."""
    probabilities = (logits / inputs.temperature.float()).softmax(-1)
    largest = probabilities.amax(0, keepdim=True) + 0.0 * logits.sum()
    return torch.cat([logits.argmax(0, keepdim=True).float(), largest, logits, probabilities])


def capture(step: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """Warms `step` up on `stream`, then records it there. Raises what the capture raised.

    Matrix libraries keep one workspace per stream: graphs that are to run at the same time need streams of their own.
    """
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUPS):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        step()
    return graph


class Runner:
    """The graphs of one Network. All buckets of a kind (with scores or without) are captured when it is first used,
    the largest first; a bucket that does not fit into memory is left out: its queries run at the next one up, or under
    eager if there is none."""

    def __init__(self, spec: ModelSpec, network: Network, engine: GraphEngine, pool: Any, stream: torch.cuda.Stream):
        self.spec, self.network, self.engine = spec, network, engine
        self.pool, self.stream = pool, stream
        self.failed = False
        self._kinds: dict[bool, tuple[list[int], list[Step]]] = {}
        self._batches: dict[tuple[int, int], BatchStep | None] = {}  # padded, by size and length
        self._scored: dict[tuple[int, int], BatchStep | None] = {}  # the same, with scores of tokens
        self._packed: dict[tuple[int, int], BatchStep | None] = {}  # by room and longest query

    def step(self, n_tokens: int, scored: bool) -> Step | None:
        """The step of the smallest bucket that holds `n_tokens`; None if the model runs under eager."""
        kind = self._kinds.get(scored)
        if kind is None:
            if self.failed:
                return None
            kind = self._capture_kind(scored)
            if kind is None:
                return None
        lengths, steps = kind
        place = bisect_left(lengths, n_tokens)
        return steps[place] if place < len(steps) else None

    def _capture_kind(self, scored: bool) -> tuple[list[int], list[Step]] | None:
        steps: dict[int, Step] = {}
        for length in reversed(self.engine.buckets_of(self.spec)):
            try:
                steps[length] = self._capture(length, scored)
            except Exception as error:  # whatever stops a capture, the model still runs under eager
                if not out_of_memory(error):
                    self._give_up(f"capture at {length} tokens: {type(error).__name__}: {error}")
                    return None
                self.engine.drop_bucket(self.spec, length)
        if not steps:
            self._give_up("no bucket fits into device memory")
            return None
        lengths = sorted(steps)
        self._kinds[scored] = lengths, [steps[length] for length in lengths]
        return self._kinds[scored]

    def _capture(self, length: int, scored: bool) -> Step:
        start = perf_counter()
        self.network.remember_positions(length)
        forward = self.engine.prepare(self.network)
        step = Step(forward, length, scored, self.engine.device, self.engine.decide)
        step.graph = self.engine.record(step, self.pool, self.stream)
        self.engine.stats["capture_s"] += perf_counter() - start
        return step

    def batch_step(self, counts: Sequence[int], scored: bool) -> BatchStep | None:
        """The step of the smallest shape that holds a batch of these token counts.

        None if the model runs under eager, or where a tenth of the device's memory is not free. With a shape that was
        not met before, all smaller ones are captured: none is left to be captured once the largest was seen.
        """
        if self.engine.packs and self.network.packs and not scored:
            room, longest = packed_shape(counts, self.spec.max_length)
            if (room, longest) not in self._packed:
                kinds = {longest, packed_shape([1], self.spec.max_length)[1]}
                for key in [(smaller, kind) for kind in kinds for smaller in rooms_up_to(room)]:
                    self._keep(self._packed, key, partial(PackedStep, self.network, *key))
            return self._packed[room, longest]
        lengths = self.engine.buckets_of(self.spec)
        size, place = 1 << (len(counts) - 1).bit_length(), bisect_left(lengths, max(counts))
        steps = self._scored if scored else self._batches
        if (size, lengths[place]) not in steps:
            for length in reversed(lengths[: place + 1]):
                self._keep(steps, (size, length), partial(BatchStep, self.network, size, length, scored))
        return steps[size, lengths[place]]

    def _keep(self, steps: dict, key: tuple[int, int], make: Callable[[str], BatchStep]) -> None:
        """Captures a step, or None where there is no memory for it, or it cannot be captured."""
        if key not in steps:
            free, total = torch.cuda.mem_get_info()
            steps[key] = None if self.failed or free < total / 10 else self._capture_batch(make, key)

    def _capture_batch(self, make: Callable[[str], BatchStep], key: tuple[int, int]) -> BatchStep | None:
        start = perf_counter()
        self.network.remember_positions(key[1])
        step = make(self.engine.device)
        try:
            step.graph = self.engine.capture_plain(step, self.pool, self.stream)
        except Exception as error:  # whatever stops a capture, the batch still runs under eager
            torch.cuda.empty_cache()
            log.warning("%s: batches of shape %d x %d run under eager: %s", self.spec.name, *key, error)
            return None
        self.engine.stats["capture_s"] += perf_counter() - start
        return step

    def clear(self) -> None:
        """Drops all graphs."""
        for steps in (self._kinds, self._batches, self._scored, self._packed):
            steps.clear()

    def _give_up(self, reason: str) -> None:
        self.failed = True
        self._kinds.clear()
        self.engine.fall_back(self.spec, reason)


class GraphModel(LoadedModel):
    """A handle with its own temperature; weights and graphs are shared with other handles of the same model."""

    def __init__(self, spec: ModelSpec, runner: Runner, engine: GraphEngine):
        super().__init__(spec, engine.encoders)
        self.runner, self.engine, self.network = runner, engine, runner.network
        self._eager = EagerModel(spec, engine.encoders, runner.network, engine.device, engine.padding)

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits and probabilities; importance if the model was loaded with it (a ValueError if not)."""
        if want_importance and self.network.probe is None:
            raise ValueError(
                f"{self.spec.name} was loaded without importance; load it with importance='last' or 'mean'"
            )
        step = self.runner.step(encoding.n_tokens, want_importance)
        if step is None:
            return self._eager.forward(encoding, want_importance)
        self.launch(step, encoding)
        torch.cuda.current_stream().synchronize()
        return step.output(encoding)

    def forward_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> list[Output]:
        """See `Model.forward_batch`: one graph for each power of two and bucket of lengths, or packed."""
        if len(encodings) < 2 or (want_importance and self.network.probe is None):
            return super().forward_batch(encodings, want_importance)
        return self.begin_batch(encodings, want_importance).result()

    def begin_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> Begun[list[Output]]:
        """See `Model.begin_batch`."""
        counts = [encoding.n_tokens for encoding in encodings]
        step = self.runner.batch_step(counts, want_importance)
        if step is None:
            self._eager.set_temperature(self.temperature)
            return self._eager.begin_batch(encodings, want_importance)
        self.engine.padding += [sum(counts), step.room - sum(counts)]
        return step.begin(encodings, self.temperature)

    def launch(self, step: Step, encoding: Encoding) -> None:
        """Fills the step's buffer and replays its graph on the current stream, without waiting."""
        step.inputs.fill(encoding, self.network, self.temperature, step.scored)
        self.engine.count(encoding.n_tokens, step.inputs.length)
        step.graph.replay()


class Concurrent:
    """Several models at the same time, each on its own stream; their graphs have pools and workspaces of their own."""

    def __init__(self, models: Sequence[GraphModel]):
        self.streams = [torch.cuda.Stream() for _ in models]
        self.models = [self._alone(model, stream) for model, stream in zip(models, self.streams, strict=True)]

    @staticmethod
    def _alone(model: LoadedModel, stream: torch.cuda.Stream) -> LoadedModel:
        if not isinstance(model, GraphModel):
            return model  # it runs on the host, while the others run on the device
        runner = Runner(model.spec, model.network, model.engine, torch.cuda.graph_pool_handle(), stream)
        handle = GraphModel(model.spec, runner, model.engine)
        handle.set_temperature(model.temperature)
        return handle

    def forward(self, encodings: Sequence[Encoding]) -> list[Output]:
        """One encoding per model, outputs in the same order."""
        pairs = zip(self.models, encodings, strict=True)
        steps = [model.runner.step(e.n_tokens, False) if isinstance(model, GraphModel) else None for model, e in pairs]
        for model, stream, step, encoding in zip(self.models, self.streams, steps, encodings, strict=True):
            if step is not None and isinstance(model, GraphModel):
                with torch.cuda.stream(stream):
                    model.launch(step, encoding)
        on_host = {
            k: model.forward(encodings[k])
            for k, (model, step) in enumerate(zip(self.models, steps, strict=True))
            if step is None
        }
        for stream in self.streams:
            stream.synchronize()
        return [on_host[k] if step is None else step.output(encodings[k]) for k, step in enumerate(steps)]


class GraphEngine(EagerEngine):
    """Captured forward passes. Needs a CUDA device."""

    name = "graph"
    pads = True
    packs = False  # whether batches are packed, where the network can
    config: GraphConfig
    decide = staticmethod(decided)  # what a graph ends in

    def __init__(self, config: GraphConfig):
        super().__init__(config)
        if not self.device.startswith("cuda"):
            raise ValueError(f"engine={self.name} needs a CUDA device; use engine=eager or engine=onnx on a CPU")
        torch.cuda.set_device(self.device)
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self.stats: dict[str, float] = {"capture_s": 0.0, "graphs": 0, "tokens": 0, "padded": 0}
        self.dropped: list[dict[str, Any]] = []
        self.fallbacks: list[Fallback] = []
        self._runners: dict[int, Runner] = {}

    def prepare(self, forward: Callable) -> Callable:
        """What is captured in place of `forward`: itself here, compiled code in the subclass."""
        return forward

    def record(self, step: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """Captures `step`, after what a subclass does to it first."""
        return self.capture_plain(step, pool, stream)

    def capture_plain(self, step: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """Captures `step` as it is; `stats` counts it."""
        graph = capture(step, pool, stream)
        self.stats["graphs"] += 1
        return graph

    def buckets_of(self, spec: ModelSpec) -> list[int]:
        """Lengths that the model is captured at, ascending; the last is its longest input."""
        return sorted({length for length in self.config.buckets if length < spec.max_length} | {spec.max_length})

    def load_network(self, spec: ModelSpec, network: Network) -> GraphModel:
        """See EagerEngine."""
        if id(network) not in self._runners:
            self._runners[id(network)] = Runner(spec, network, self, self.pool, self.stream)
        return GraphModel(spec, self._runners[id(network)], self)

    def load_segments(self, spec: ModelSpec, ramps: dict[int, Any], instance: str = "") -> Any:
        """See `Engine.load_segments`."""
        from tabi_bench.engines.graph_segments import GraphSegments

        return GraphSegments(spec, self.network(spec, None, False, instance), ramps, self)

    def concurrent(self, models: Sequence[GraphModel]) -> Concurrent:
        """See `Engine.concurrent`."""
        return Concurrent(models)

    def lengths(self, longest: int) -> list[int]:
        """The buckets up to the one that holds `longest` tokens."""
        buckets = sorted(self.config.buckets)
        return [
            *[length for length in buckets if length < longest],
            next((b for b in buckets if b >= longest), longest),
        ]

    def count(self, tokens: int, length: int) -> None:
        """Keeps the books of padding."""
        self.stats["tokens"] += tokens
        self.stats["padded"] += length - tokens

    def drop_bucket(self, spec: ModelSpec, length: int) -> None:
        """Notes a bucket that did not fit into memory."""
        torch.cuda.empty_cache()
        self.dropped.append({"model": spec.name, "length": length})
        log.warning(
            "%s: out of device memory while capturing at %d tokens; the next bucket up (or eager) serves them",
            spec.name,
            length,
        )

    def fall_back(self, spec: ModelSpec, reason: str) -> None:
        """Notes a model that runs under eager."""
        torch.cuda.empty_cache()
        self.fallbacks.append(Fallback(spec.name, reason.splitlines()[0][:300]))
        log.warning("%s runs under eager: %s", spec.name, reason)

    def describe(self) -> dict[str, Any]:
        served = self.stats["tokens"] + self.stats["padded"]
        return super().describe() | {
            "buckets": sorted(self.config.buckets),
            "graphs": int(self.stats["graphs"]),
            "capture_s": round(self.stats["capture_s"], 3),
            "padding_share": self.stats["padded"] / served if served else None,
            "dropped_buckets": self.dropped,
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
        }

    def close(self) -> None:
        """Frees graphs, memory pool and weights. After a driver error only the end of the process frees them."""
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            log.error("the device is lost to this process: %s", str(error).splitlines()[0])
            return
        for runner in self._runners.values():
            runner.clear()
        self._runners.clear()
        super().close()
