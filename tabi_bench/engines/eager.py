"""Plain PyTorch, one call per layer, as the paper's systems ran. Nothing is padded at batch 1, so no mask is passed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tabi_bench.config import EagerConfig, EngineConfig
from tabi_bench.device import Begun, resolve
from tabi_bench.engines.base import Output, Together
from tabi_bench.engines.encoding import Encoders, Encoding, numbers
from tabi_bench.engines.loaded import LoadedModel, outputs_of_batch, padded, words_from
from tabi_bench.engines.network import Network, as_network
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.loading import load_model

if TYPE_CHECKING:
    from tabi_bench.engines.host import HostModel

log = logging.getLogger(__name__)
GRID = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class EagerModel(LoadedModel):
    """A Network called as it is."""

    def __init__(
        self, spec: ModelSpec, encoders: Encoders, network: Network, device: str, padding: np.ndarray | None = None
    ):
        """padding: (2,) counts of tokens and of padding in batches, kept by the engine."""
        super().__init__(spec, encoders)
        self.network, self.device = network, device
        self.padding = np.zeros(2, np.int64) if padding is None else padding

    def _row(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values).unsqueeze(0).to(self.device)  # a copy: arrays may be shared

    @torch.inference_mode()
    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, and the words' importance if the model was loaded with it (a ValueError if not)."""
        if want_importance and self.network.probe is None:
            raise ValueError(
                f"{self.spec.name} was loaded without importance; load it with importance='last' or 'mean'"
            )
        types = self._row(numbers(encoding.type_row)) if self.network.typed else None
        content = self._row(encoding.content) if want_importance else None
        logits, scores, pooled = self.network(self._row(numbers(encoding.row)), types, None, content)
        return Output(
            logits=logits.cpu().numpy(),
            importance=words_from(None if scores is None else scores.cpu().numpy(), encoding),
            pooled=None if pooled is None else pooled.cpu().numpy(),
        )

    def forward_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> list[Output]:
        """See `Model.forward_batch`: padded to the longest, and masked where anything is padded."""
        if len(encodings) < 2 or (want_importance and self.network.probe is None):
            return super().forward_batch(encodings, want_importance)
        return self.begin_batch(encodings, want_importance).result()

    @torch.inference_mode()
    def begin_batch(self, encodings: Sequence[Encoding], want_importance: bool = False) -> Begun[list[Output]]:
        """See `Model.begin_batch`."""
        tokens = [encoding.n_tokens for encoding in encodings]
        rows = padded(encodings, self.network.pad, len(encodings), max(tokens), want_importance)
        self.padding += [sum(tokens), rows[0].size - sum(tokens)]
        ids, types, keep, content = torch.from_numpy(rows).to(self.device)
        results = self.network.batch(
            ids,
            types if self.network.typed else None,
            None if min(tokens) == max(tokens) else keep,
            content if want_importance else None,
        )
        read = [None if one is None else one.to("cpu", non_blocking=True) for one in results]

        def result() -> list[Output]:
            logits, *others = (None if one is None else one.numpy() for one in read)
            assert logits is not None
            return outputs_of_batch(encodings, self.temperature, logits, *others)

        return Begun.of(result, ids.is_cuda)


class EagerEngine:
    """Loads each model once per (weights, importance, pooled); a second `load` shares its weights."""

    name = "eager"
    pads = False

    def __init__(self, config: EngineConfig):
        self.config = config
        self.device = resolve(config.device)
        self.dtype = config.dtype
        if config.dtype == "auto":
            self.dtype = "float16" if self.device.startswith("cuda") else "float32"
        self.read = load_model  # where models come from; the bench draws weights that are on no disk
        self._networks: dict[tuple, Network] = {}
        self._hosted: dict[tuple[str, str], HostModel] = {}  # models without layers, by content and instance
        self.encoders = Encoders()
        self.padding = np.zeros(2, np.int64)  # tokens, and padding beside them, in batches
        self.loads: dict[str, dict[str, float]] = {}  # by model on the device
        self._set_threads()  # already now: models may be trained before the first one is loaded

    def _set_threads(self) -> None:
        """Threads are a setting of the process: another engine may have changed them."""
        if isinstance(self.config, EagerConfig) and self.config.threads and self.device == "cpu":
            torch.set_num_threads(self.config.threads)

    def network(self, spec: ModelSpec, importance: str | None, pooled: bool, instance: str = "") -> Network:
        """The model's Network on this engine's device, loaded at first use.

        A load without importance shares a Network loaded with it. Another instance is built as the first one was, with
        or without a probe, or the two would differ in more than where they lie.
        """
        self._set_threads()
        model = (spec.content_hash, spec.label_order, spec.scale, spec.max_length, pooled)
        options = (importance,) if importance else (None, "last", "mean")
        built, first = (
            [option for option in options if (*model, place, option) in self._networks] for place in (instance, "")
        )
        if built:
            return self._networks[*model, instance, built[0]]
        importance = first[0] if first else importance
        start, dtype = perf_counter(), getattr(torch, self.dtype)
        network = as_network(self.read(spec, dtype, self.device), importance, pooled, self.config.fuse_qkv)
        size = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
        facts = {"load_s": perf_counter() - start, "weights_mb": size / 1e6}
        self.loads.setdefault(spec.name, facts)  # the first load counts: later ones find files and code in memory
        self._networks[*model, instance, importance] = network
        return network

    def load(
        self, spec: ModelSpec, *, importance: str | None = None, pooled: bool = False, instance: str = ""
    ) -> LoadedModel:
        """See `Engine.load`. A model without layers runs on the host."""
        if spec.layers == 0:
            return self.on_host(spec, instance)
        return self.load_network(spec, self.network(spec, importance, pooled, instance))

    def load_network(self, spec: ModelSpec, network: Network) -> LoadedModel:
        """The model as this engine runs it."""
        return EagerModel(spec, self.encoders, network, self.device, self.padding)

    def on_host(self, spec: ModelSpec, instance: str = "") -> HostModel:
        """A handle with its own temperature on the weights of a model without layers."""
        from tabi_bench.engines.host import HostModel

        key = spec.content_hash, instance
        if key not in self._hosted:
            self._hosted[key] = HostModel(spec, self.encoders)
        return copy(self._hosted[key])

    def load_segments(self, spec: ModelSpec, ramps: dict[int, Any], instance: str = "") -> Any:
        """See `Engine.load_segments`."""
        from tabi_bench.engines.segments import EagerSegments

        return EagerSegments(spec, self.encoders, self.network(spec, None, False, instance), ramps, self.device)

    def concurrent(self, models: Sequence[Any]) -> Together | None:
        """Eager models run one after the other."""
        return None

    def lengths(self, longest: int) -> list[int]:
        """A grid up to `longest` tokens, ending there."""
        return [length for length in GRID if length < longest] + [longest]

    def forget_words(self) -> None:
        """See `Engine.forget_words`."""
        self.encoders.forget()

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "device": self.device,
            "dtype": self.dtype,
            "threads": torch.get_num_threads() if self.device == "cpu" else None,
            "fuse_qkv": self.config.fuse_qkv,
            "batch_padding_share": float(self.padding[1] / self.padding.sum()) if self.padding.any() else None,
            "loads": self.loads,
            "on_host": {model.spec.name: model.runs for model in self._hosted.values()},
            "fallbacks": [],
        }

    def close(self) -> None:
        """Frees the weights."""
        self._networks.clear()
        self._hosted.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
