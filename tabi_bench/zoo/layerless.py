"""Classifiers without layers, on the embeddings of a BERT encoder: what they compute is looked up token by token.

One text: the convolutional network of Kim (2014), https://aclanthology.org/D14-1181. Two texts: the decomposable
attention of Parikh et al. (2016), https://aclanthology.org/D16-1244, beside a comparison of the texts' averages. In
both, what is multiplied with an embedding depends on the token alone, so serving reads it from tables
(tabi_bench/engines/host.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from tabi_bench.zoo.models import mean_pool

FILTERS = 256  # of the convolution
KEYS, COMPARED, HIDDEN = 64, 128, 128  # widths of decomposable attention
SHARPNESS = 10.0  # of attention: the factor of the cosine between two keys; learnt, it moved by a hundredth


class Layerless(BertPreTrainedModel):
    """Layer-normalised word embeddings, named as in a BertModel; without places and types."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        words = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.bert = nn.ModuleDict({"embeddings": nn.ModuleDict({"word_embeddings": words, "LayerNorm": norm})})
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(..., H) of ids (...)."""
        embeddings = self.bert["embeddings"]
        return embeddings["LayerNorm"](embeddings["word_embeddings"](input_ids))

    def final(self, features: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(features)))


class TextCnn(Layerless):
    """ReLU filters over each token and its neighbours; their means and maxima over the text go to a linear head."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        width = config.hidden_size
        self.before, self.at, self.after = (nn.Linear(width, FILTERS, bias=place == 0) for place in (-1, 0, 1))
        self.classifier = nn.Linear(2 * FILTERS, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_
    ) -> SequenceClassifierOutput:
        """Logits (B, K) of token ids (B, L); `attention_mask=None` means that nothing is padded."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        words = self.embed(input_ids) * mask.unsqueeze(-1)
        left, right = F.pad(self.before(words), (0, 0, 1, 0))[:, :-1], F.pad(self.after(words), (0, 0, 0, 1))[:, 1:]
        windows = F.relu(left + self.at(words) + right) * mask.unsqueeze(-1)
        return self.final(torch.cat([mean_pool(windows, mask), windows.amax(1)], -1))


class DecomposableAttention(Layerless):
    """Each token is compared with what it attends to in the other text: softmax(SHARPNESS * cosine of their keys).

    What is compared, averaged over each text, and the averages u, v of both texts with |u - v| and u * v go through one
    hidden layer. The special tokens take part: they are what a token without a partner can attend to.
    """

    def __init__(self, config: BertConfig):
        super().__init__(config)
        width = config.hidden_size
        self.key = nn.Linear(width, KEYS, bias=False)
        self.own, self.other = nn.Linear(width, COMPARED), nn.Linear(width, COMPARED, bias=False)
        self.summary = nn.Linear(width, COMPARED, bias=False)
        self.hidden = nn.Linear(6 * COMPARED, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor, **_
    ) -> SequenceClassifierOutput:
        """Logits (B, K) of token ids (B, L) of the text that `token_type_ids` says; no mask: nothing is padded."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        first, second = mask * (token_type_ids == 0), mask * (token_type_ids == 1)
        words = self.embed(input_ids)
        keys = F.normalize(self.key(words).float(), dim=-1)
        alike = SHARPNESS * keys @ keys.mT
        own, other = self.own(words), self.other(words)
        a = mean_pool(F.relu(own + self._attended(alike, second, other)), first)
        b = mean_pool(F.relu(own + self._attended(alike, first, other)), second)
        u, v = (mean_pool(self.summary(words), text) for text in (first, second))
        features = self.dropout(torch.cat([a, u, b, v, (u - v).abs(), u * v], -1))
        return self.final(F.relu(self.hidden(features)))

    @staticmethod
    def _attended(alike: torch.Tensor, text: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(B, L, C): for each token the mean of `values` over the tokens of `text` (B, L), weighted by the softmax."""
        weights = alike.masked_fill(text[:, None] == 0, torch.finfo(alike.dtype).min).softmax(-1)
        return weights.to(values.dtype) @ values


def layerless(texts: int) -> type[Layerless]:
    """The class for queries of one or two texts."""
    return TextCnn if texts == 1 else DecomposableAttention
