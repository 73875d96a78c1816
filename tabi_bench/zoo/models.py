"""The one model class that transformers lacks: a BERT encoder whose classifier reads the mean of its last layer.

From scratch, a [CLS] head gives the other rows of the last layer no direct training signal, so the attention that they
pay is a poor importance score; a mean over the text gives every row one.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """(B, H) mean of hidden states (B, L, H) over the positions that `attention_mask` (B, L) keeps (None: all)."""
    if attention_mask is None:
        return hidden.mean(1)
    weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1)


class MeanPoolBert(BertPreTrainedModel):
    """BertForSequenceClassification with a mean over the attended tokens in place of the [CLS] pooler."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = BertModel(config, add_pooling_layer=False)
        rate = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Logits (B, K) of token ids (B, L); `attention_mask=None` means that nothing is padded."""
        encoded = self.bert(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(mean_pool(encoded.last_hidden_state, attention_mask)))
        return SequenceClassifierOutput(
            logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
