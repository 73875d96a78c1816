"""DeBERTa, versions 1 to 3: disentangled attention, which it computes itself; it is called whole."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, processors
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.deberta import modeling_deberta

from tabi_bench.zoo.families.base import AttentionReader, Family
from tabi_bench.zoo.families.sentencepieces import normalize_as, raw_model


class Deberta(Family):
    """Version 1: queries, keys and values come fused."""

    projections: tuple[str, str, str] | None = None
    cuttable = False
    embeds_in_one = False
    needs_mask = True
    has_pooler = False

    def prepare(self, model: PreTrainedModel) -> None:
        """Relative positions depend on the length alone; built anew, they copy from the CPU at every pass."""
        modeling_deberta.compute_attention_span = _attention_span
        encoder = self.body(model).encoder
        build, known = encoder.get_rel_pos, {}

        def relative_positions(hidden_states: torch.Tensor, *_args, **_kwargs) -> torch.Tensor:
            length = hidden_states.size(1)
            if length not in known:
                known[length] = build(hidden_states)
            return known[length]

        encoder.get_rel_pos = relative_positions

    def remember_positions(self, model: PreTrainedModel, length: int) -> None:
        """See Family."""
        self.body(model).encoder.get_rel_pos(torch.empty(1, length, 1, device=model.device))

    def read_attention(self, module: nn.Module, reader: AttentionReader) -> None:
        """Probabilities are computed explicitly and returned on request."""

        def ask(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return (*args[:2], reader.reads(), *args[3:]), kwargs

        def take(_module: nn.Module, _args: tuple, output: tuple) -> None:
            if output[1] is not None:
                reader.add(output[1])

        module.register_forward_pre_hook(ask, with_kwargs=True)
        module.register_forward_hook(take)

    def mend_tokenizer(self, folder: Path, tokenizer: Tokenizer) -> Tokenizer:
        """A pair is `[CLS] A [SEP] B [SEP]`; the library puts two separators between the texts."""
        special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
        return tokenizer


class DebertaV2(Deberta):
    """Versions 2 and 3."""

    projections = ("query_proj", "key_proj", "value_proj")

    def may_fuse(self, config: PreTrainedConfig) -> bool:
        """With shared keys, the same layers also project position embeddings."""
        return not config.to_dict().get("share_att_key", False)

    def mend_tokenizer(self, folder: Path, tokenizer: Tokenizer) -> Tokenizer:
        """The library normalizes to NFC whatever the model says."""
        model = raw_model(folder)
        return tokenizer if model is None else normalize_as(super().mend_tokenizer(folder, tokenizer), model)


def _attention_span(query: torch.Tensor, key: torch.Tensor, longest: int) -> int:
    """What transformers computes as a tensor on the CPU, which neither a compiler nor a capture likes to meet."""
    return min(max(query.size(-2), key.size(-2)), longest)
