"""A model without layers (tabi_bench/zoo/layerless.py): on every engine it runs on the host, in float32.

The way to a device and back costs more than its arithmetic. It has no attention between the pieces of a text, so it
tells nothing of the importance of words.

Whatever it multiplies with an embedding depends on the piece alone, so that is worked out once for the vocabulary, and
a query takes its pieces' rows of the tables: 4 V bytes times 768 (one text) or 448 (two).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from tabi_bench.engines import native
from tabi_bench.engines.base import Output
from tabi_bench.engines.eager import LoadedModel
from tabi_bench.engines.encoding import Encoding
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.layerless import COMPARED, FILTERS, SHARPNESS, DecomposableAttention, Layerless, TextCnn
from tabi_bench.zoo.loading import ModelError, load_model

log = logging.getLogger(__name__)


class HostModel(LoadedModel):
    """Table rows, a few small matrix products and a linear head; compiled (`native`) or, without a compiler, in numpy.

    runs: "compiled", or "numpy: " and why.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        model = load_model(spec, torch.float32, "cpu")
        if type(model) not in FEATURES:
            known = " or ".join(kind.__name__ for kind in FEATURES)
            raise ModelError(f"{spec.path}: a model without layers must be a {known}")
        last = max(self.encode.tokenizer.get_vocab().values())
        if last >= model.config.vocab_size:
            raise ModelError(
                f"{spec.path}: its tokenizer has piece {last}, its embeddings end at {model.config.vocab_size}"
            )
        with torch.no_grad():
            self._features = FEATURES[type(model)](model, spec.max_length)
        self._weight, self._bias = (part.detach().numpy() for part in (model.classifier.weight, model.classifier.bias))
        self._regression = model.config.num_labels == 1
        self._compiled, self.runs = self._compile()

    def _compile(self) -> tuple[native.Compiled | None, str]:
        library, why = native.library()
        arrays = self._features.arrays | {"head_weight": self._weight, "head_bias": self._bias}
        if library is not None and not all(np.isfinite(array).all() for array in arrays.values()):
            library, why = None, "weights that are not finite"  # numpy passes NaN on to the logits, host.c need not
        if library is None:
            log.warning("%s runs in numpy, at two to four times the time: %s", self.spec.name, why)
            return None, f"numpy: {why}"
        return native.Compiled(library, self._features.function, arrays, self.spec.max_length), "compiled"

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, probabilities and verdict (a regression: score and pooled vector); importance is a ValueError."""
        if want_importance:
            raise ValueError(f"{self.spec.name} has no layers, so no attention to read importance from")
        if self._compiled is None:
            return self.in_numpy(encoding)
        run = self._compiled
        label = run(encoding.ids, *self._features.lengths(encoding), temperature=self.temperature)
        logits = run.logits.copy()
        if self._regression:
            return Output(logits, pooled=run.features.copy())
        return _answer(label, logits, run.odds, run.parameters.total, run.parameters.sum)

    def in_numpy(self, encoding: Encoding) -> Output:
        """What `forward` says, without compiled code."""
        features = self._features(encoding)
        logits = self._weight @ features + self._bias
        if self._regression:
            return Output(logits, pooled=features)
        label = int(logits.argmax())
        odds = np.exp((logits - logits[label]) / np.float32(self.temperature))
        return _answer(label, logits, odds, float(odds.sum()), float(logits.sum()))


def _answer(label: int, logits: np.ndarray, odds: np.ndarray, total: float, summed: float) -> Output:
    """odds: against the likeliest label; total: theirs; summed: the logits. Not finite: a verdict of NaN."""
    return Output(logits, probabilities=odds / np.float32(total), verdict=(label, 1 / total + 0 * summed))


def _tables(model: Layerless, *parts: Callable[[torch.Tensor], torch.Tensor]) -> list[np.ndarray]:
    """What each of `parts` makes of every embedding, (V, width), each a table of its own.

    Arithmetic on whole tables' rows runs through contiguous memory, twice as fast as on columns of one wide table.
    """
    words = model.embed(torch.arange(model.config.vocab_size))
    return [part(words).numpy() for part in parts]


class Convolution:
    """What a TextCnn's head reads."""

    function = "convolution"  # of host.c

    def __init__(self, model: TextCnn, length: int):
        self._before, self._at, self._after = _tables(model, model.before, model.at, model.after)
        self._zeros = np.zeros((length, FILTERS), np.float32)  # np.maximum with a scalar takes twice the time
        self._ones = np.ones(length, np.float32)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {"before": self._before, "at": self._at, "after": self._after}

    @staticmethod
    def lengths(encoding: Encoding) -> tuple[int, ...]:
        return (len(encoding.ids),)

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(2 FILTERS,) means and maxima."""
        ids = np.array(encoding.ids)
        length, found = len(ids), self._at.take(ids, 0)
        found[1:] += self._before.take(ids[:-1], 0)
        found[:-1] += self._after.take(ids[1:], 0)
        np.maximum(found, self._zeros[:length], out=found)
        return np.concatenate((self._ones[:length] / length @ found, found.max(0)))


class Comparison:
    """What a DecomposableAttention's head reads."""

    function = "comparison"

    def __init__(self, model: DecomposableAttention, length: int):
        self._keys, self._own, self._other, self._summary = _tables(
            model,
            lambda words: SHARPNESS**0.5 * F.normalize(model.key(words), dim=-1),
            model.own,
            model.other,
            model.summary,
        )
        self._weight, self._bias = model.hidden.weight.numpy(), model.hidden.bias.numpy()
        self._zeros = np.zeros((length, COMPARED), np.float32)
        self._ones = np.ones(length, np.float32)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        tables = {"keys": self._keys, "own": self._own, "other": self._other, "summary": self._summary}
        return tables | {"hidden_weight": self._weight, "hidden_bias": self._bias}

    @staticmethod
    def lengths(encoding: Encoding) -> tuple[int, ...]:
        return encoding.type_ids.index(1), len(encoding.ids)

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(HIDDEN,) of both texts' pieces."""
        ids, n = np.array(encoding.ids), encoding.type_ids.index(1)
        keys, other = self._keys.take(ids, 0), self._other.take(ids, 0)
        compared, summary = self._own.take(ids, 0), self._summary.take(ids, 0)
        ones_a, ones_b = self._ones[:n], self._ones[: len(ids) - n]
        alike = np.exp(keys[:n] @ keys[n:].T)
        compared[:n] += (alike / (alike @ ones_b)[:, None]) @ other[n:]
        compared[n:] += (alike / (ones_a @ alike)).T @ other[:n]
        np.maximum(compared, self._zeros[: len(ids)], out=compared)
        mean_a, mean_b = ones_a / n, ones_b / (len(ids) - n)
        u, v = mean_a @ summary[:n], mean_b @ summary[n:]
        hidden = self._weight @ np.concatenate((mean_a @ compared[:n], u, mean_b @ compared[n:], v, abs(u - v), u * v))
        hidden += self._bias
        return np.maximum(hidden, 0, out=hidden)


FEATURES = {TextCnn: Convolution, DecomposableAttention: Comparison}
