"""A model without layers, an average of embeddings: on every engine it runs on the host.

The way to a device and back costs more than its arithmetic. It has no attention, so it tells nothing of the importance
of words.

With labels nothing but table rows is left of it. The norm of an embedding depends on the piece and on its place, so
1 / norm is worked out for every pair; what follows the norm is linear, so the head is applied to the tables, not to
the query:

    logits = sum over places l of r[piece_l, l] * (A[piece_l] + B[l]) / L + c
    A = (words - mean) gain head',  B = (places + types - mean) gain head',  c = head shift + bias
"""

from __future__ import annotations

import numpy as np
import torch

from tabi_bench.engines.base import Output
from tabi_bench.engines.eager import LoadedModel
from tabi_bench.engines.encoding import Encoding
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.loading import ModelError, load_model
from tabi_bench.zoo.models import MeanPoolBert


class HostModel(LoadedModel):
    """Embeddings, layer norm, mean over the pieces and a linear head in float32 numpy."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        model = load_model(spec, torch.float32, "cpu")
        if not isinstance(model, MeanPoolBert):
            raise ModelError(f"{spec.path}: a model without layers must average its embeddings (MeanPoolBert)")
        self._average = Average(model) if model.config.num_labels == 1 else FoldedAverage(model, spec.max_length)

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, probabilities and verdict; importance is a ValueError."""
        if want_importance:
            raise ValueError(f"{self.spec.name} has no layers, so no attention to read importance from")
        logits, pooled = self._average(encoding)
        if pooled is not None:
            return Output(logits, pooled=pooled)
        label = int(logits.argmax())
        odds = np.exp((logits - logits[label]) / np.float32(self.temperature))
        total = odds.sum()
        largest = 1 / float(total) + 0 * float(logits.sum())  # NaN where a logit is not finite
        return Output(logits, probabilities=odds / total, verdict=(label, largest))


def _centred(rows: torch.Tensor) -> torch.Tensor:
    """(N, H) rows less their mean: what layer norm does first."""
    rows = rows.detach()
    return rows - rows.mean(1, keepdim=True)


def _tables(model: MeanPoolBert, length: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(V, H) centred words, (T length, H) centred places of each type, one type after the other, and `length`.

    length: longest input; never more than the model has positions.
    """
    parts = model.bert.embeddings
    length = min(length, len(parts.position_embeddings.weight))
    places = parts.token_type_embeddings.weight[:, None] + parts.position_embeddings.weight[None, :length]
    return _centred(parts.word_embeddings.weight), _centred(places.flatten(0, 1)), length


class Average:
    """A regression's: the pooled vector is asked for, so it is worked out."""

    def __init__(self, model: MeanPoolBert):
        words, places, self._length = _tables(model, model.config.max_position_embeddings)
        norm, head = model.bert.embeddings.LayerNorm, model.classifier
        self._words, self._places, self._eps = words.numpy(), places.numpy(), model.config.layer_norm_eps
        parts = (norm.weight, norm.bias, head.weight, head.bias)
        self._gain, self._shift, self.weight, self.bias = (part.detach().numpy() for part in parts)

    def __call__(self, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
        """Score (1,) and pooled vector (H,), the mean of the normalised embeddings of the pieces."""
        hidden = self._words[encoding.ids]
        if encoding.type_ids[-1] == 0:
            hidden += self._places[: len(hidden)]
        else:
            hidden += self._places[np.arange(len(hidden)) + np.array(encoding.type_ids) * self._length]
        spread = np.sqrt(np.einsum("lh,lh->l", hidden, hidden) / hidden.shape[1] + self._eps)
        pooled = (np.float32(1 / len(hidden)) / spread) @ hidden * self._gain + self._shift
        return self.weight @ pooled + self.bias, pooled


class FoldedAverage:
    """A classifier's: the formula at the head of this file. Tables take 4 V (T length + K) bytes."""

    def __init__(self, model: MeanPoolBert, length: int):
        words, places, self._length = _tables(model, length)
        norm, head = model.bert.embeddings.LayerNorm, model.classifier
        with torch.no_grad():
            squares = words.square().sum(1)[:, None] + places.square().sum(1) + 2 * (words @ places.T)
            self._inverse_norms = (squares / words.shape[1] + model.config.layer_norm_eps).rsqrt().flatten().numpy()
            to_logits = (head.weight * norm.weight).T
            self._words, self._places = (words @ to_logits).numpy(), (places @ to_logits).numpy()
            self.constant = (head.weight @ norm.bias + head.bias).numpy()
        self._first_of_piece = np.arange(len(words)) * len(places)  # in the inverse norms
        self._places_in_order = np.arange(len(places))

    def __call__(self, encoding: Encoding) -> tuple[np.ndarray, None]:
        """Logits (K,)."""
        ids = np.array(encoding.ids)
        if encoding.type_ids[-1] == 0:
            where, places = self._places_in_order[: len(ids)], self._places[: len(ids)]
        else:
            where = self._places_in_order[: len(ids)] + np.array(encoding.type_ids) * self._length
            places = self._places.take(where, 0)
        weights = self._inverse_norms.take(self._first_of_piece.take(ids) + where)
        return (weights @ self._words.take(ids, 0) + weights @ places) / np.float32(len(ids)) + self.constant, None
