"""A model without layers, an average of embeddings: on every engine it runs on the host.

The way to a device and back costs more than its arithmetic (a dozen table rows and one thin matrix product). It has no
attention, so it tells nothing of the importance of words.
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
        embeddings = model.bert.embeddings
        self.eps = model.config.layer_norm_eps
        self._word, self._place, self._type, self._gain, self._shift, self._weight, self._bias = (
            part.detach().numpy().copy()
            for part in (
                embeddings.word_embeddings.weight,
                embeddings.position_embeddings.weight,
                embeddings.token_type_embeddings.weight,
                embeddings.LayerNorm.weight,
                embeddings.LayerNorm.bias,
                model.classifier.weight,
                model.classifier.bias,
            )
        )
        self._first = self._place + self._type[0]  # positions of the first text

    def pooled(self, encoding: Encoding) -> np.ndarray:
        """(H,) mean of the normalised embeddings of the pieces."""
        hidden = self._word[encoding.ids]
        if encoding.type_ids[-1] == 0:
            hidden += self._first[: len(hidden)]
        else:
            hidden += self._place[: len(hidden)] + self._type[encoding.type_ids]
        hidden -= hidden.mean(axis=1, keepdims=True)
        spread = np.sqrt(np.einsum("lh,lh->l", hidden, hidden) / hidden.shape[1] + self.eps)
        return (np.float32(1 / len(hidden)) / spread) @ hidden * self._gain + self._shift

    def forward(self, encoding: Encoding, want_importance: bool = False) -> Output:
        """Logits, probabilities and verdict; importance is a ValueError."""
        if want_importance:
            raise ValueError(f"{self.spec.name} has no layers, so no attention to read importance from")
        pooled = self.pooled(encoding)
        logits = self._weight @ pooled + self._bias
        if len(logits) == 1:
            return Output(logits, pooled=pooled)
        odds = np.exp((logits - logits.max()) / np.float32(self.temperature))
        odds /= odds.sum()
        largest = float(odds.max()) + 0.0 * float(logits.sum())  # NaN where a logit is not finite
        return Output(logits, pooled=pooled, probabilities=odds, verdict=(int(logits.argmax()), largest))
