"""A model without layers (tabi_bench/zoo/layerless.py): on every engine it runs on the host.

The way to a device and back costs more than its arithmetic. It has no attention between the tokens of a text, so it
tells nothing of the importance of words.

Whatever it multiplies with an embedding depends on the token alone, so that is worked out once for the vocabulary, and
a query takes its tokens' rows of a table: 2 V bytes times 768 (one text) or 704 (two). Tables and weights are rounded
to 16 bits, however it runs; that moves logits by a thousandth of their spread.
"""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from tabi_bench.engines import native
from tabi_bench.engines.base import Output
from tabi_bench.engines.encoding import Encoders, Encoding, numbers
from tabi_bench.engines.loaded import LoadedModel
from tabi_bench.engines.rounding import LARGEST, Layer, Rounded, rounded, rounded_layer, scale_of
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.layerless import COMPARED, FILTERS, HIDDEN, KEYS, SHARPNESS, DecomposableAttention, TextCnn
from tabi_bench.zoo.loading import ModelError, load_model

log = logging.getLogger(__name__)


class HostModel(LoadedModel):
    """Table rows, a few small matrix products and a linear head; compiled (`native`) or, without a compiler, in numpy.

    runs: "compiled", or "numpy: " and why.
    """

    def __init__(self, spec: ModelSpec, encoders: Encoders):
        super().__init__(spec, encoders)
        model = load_model(spec, torch.float32, "cpu")
        if type(model) not in FEATURES:
            known = " or ".join(kind.__name__ for kind in FEATURES)
            raise ModelError(f"{spec.path}: a model without layers must be a {known}")
        last = max(self.encode.tokenizer.get_vocab().values())
        if last >= model.config.vocab_size:
            raise ModelError(
                f"{spec.path}: its tokenizer has token {last}, its embeddings end at {model.config.vocab_size}"
            )
        with torch.no_grad():
            self._features = FEATURES[type(model)](model)
            self._head = _layer(model.classifier)
        self._regression = model.config.num_labels == 1
        self._compiled, self.runs = self._compile()

    def _compile(self) -> tuple[native.Compiled | None, str]:
        library, why = native.library()
        layers = self._features.layers | {"head": self._head}
        if library is not None and not _finite(self._features.table, *layers.values()):
            library, why = None, "weights that are not finite"  # numpy passes NaN on to the logits, 16 bits have none
        if library is None:
            log.warning("%s runs in numpy, at several times the time: %s", self.spec.name, why)
            return None, f"numpy: {why}"
        table, function = self._features.table, self._features.function
        return native.Compiled(library, function, table, layers, self.spec.max_length), "compiled"

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, probabilities and verdict (a regression: score and pooled vector); importance is a ValueError."""
        if want_importance:
            raise ValueError(f"{self.spec.name} has no layers, so no attention to read importance from")
        if self._compiled is None:
            return self.in_numpy(encoding)
        run, ids = self._compiled, encoding.ids
        run.parameters.temperature = self.temperature
        label = run(ids, self._features.first(encoding), len(ids))
        if self._regression:
            return Output(run.outputs[0].copy(), pooled=run.features.copy())
        return HostOutput(run.outputs.copy(), label, run.parameters.sure)

    def in_numpy(self, encoding: Encoding) -> Output:
        """What `forward` says, without compiled code."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is re-routed and counted
            features = self._features(encoding)
            logits = self._head(features)
        if self._regression:
            return Output(logits, pooled=features)
        label = int(logits.argmax())
        odds = np.exp((logits - logits[label]) / np.float32(self.temperature))
        total = odds.sum()
        sure = float(1 / total) if np.isfinite(logits).all() else np.nan
        return Output(logits, probabilities=odds / total, verdict=(label, sure))


class HostOutput(Output):
    """both: (2, K), logits and probabilities, taken apart when asked for: an early return reads the verdict alone."""

    __slots__ = ("_both",)

    def __init__(self, both: np.ndarray, label: int, sure: float):
        self._both, self.verdict = both, (label, sure)
        self.pooled = self.pending = None

    @property
    def logits(self) -> np.ndarray:  # type: ignore[override]  # of an Output nobody sets it
        return self._both[0]

    @property
    def probabilities(self) -> np.ndarray:  # type: ignore[override]
        return self._both[1]


def _layer(layer: torch.nn.Linear) -> Layer:
    return rounded_layer(layer.weight.numpy(), layer.bias.numpy())


def _finite(table: Rounded, *layers: Layer) -> bool:
    rounded_ones = (table, *(layer.weight for layer in layers))
    return not any(one.exact for one in rounded_ones) and all(np.isfinite(layer.bias).all() for layer in layers)


class Convolution:
    """What a TextCnn's head reads. A row of the table: before, at, after, FILTERS each, in the same steps."""

    function = "convolution"  # of host.c

    def __init__(self, model: TextCnn):
        words = model.embed(torch.arange(model.config.vocab_size))
        table = torch.cat([model.before(words), model.at(words), model.after(words)], -1).numpy()
        step = scale_of(table.reshape(-1, FILTERS), 0, LARGEST // 3)  # a sum of three has 16 bits
        self.table = rounded(table, np.tile(step, 3))
        self.layers: dict[str, Layer] = {}

    @staticmethod
    def first(encoding: Encoding) -> int:
        """Tokens of the first text."""
        return encoding.n_tokens

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(2 FILTERS,) means and maxima."""
        rows = self.table.values.take(numbers(encoding.row), 0) * self.table.scale
        before, windows, after = rows[:, :FILTERS], rows[:, FILTERS : 2 * FILTERS], rows[:, 2 * FILTERS :]
        windows[1:] += before[:-1]
        windows[:-1] += after[1:]
        np.maximum(windows, 0, out=windows)
        return np.concatenate((windows.mean(0), windows.max(0)))


class Comparison:
    """What a DecomposableAttention's head reads.

    A row of the table: keys, own, other; what the hidden layer makes of the summary of a token in the first text; the
    summary; and what it makes of it in the second text. That leaves it the other four of its six inputs.
    """

    function = "comparison"

    def __init__(self, model: DecomposableAttention):
        words = model.embed(torch.arange(model.config.vocab_size))
        keys, summary = SHARPNESS**0.5 * F.normalize(model.key(words), dim=-1), model.summary(words)
        a, u, b, v, apart, both = model.hidden.weight.split(COMPARED, 1)
        compared = [keys, model.own(words), model.other(words)]
        table = torch.cat([*compared, summary @ u.T, summary, summary @ v.T], -1).numpy()
        step = scale_of(table, 0)
        step[:, :KEYS] = SHARPNESS**0.5 / 2**14  # a product of two keys has 32 bits
        self.table = rounded(table, step)
        self._hidden = rounded_layer(torch.cat([a, b, apart, both], 1).numpy(), model.hidden.bias.numpy())
        self.layers = {"hidden": self._hidden}
        ends = np.cumsum([0, KEYS, COMPARED, COMPARED, HIDDEN, COMPARED, HIDDEN])
        self._parts = [slice(*pair) for pair in pairwise(ends.tolist())]

    @staticmethod
    def first(encoding: Encoding) -> int:
        """Tokens of the first text."""
        return encoding.type_ids.index(1)

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(HIDDEN,) of both texts' tokens."""
        n, rows = self.first(encoding), self.table.values.take(numbers(encoding.row), 0) * self.table.scale
        keys, own, other, first, summary, second = (rows[:, part] for part in self._parts)
        alike = np.exp(keys[:n] @ keys[n:].T)
        a = np.maximum(own[:n] + alike @ other[n:] / alike.sum(1)[:, None], 0).mean(0)
        b = np.maximum(own[n:] + alike.T @ other[:n] / alike.sum(0)[:, None], 0).mean(0)
        u, v = summary[:n].mean(0), summary[n:].mean(0)
        hidden = self._hidden(np.concatenate((a, b, abs(u - v), u * v)))
        hidden += first[:n].mean(0) + second[n:].mean(0)
        return np.maximum(hidden, 0, out=hidden)


FEATURES: dict[type, type[Convolution] | type[Comparison]] = {TextCnn: Convolution, DecomposableAttention: Comparison}
