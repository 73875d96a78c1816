"""The model classes that transformers lacks: an encoder whose classifier reads the mean of its last layer.

Trained on little, a [CLS] head gives the other rows of the last layer no direct signal, so the attention that they pay
is a poor importance score; a mean over the text gives every row one. It is also how sentence encoders were trained.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from transformers import AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from tabi_bench.zoo.families import family

PREFIX = "MeanPool"


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """(B, H) mean of hidden states (B, L, H) over the positions that `attention_mask` (B, L) keeps (None: all)."""
    if attention_mask is None:
        return hidden.mean(1)
    weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1)


class MeanPooled(PreTrainedModel):
    """The *ForSequenceClassification of a family with a mean over the attended tokens in place of its pooler.

    Made by `mean_pooled`, which joins it to the family's own base class.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        adapter, body = family(config.model_type), AutoModel._model_mapping[type(config)]
        options = {"add_pooling_layer": False} if adapter.has_pooler else {}
        self.add_module(self.base_model_prefix, body(config, **options))
        self.dropout = nn.Dropout(head_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> SequenceClassifierOutput:
        """Logits (B, K) of token ids (B, L); `attention_mask=None` means that nothing is padded."""
        encoded = self._modules[self.base_model_prefix](input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.classifier(self.dropout(mean_pool(encoded.last_hidden_state, attention_mask)))
        return SequenceClassifierOutput(
            logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


def head_dropout(config: PreTrainedConfig) -> float:
    """Dropout before the head: the head's own rate, else that of the hidden states."""
    known = config.to_dict()
    rates = (known.get(name) for name in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
    return next((rate for rate in rates if rate is not None), 0.0)


@cache
def mean_pooled(config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """The mean-pooled classifier of a configuration's family: `MeanPoolBert`, `MeanPoolMPNet`, ..."""
    body = AutoModel._model_mapping[config_class]
    name = PREFIX + body.__name__.removesuffix("Model")
    return type(name, (MeanPooled, body.__mro__[1]), {"__module__": __name__, "__doc__": MeanPooled.__doc__})


MeanPoolBert = mean_pooled(BertConfig)
