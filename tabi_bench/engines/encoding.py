"""From raw text to tokens, and from tokens back to words.

A BERT-style tokenizer treats words between spaces one by one, so the tokens of a word that was met before need not be
worked out again: `Encoder` remembers them (45 us of the Rust tokenizer become 5 us of look-ups). Whatever is not that
simple goes through the Rust tokenizer: other tokenizers, white space but spaces, control characters, texts that must be
truncated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, compress, islice
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from tokenizers import Encoding as Tokens
from tokenizers import Tokenizer

from tabi_bench.zoo.loading import load_tokenizer
from tabi_bench.zoo.words import align

CHARS_PER_TOKEN = 32  # texts longer than this times max_length are first tried on their beginning
KEPT_WORDS = 200_000  # remembered words; later new ones are worked out each time
KEPT_CHARS = 48  # longer words are not remembered


class Encoding:
    """One query, tokenised. What only pruning reads is worked out when someone asks for it.

    ids, type_ids: (L,) lists; truncated: whether tokens were cut off at the model's longest input. Words are the
    maximal runs of non-whitespace (`str.split`) of each text, numbered through all texts of the query.
    """

    def __init__(
        self, texts: tuple[str, ...], ids: list[int], type_ids: list[int], truncated: bool, tokenizer: Tokenizer
    ):
        self.texts, self.ids, self.type_ids, self.truncated = texts, ids, type_ids, truncated
        self._tokenizer = tokenizer

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which has a tokenizer of its own: a vocabulary is not sent with each query."""
        return {**self.__dict__, "_tokenizer": None}

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> tuple[bytes, bytes]:
        """Ids and type ids as int64, ready to be joined with those of other queries.

        By `struct`, which is thrice as fast as numpy on lists so short.
        """
        as_int64 = _as_int64(len(self.ids))
        return as_int64(*self.ids), as_int64(*self.type_ids)

    @cached_property
    def tokens(self) -> Tokens:
        """What the Rust tokenizer says: offsets, sequence ids, mask of special tokens."""
        return self._tokenizer.encode(*self.texts)

    @cached_property
    def words(self) -> tuple[list[str], ...]:
        """The words of each text."""
        return tuple(text.split() for text in self.texts)

    @cached_property
    def word_of_token(self) -> np.ndarray:
        """(L,) int64: the word that each token belongs to, -1 for special tokens (and tokens of white space alone)."""
        return align(self.texts, self.tokens)

    @cached_property
    def content(self) -> np.ndarray:
        """(L,) int64: 1 for tokens of text, 0 for special tokens."""
        return 1 - np.array(self.tokens.special_tokens_mask, np.int64)

    def kept_texts(self, keep: np.ndarray) -> tuple[str, ...]:
        """The texts with the words of `keep` (W,) bool alone, joined by one space; one that lost none stays."""
        kept, texts = iter(np.asarray(keep, bool).tolist()), []
        for text, words in zip(self.texts, self.words, strict=True):
            part = list(islice(kept, len(words)))
            texts.append(text if all(part) else " ".join(compress(words, part)))
        return tuple(texts)

    def without(self, keep: np.ndarray, encode: Callable[[Sequence[str]], Encoding]) -> Encoding:
        """What a model with this `encode` reads of `kept_texts(keep)`, for keep (W,) bool over all words.

        An `Encoder` that remembers its words looks their tokens up, which takes half the time of masking the ids; other
        tokenizers read the text anew, as the tokens of a word may depend on its place, and truncation on what is left.
        """
        return encode(self.kept_texts(keep))


@lru_cache(None)
def _as_int64(count: int) -> Callable[..., bytes]:
    return Struct(f"{count}q").pack


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Encoding:
    """Tokenises one or two texts by the Rust tokenizer, truncating at `max_length` tokens.

    A very long text is tokenised from its beginning, and whole only if that did not fill `max_length`: time and memory
    do not grow with the text.
    """
    limit = CHARS_PER_TOKEN * max_length
    tokens = None
    if max(map(len, texts)) > limit:
        tokens = tokenizer.encode(*(text[:limit] for text in texts))
    if tokens is None or not tokens.overflowing:
        tokens = tokenizer.encode(*texts)
    encoding = Encoding(tuple(texts), tokens.ids, tokens.type_ids, bool(tokens.overflowing), tokenizer)
    encoding.tokens = tokens
    return encoding


@dataclass(frozen=True)
class Frame:
    """What stands around the tokens of the texts: special tokens, and the type ids of the first and the second part."""

    start: list[int]
    between: list[int]  # before the second text
    end: list[int]
    types: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: tuple[str, ...]) -> Frame | None:
        """Read off an example; None if it is not start, text [, between, text], end with types in two runs."""
        tokens = tokenizer.encode(*texts)
        runs: list[list[int]] = [[]]
        expected = None
        for token, sequence in zip(tokens.ids, tokens.sequence_ids, strict=True):
            if sequence != expected:
                runs.append([])
                expected = sequence
            runs[-1].append(token)
        if len(runs) != 2 * len(texts) + 1:
            return None
        start, between, end = runs[0], runs[2] if len(texts) == 2 else [], runs[-1]
        types, cut = tokens.type_ids, len(tokens.ids) - len(runs[-2]) - len(end) if len(texts) == 2 else len(tokens.ids)
        if len(set(types[:cut])) > 1 or len(set(types[cut:])) > 1:
            return None
        return cls(start, between, end, (types[0], types[-1]))


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a printable text are those of its words between spaces, one after the other."""
    plain = json.loads(tokenizer.to_str())
    kind = {part: (plain[part] or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")}
    simple = all(not any(c.isspace() for c in token["content"]) for token in plain["added_tokens"])
    local = kind["normalizer"] in (None, "BertNormalizer") and kind["pre_tokenizer"] == "BertPreTokenizer"
    return simple and local and kind["model"] in ("WordPiece", "WordLevel")


class Remembered(Encoding):
    """An Encoding from memory: words and content follow from how many tokens each word has, without offsets."""

    def __init__(
        self,
        texts: tuple[str, ...],
        ids: list[int],
        type_ids: list[int],
        parts: list[tuple[int, int]],
        encoder: Encoder,
    ):
        """parts: first and one-past-last token of each text."""
        super().__init__(texts, ids, type_ids, False, encoder.tokenizer)
        self._parts, self._encoder = parts, encoder

    @cached_property
    def word_of_token(self) -> np.ndarray:
        word, number = np.full(len(self.ids), -1, np.int64), 0
        for (first, end), words in zip(self._parts, self.words, strict=True):
            counts = list(map(len, map(self._encoder.memo.__getitem__, words)))
            word[first:end] = number + np.repeat(np.arange(len(words)), counts)
            number += len(words)
        return word

    @cached_property
    def content(self) -> np.ndarray:
        return _inside(len(self.ids), tuple(self._parts))


@lru_cache(4096)
def _inside(n_tokens: int, parts: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(L,) int64, 1 inside the parts: texts of one shape share it."""
    content = np.zeros(n_tokens, np.int64)
    for first, end in parts:
        content[first:end] = 1
    return content


class Memo(dict):
    """Word -> its tokens, worked out at first sight."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids = self.tokenizer.encode(word, add_special_tokens=False).ids
        if len(word) <= KEPT_CHARS and len(self) < KEPT_WORDS:
            self[word] = ids
        return ids


class Encoder:
    """Tokenises the queries of one model: by memory where that gives the same tokens, else by the Rust tokenizer."""

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        """tokenizer: truncating at `max_length`, without padding."""
        self.tokenizer, self.max_length, self.limit = tokenizer, max_length, CHARS_PER_TOKEN * max_length
        self.memo = Memo(tokenizer)
        self._frames: dict[int, Frame] = {}
        if splits_at_spaces(tokenizer):
            frames = {count: Frame.of(tokenizer, ("a",) * count) for count in (1, 2)}
            self._frames = {count: frame for count, frame in frames.items() if frame is not None}

    def forget(self) -> None:
        """Words are met anew: what serving pays for them is then in its latencies."""
        self.memo.clear()

    def __call__(self, texts: Sequence[str]) -> Encoding:
        """One or two texts; truncated at the longest input, with `truncated` set."""
        frame = self._frames.get(len(texts))
        if frame is not None:
            encoding = self._remembered(frame, texts)
            if encoding is not None:
                return encoding
        return encode(self.tokenizer, texts, self.max_length)

    def _remembered(self, frame: Frame, texts: Sequence[str]) -> Encoding | None:
        """None for a text with white space or control characters that the tokenizer sees otherwise, or too long."""
        memo, ids, parts = self.memo, frame.start.copy(), []
        for number, text in enumerate(texts):
            if not text.isprintable() or len(text) > self.limit:
                return None
            if number:
                ids += frame.between
            first = len(ids)
            ids += chain.from_iterable(map(memo.__getitem__, text.split()))
            parts.append((first, len(ids)))
        ids += frame.end
        n, (low, high) = len(ids), frame.types
        if n > self.max_length:
            return None
        types = [low] * n if len(texts) == 1 else [low] * first + [high] * (n - first)
        return Remembered(tuple(texts), ids, types, parts, self)


class Encoders:
    """The encoders of an engine's models. Models with equal tokenizers share one, so they may share an encoding."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Encoder] = {}

    def of(self, path: Path, max_length: int) -> Encoder:
        """The encoder of a model folder."""
        key = hashlib.sha256((Path(path) / "tokenizer.json").read_bytes()).hexdigest(), max_length
        if key not in self._known:
            self._known[key] = Encoder(load_tokenizer(path, max_length), max_length)
        return self._known[key]

    def forget(self) -> None:
        """Empties the memory of every encoder: profiling has seen all queries, serving has not."""
        for encoder in self._known.values():
            encoder.forget()
