"""Micro classifiers with random weights, one per family, as folders in the Hugging Face layout."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
)

from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn
from tabi_bench.zoo.loading import spec_of
from tabi_bench.zoo.models import MeanPoolBert

TOKENS = "[PAD] [UNK] [CLS] [SEP] the a film is not good bad very don ' t , . café play movie of and ##ing ##s"
VOCABULARY = {token: i for i, token in enumerate(TOKENS.split(" "))}
SIZE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "num_labels": 3,
    "pad_token_id": 0,
    "initializer_range": 0.3,  # large enough that attention is far from uniform
}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
CONFIGS = {
    "bert": BertConfig(**SIZE),
    "roberta": RobertaConfig(**SIZE | {"type_vocab_size": 1}),
    "albert": AlbertConfig(**SIZE | {"num_hidden_layers": 3}, embedding_size=16),
    "distilbert": DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=80,
        num_labels=3, pad_token_id=0, initializer_range=0.3,
    ),
    "deberta": DebertaConfig(**SIZE | DISENTANGLED | {"type_vocab_size": 0}),
    "deberta-v2": DebertaV2Config(
        **SIZE | DISENTANGLED | {"type_vocab_size": 0}, position_buckets=8, norm_rel_ebd="layer_norm",
        share_att_key=True, max_relative_positions=80,
    ),
    "electra": ElectraConfig(**SIZE, embedding_size=16),
    "mpnet": MPNetConfig(**SIZE | {"pad_token_id": 1}),
}  # fmt: skip
FAMILIES = (*CONFIGS, "meanpool")
OURS = {"meanpool": MeanPoolBert, "cnn": TextCnn, "attention": DecomposableAttention}  # shaped like "bert"


def micro_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


def write_model(folder, family: str, seed: int = 0, **changes):
    """A random micro model of `family` (or of one of OURS) in `folder`, as a ModelSpec."""
    torch.manual_seed(seed)
    base = CONFIGS["bert" if family in OURS else family]
    config = type(base).from_dict(base.to_dict() | changes)
    model = OURS[family](config) if family in OURS else AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    micro_tokenizer().save(str(folder / "tokenizer.json"))
    return spec_of(folder, family, max_length=24)


class Ramp(torch.nn.Module):
    """An off-ramp that reads the first position."""

    def __init__(self, width: int = 32):
        super().__init__()
        torch.manual_seed(1)
        self.linear = torch.nn.Linear(width, 3)

    def forward(self, hidden, mask):
        return self.linear(hidden[:, 0])
