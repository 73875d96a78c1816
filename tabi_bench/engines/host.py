"""A model without layers (tabi_bench/zoo/layerless.py): on every engine it runs on the host, in float32 numpy.

The way to a device and back costs more than its arithmetic. It has no attention between the pieces of a text, so it
tells nothing of the importance of words.

Whatever it multiplies with an embedding depends on the piece alone, so that is worked out once for the vocabulary, and
a query takes its pieces' rows of the tables: 4 V bytes times 768 (one text) or 448 (two).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from tabi_bench.engines.base import Output
from tabi_bench.engines.eager import LoadedModel
from tabi_bench.engines.encoding import Encoding
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.layerless import COMPARED, FILTERS, SHARPNESS, DecomposableAttention, Layerless, TextCnn
from tabi_bench.zoo.loading import ModelError, load_model


class HostModel(LoadedModel):
    """Table rows, a few small matrix products and a linear head."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        model = load_model(spec, torch.float32, "cpu")
        if type(model) not in FEATURES:
            known = " or ".join(kind.__name__ for kind in FEATURES)
            raise ModelError(f"{spec.path}: a model without layers must be a {known}")
        with torch.no_grad():
            self._features = FEATURES[type(model)](model, spec.max_length)
        self._weight, self._bias = (part.detach().numpy() for part in (model.classifier.weight, model.classifier.bias))
        self._regression = model.config.num_labels == 1

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, probabilities and verdict (a regression: score and pooled vector); importance is a ValueError."""
        if want_importance:
            raise ValueError(f"{self.spec.name} has no layers, so no attention to read importance from")
        features = self._features(encoding)
        logits = self._weight @ features + self._bias
        if self._regression:
            return Output(logits, pooled=features)
        label = int(logits.argmax())
        odds = np.exp((logits - logits[label]) / np.float32(self.temperature))
        total = odds.sum()
        largest = 1 / float(total) + 0 * float(logits.sum())  # NaN where a logit is not finite
        return Output(logits, probabilities=odds / total, verdict=(label, largest))


def _tables(model: Layerless, *parts: Callable[[torch.Tensor], torch.Tensor]) -> list[np.ndarray]:
    """What each of `parts` makes of every embedding, (V, width), each a table of its own.

    Arithmetic on whole tables' rows runs through contiguous memory, twice as fast as on columns of one wide table.
    """
    words = model.embed(torch.arange(model.config.vocab_size))
    return [part(words).numpy() for part in parts]


class Convolution:
    """What a TextCnn's head reads."""

    def __init__(self, model: TextCnn, length: int):
        self._before, self._at, self._after = _tables(model, model.before, model.at, model.after)
        self._zeros = np.zeros((length, FILTERS), np.float32)  # np.maximum with a scalar takes twice the time
        self._ones = np.ones(length, np.float32)

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
