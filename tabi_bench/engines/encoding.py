"""From raw text to tokens, and from tokens back to words.

A BERT-style tokenizer treats words between spaces one by one, so the tokens of a word that was met before need not be
worked out again: `Encoder` remembers them, as the bytes that a buffer takes (200 us of the Rust tokenizer become 8 us
of look-ups). Whatever is not that simple goes through the Rust tokenizer: other tokenizers, and characters that part
words for Python and not for it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding as Tokens
from tokenizers import Tokenizer

from tabi_bench.zoo.loading import load_tokenizer
from tabi_bench.zoo.words import align

CHARS_PER_TOKEN = 32  # texts longer than this times max_length are first tried on their beginning
KEPT_WORDS = 200_000  # remembered words; later new ones are worked out each time
KEPT_CHARS = 48  # longer words are not remembered
INT64 = 8  # bytes of a token
ODD = frozenset("\x0b\x0c\x1c\x1d\x1e\x1f\x85")  # part words for Python, and may be nothing to the tokenizer


class Encoding:
    """One query, tokenised. What only pruning reads is worked out when someone asks for it.

    row, type_row: the L ids and type ids as int64, ready to be joined with those of other queries; truncated: whether
    tokens were cut off at the model's longest input. Words are the maximal runs of non-whitespace (`str.split`) of each
    text, numbered through all texts of the query.
    """

    type_row: bytes

    def __init__(self, texts: tuple[str, ...], row: bytes, type_row: bytes, truncated: bool, tokenizer: Tokenizer):
        self.texts, self.row, self.type_row, self.truncated = texts, row, type_row, truncated
        self.n_tokens = len(row) // INT64
        self._tokenizer = tokenizer

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which has a tokenizer of its own: a vocabulary is not sent with each query."""
        return {**self.__dict__, "_tokenizer": None}

    @property
    def ids(self) -> list[int]:
        """(L,)"""
        return numbers(self.row).tolist()

    @property
    def type_ids(self) -> list[int]:
        """(L,)"""
        return numbers(self.type_row).tolist()

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


def as_int64(values: Sequence[int]) -> bytes:
    """Whole numbers as a row of an Encoding."""
    return array("q", values).tobytes()


def numbers(row: bytes) -> np.ndarray:
    """(L,) int64 of a row of an Encoding; it cannot be written to."""
    return np.frombuffer(row, np.int64)


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
    rows = as_int64(tokens.ids), as_int64(tokens.type_ids)
    encoding = Encoding(tuple(texts), *rows, bool(tokens.overflowing), tokenizer)
    encoding.tokens = tokens
    return encoding


@dataclass(frozen=True)
class Frame:
    """What stands around the tokens of the texts: special tokens as int64, and the type ids of the first and the second
    part."""

    start: bytes
    between: bytes  # before the second text
    end: bytes
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
        return cls(as_int64(start), as_int64(between), as_int64(end), (types[0], types[-1]))

    @cached_property
    def size(self) -> int:
        """Bytes of all its tokens."""
        return len(self.start) + len(self.between) + len(self.end)

    def parts(self, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """First and one-past-last token of each text, for their numbers of tokens."""
        first = len(self.start) // INT64
        if len(sizes) == 1:
            return ((first, first + sizes[0]),)
        second = first + sizes[0] + len(self.between) // INT64
        return (first, first + sizes[0]), (second, second + sizes[1])

    def type_row(self, sizes: Sequence[int]) -> bytes:
        """See Encoding."""
        n_tokens = self.size // INT64 + sum(sizes)
        return _types(n_tokens if len(sizes) == 1 else self.parts(sizes)[1][0], n_tokens, self.types)


@lru_cache(4096)
def _types(first: int, n_tokens: int, types: tuple[int, int]) -> bytes:
    return as_int64([types[0]] * first + [types[1]] * (n_tokens - first))


def longest_first(words: list[bytes], room: int) -> list[bytes]:
    """The tokens of one or two texts, cut to `room` bytes in all as the Rust tokenizer cuts them.

    The longer text alone is cut as long as it stays the longer one; then both have half of the room.
    """
    if len(words) == 1:
        return [words[0][:room]]
    tokens = room // INT64
    short = min(map(len, words)) // INT64
    sizes = [short, max(short, tokens - short)]
    if sum(sizes) > tokens:
        sizes = [tokens // 2, tokens - tokens // 2]
    if len(words[0]) > len(words[1]):
        sizes.reverse()
    return [text[: size * INT64] for text, size in zip(words, sizes, strict=True)]


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its words, one after the other, where both part them alike."""
    plain = json.loads(tokenizer.to_str())
    kind = {part: (plain[part] or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")}
    simple = all(not any(c.isspace() for c in token["content"]) for token in plain["added_tokens"])
    local = kind["normalizer"] in (None, "BertNormalizer") and kind["pre_tokenizer"] == "BertPreTokenizer"
    return simple and local and kind["model"] in ("WordPiece", "WordLevel")


class Remembered(Encoding):
    """An Encoding from memory: words and content follow from how many tokens each word has, without offsets."""

    def __init__(
        self, texts: tuple[str, ...], row: bytes, sizes: list[int], truncated: bool, frame: Frame, encoder: Encoder
    ):
        """sizes: tokens of each text. What is read of few queries alone follows from them when it is asked for."""
        self.texts, self.row, self.truncated = texts, row, truncated
        self.n_tokens = len(row) // INT64
        self._sizes, self._frame, self._encoder, self._tokenizer = sizes, frame, encoder, encoder.tokenizer

    @cached_property
    def type_row(self) -> bytes:  # type: ignore[override]  # what others are given is worked out here
        return self._frame.type_row(self._sizes)

    @cached_property
    def word_of_token(self) -> np.ndarray:
        word, number = np.full(self.n_tokens, -1, np.int64), 0
        for (first, end), words in zip(self._frame.parts(self._sizes), self.words, strict=True):
            sizes = np.fromiter(map(len, map(self._encoder.memo.__getitem__, words)), np.int64, len(words))
            word[first:end] = number + np.repeat(np.arange(len(words)), sizes // INT64)[: end - first]
            number += len(words)
        return word

    @cached_property
    def content(self) -> np.ndarray:
        return _inside(self.n_tokens, self._frame.parts(self._sizes))


@lru_cache(4096)
def _inside(n_tokens: int, parts: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(L,) int64, 1 inside the parts: texts of one shape share it."""
    content = np.zeros(n_tokens, np.int64)
    for first, end in parts:
        content[first:end] = 1
    return content


class Memo(dict):
    """Word -> its tokens as int64, worked out at first sight."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        ids = as_int64(self.tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= KEPT_CHARS and len(self) < KEPT_WORDS:
            self[word] = ids
        return ids


class Encoder:
    """Tokenises the queries of one model: by memory where that gives the same tokens, else by the Rust tokenizer."""

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        """tokenizer: truncating at `max_length`, without padding."""
        self.tokenizer, self.max_length, self.limit = tokenizer, max_length, CHARS_PER_TOKEN * max_length
        self.room = INT64 * max_length
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
        """None for a text that the tokenizer parts otherwise, or that is very long."""
        tokens, rows = self.memo.__getitem__, []
        for text in texts:
            if len(text) > self.limit or not (text.isprintable() or ODD.isdisjoint(text)):
                return None
            rows.append(b"".join(map(tokens, text.split())))
        row = frame.start + frame.between.join(rows) + frame.end
        truncated = len(row) > self.room
        if truncated:
            if self.room < frame.size:
                return None
            rows = longest_first(rows, self.room - frame.size)
            row = frame.start + frame.between.join(rows) + frame.end
        sizes = [len(text) // INT64 for text in rows]
        return Remembered(tuple(texts), row, sizes, truncated, frame, self)


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
