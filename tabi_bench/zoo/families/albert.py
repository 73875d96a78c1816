"""ALBERT: layers share their weights in groups; embeddings are narrower than the layers."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from tabi_bench.zoo.families.base import Family
from tabi_bench.zoo.families.sentencepieces import split_at_special_tokens_alone


class Albert(Family):
    embeds_in_one = False
    attention_classes = ("AlbertAttention",)

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """See Family."""
        layers, groups = model.config.num_hidden_layers, self.body(model).encoder.albert_layer_groups
        per_group = layers / model.config.num_hidden_groups
        return [groups[int(index / per_group)] for index in range(layers)]

    def layer_parts(self, block: nn.Module) -> None:
        """See Family."""
        return None

    def embed(self, model: PreTrainedModel, ids: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """See Family."""
        return self.body(model).encoder.embedding_hidden_mapping_in(super().embed(model, ids, types))

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """See Family."""
        body = self.body(model)
        return model.classifier(body.pooler_activation(body.pooler(hidden[:, 0])))

    def mend_tokenizer(self, folder: Path, tokenizer: Tokenizer) -> Tokenizer:
        """The library splits `-`, `(`, `"` and `.` off, so that what follows them would begin a word."""
        return split_at_special_tokens_alone(tokenizer)

    def plain_text(self, text: str) -> str:
        """See Family: quotes made alike, accents stripped, in lower case."""
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        decomposed = unicodedata.normalize("NFKD", text)
        return "".join(c for c in decomposed if not unicodedata.combining(c)).lower()

    def attention_calls(self, model: PreTrainedModel) -> int:
        """See Family."""
        return model.config.num_hidden_layers * model.config.inner_group_num
