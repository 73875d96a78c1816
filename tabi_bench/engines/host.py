"""A model without layers (tabi_bench/zoo/layerless.py): on every engine it runs on the host, in float32 numpy.

The way to a device and back costs more than its arithmetic. It has no attention between the pieces of a text, so it
tells nothing of the importance of words.

Whatever it multiplies with an embedding depends on the piece alone, so that is worked out once for the vocabulary, and
a query takes its pieces' rows of the table. Tables take 4 V bytes times 768 (one text) or 448 (two).
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
from tabi_bench.zoo.layerless import COMPARED, FILTERS, KEYS, SHARPNESS, DecomposableAttention, Layerless, TextCnn
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
            self._features = FEATURES[type(model)](model)
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


def _table(model: Layerless, parts: list[Callable[[torch.Tensor], torch.Tensor]]) -> np.ndarray:
    """(V, sum of widths): what `parts` make of every embedding, side by side."""
    words = model.embed(torch.arange(model.config.vocab_size))
    return torch.cat([part(words) for part in parts], 1).numpy()


class Convolution:
    """What a TextCnn's head reads."""

    def __init__(self, model: TextCnn):
        self._rows = _table(model, [model.before, model.at, model.after])

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(2 FILTERS,) means and maxima."""
        rows = self._rows.take(np.array(encoding.ids), 0)
        found = rows[:, FILTERS : 2 * FILTERS]
        found[1:] += rows[:-1, :FILTERS]
        found[:-1] += rows[1:, 2 * FILTERS :]
        np.maximum(found, 0, out=found)
        return np.concatenate((found.sum(0) * np.float32(1 / len(found)), found.max(0)))


class Comparison:
    """What a DecomposableAttention's head reads: both texts in one go, their pieces below each other.

    A row holds the key (times the root of SHARPNESS), what it gives to those that attend to it with a 1 that
    sums up the weights, what is compared, and its part of the averages.
    """

    def __init__(self, model: DecomposableAttention):
        self._rows = _table(
            model,
            [
                lambda words: SHARPNESS**0.5 * F.normalize(model.key(words), dim=-1),
                model.other,
                lambda words: torch.ones(len(words), 1),
                model.own,
                model.summary,
            ],
        )
        self._weight, self._bias = model.hidden.weight.numpy(), model.hidden.bias.numpy()

    def __call__(self, encoding: Encoding) -> np.ndarray:
        """(HIDDEN,) of both texts' pieces."""
        rows, first = self._rows.take(np.array(encoding.ids), 0), encoding.type_ids.index(1)
        keys, given, compared = rows[:, :KEYS], rows[:, KEYS : KEYS + COMPARED + 1], rows[:, -2 * COMPARED : -COMPARED]
        alike = np.exp(keys @ keys.T)
        alike[:first, :first] = alike[first:, first:] = 0  # only the other text is attended to
        attended = alike @ given
        compared += attended[:, :-1] / attended[:, -1:]
        np.maximum(compared, 0, out=compared)
        share = np.zeros((2, len(rows)), np.float32)
        share[0, :first], share[1, first:] = 1 / first, 1 / (len(rows) - first)
        means = share @ rows[:, -2 * COMPARED :]
        u, v = means[:, COMPARED:]
        hidden = self._weight @ np.concatenate((means.ravel(), abs(u - v), u * v)) + self._bias
        return np.maximum(hidden, 0, out=hidden)


FEATURES = {TextCnn: Convolution, DecomposableAttention: Comparison}
