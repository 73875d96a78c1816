"""Tokenizers that transformers builds from raw sentencepiece models: mended, and compared with sentencepiece."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers

MODELS = ("spm.model", "spiece.model", "sentencepiece.bpe.model")


def raw_model(folder: Path) -> Path | None:
    """The sentencepiece model of a folder without a tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return None
    return next((folder / name for name in MODELS if (folder / name).is_file()), None)


def normalize_as(tokenizer: Tokenizer, model: Path) -> Tokenizer:
    """The tokenizer with the model's own table of characters as its normalizer."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    table = proto.normalizer_spec.precompiled_charsmap
    steps = [normalizers.Precompiled(table)] if table else []
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def split_at_special_tokens_alone(tokenizer: Tokenizer) -> Tokenizer:
    """Symbols that the model defines itself are ordinary tokens: split off before, what follows would begin a word."""
    whole = json.loads(tokenizer.to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["special"]]
    return Tokenizer.from_str(json.dumps(whole))


def first_difference(tokenizer: Tokenizer, model: Path, texts: Sequence[str], read: Sequence[str]) -> int | None:
    """The first of `texts` whose tokens are not those that sentencepiece finds in the same of `read`; None: all agree.

    read: the texts as the architecture's own tokenizer hands them to sentencepiece.
    """
    import sentencepiece

    known = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for row, (text, plain) in enumerate(zip(texts, read, strict=True)):
        if tokenizer.encode(text, add_special_tokens=False).ids != known.encode(plain):
            return row
    return None
