"""From raw text to tokens and back to words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabi_bench.engines.encoding import KEPT_CHARS, Encoder, Encoders, Remembered, encode
from tabi_bench.zoo.families.shapes import word_tokenizer
from tabi_bench.zoo.tiny import SHIPPED
from tabi_bench.zoo.words import align, word_spans
from tests.engines.micro_models import micro_tokenizer

ENCODERS = Encoders()

LONGEST = 24
# white space of every kind that str.split knows, one that it does not, letters with and without a token
ALPHABET = " \t\n\x0b\x1c\x1f\x85\xa0\u2003\u2028\u3000\u200b'.,atgoodé映\u0301\U0001f600"


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = micro_tokenizer()
    tokenizer.enable_truncation(LONGEST, strategy="longest_first")
    return tokenizer


def test_words_are_aligned_by_offsets(tokenizer):
    encoding = encode(tokenizer, ("Don't  play\nfilms",), LONGEST)
    assert encoding.tokens.tokens == ["[CLS]", "don", "'", "t", "play", "film", "##s", "[SEP]"]
    assert encoding.words == (["Don't", "play", "films"],)
    assert encoding.word_of_token.tolist() == [-1, 0, 0, 0, 1, 2, 2, -1]


def test_words_of_a_pair_are_numbered_through(tokenizer):
    encoding = encode(tokenizer, ("a film", "the play"), LONGEST)
    assert encoding.word_of_token.tolist() == [-1, 0, 1, -1, 2, 3, -1]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1, 1]


def test_empty_texts(tokenizer):
    encoding = encode(tokenizer, ("",), LONGEST)
    assert (encoding.n_tokens, encoding.words, encoding.truncated) == (2, ([],), False)
    assert encoding.word_of_token.tolist() == [-1, -1]
    assert encode(tokenizer, ("", "good"), LONGEST).word_of_token.tolist() == [-1, -1, 0, -1]


def test_ten_thousand_words_are_cut_as_the_tokenizer_cuts_them(tokenizer):
    text = "the film is not good " * 2000
    encoding = encode(tokenizer, (text,), LONGEST)
    assert encoding.truncated and encoding.n_tokens == LONGEST
    assert encoding.tokens.ids == tokenizer.encode(text).ids
    assert len(encoding.words[0]) == 10_000
    assert encoding.word_of_token.tolist() == [-1, *range(LONGEST - 2), -1]


def test_a_long_text_of_few_tokens_is_read_to_its_end(tokenizer):
    text = "good" + " " * 5000 + "film"
    encoding = encode(tokenizer, (text,), LONGEST)
    assert encoding.tokens.tokens == ["[CLS]", "good", "film", "[SEP]"] and not encoding.truncated


def test_truncation_cuts_the_longer_text(tokenizer):
    encoding = encode(tokenizer, ("good film", "bad " * 100), LONGEST)
    assert encoding.truncated and encoding.n_tokens == LONGEST
    assert encoding.word_of_token[:4].tolist() == [-1, 0, 1, -1]


def test_exactly_the_longest_input_is_not_truncated(tokenizer):
    assert not encode(tokenizer, ("good " * (LONGEST - 2),), LONGEST).truncated
    assert encode(tokenizer, ("good " * (LONGEST - 1),), LONGEST).truncated


def test_non_ascii_and_words_without_a_token(tokenizer):
    encoding = encode(tokenizer, ("Café \x00\x01 映画 good",), LONGEST)
    assert encoding.words == (["Café", "\x00\x01", "映画", "good"],)
    assert encoding.tokens.tokens == ["[CLS]", "café", "[UNK]", "[UNK]", "good", "[SEP]"]
    assert encoding.word_of_token.tolist() == [-1, 0, 2, 2, 3, -1]


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET, max_size=60))
def test_spans_are_the_runs_of_str_split(text):
    assert [text[first:end] for first, end in word_spans(text)] == text.split()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(ALPHABET, max_size=40), min_size=1, max_size=2))
def test_every_token_belongs_to_the_word_that_holds_it(texts):
    tokenizer = micro_tokenizer()
    encoding = encode(tokenizer, tuple(texts), 512)
    words = [word for run in encoding.words for word in run]
    special = np.array(encoding.tokens.special_tokens_mask, bool)
    actual = encoding.word_of_token
    assert (actual[special] == -1).all() and (actual[~special] >= 0).all()
    assert (np.diff(actual[~special]) >= 0).all() and (actual < len(words)).all()


# --- words remembered -------------------------------------------------------------------------------------------------

PRINTABLE = " .,'-ABCdefgoodé映ß\u0130\u0301\u03a3\U0001f600[SEP]"


def same(encoder, texts: tuple[str, ...], tokenizer=None) -> None:
    """What is remembered is what the Rust tokenizer says, token by token and word by word."""
    encoding, tokens = encoder(texts), (tokenizer or encoder.tokenizer).encode(*texts)
    assert encoding.ids == tokens.ids and encoding.type_ids == tokens.type_ids
    assert encoding.truncated == bool(tokens.overflowing)
    assert encoding.content.tolist() == (1 - np.array(tokens.special_tokens_mask)).tolist()
    assert encoding.word_of_token.tolist() == align(texts, tokens).tolist()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(PRINTABLE, max_size=40), min_size=1, max_size=2).map(tuple))
def test_remembered_tokens_are_those_of_the_tokenizer(texts):
    encoder = Encoder(micro_tokenizer(), 512)
    same(encoder, texts)
    same(encoder, texts)
    assert isinstance(encoder(texts), Remembered)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=2).map(tuple))
def test_any_text_is_tokenised_as_by_the_shipped_tokenizers(texts):
    same(ENCODERS.of(SHIPPED / "clinc" / "1x64", 32), texts)


def test_what_memory_cannot_know_goes_through_the_tokenizer(tokenizer):
    encoder = Encoder(tokenizer, LONGEST)
    for texts in [("good\x0bfilm",), ("good \x1cfilm",), ("good\x85film", "a"), ("film " * 20 * LONGEST,)]:
        same(encoder, texts)
        assert not isinstance(encoder(texts), Remembered)


def test_white_space_and_control_characters_are_remembered(tokenizer):
    encoder = Encoder(tokenizer, LONGEST)
    for texts in [("good\tfilm\n",), ("good \x00film",), ("good\u00a0fi\u00adlm", "\u2060"), ("\ufeffa\u2028good",)]:
        same(encoder, texts)
        assert isinstance(encoder(texts), Remembered)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(PRINTABLE, max_size=40), min_size=1, max_size=2).map(tuple), st.integers(5, 20))
def test_texts_are_cut_as_the_tokenizer_cuts_them(texts, longest):
    tokenizer = micro_tokenizer()
    tokenizer.enable_truncation(longest, strategy="longest_first")
    encoder = Encoder(tokenizer, longest)
    same(encoder, texts)
    assert isinstance(encoder(texts), Remembered)


def test_a_tokenizer_that_looks_across_spaces_is_not_second_guessed():
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.enable_truncation(8)
    assert not isinstance(Encoder(tokenizer, 8)(("a a",)), Remembered)


def test_memory_is_bounded_and_can_be_emptied():
    encoder = Encoder(micro_tokenizer(), 512)
    encoder(("good film " + "x" * (KEPT_CHARS + 1),))
    assert set(encoder.memo) == {"good", "film"}
    encoder.forget()
    assert not encoder.memo


def test_models_with_equal_tokenizers_share_an_encoder():
    small, large, other = (
        SHIPPED / task / shape for task, shape in (("rte", "1x64"), ("rte", "10x48"), ("cola", "1x64"))
    )
    of = Encoders().of
    assert of(small, 64) is of(large, 64)
    assert of(small, 64) is not of(small, 32)
    assert of(small, 64) is not of(other, 64)
    assert of(small, 64) is not Encoders().of(small, 64)


# --- words left out ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.text(PRINTABLE, min_size=1, max_size=40), min_size=1, max_size=2).map(tuple))
def test_without_some_words_is_the_encoding_of_what_is_left(data, texts):
    encoder = Encoder(micro_tokenizer(), 512)
    encoding = encoder(texts)
    assert isinstance(encoding, Remembered)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=(n := sum(map(len, encoding.words))), max_size=n)), bool)
    shorter = encoding.without(keep, encoder)
    same(lambda _: shorter, encoding.kept_texts(keep), encoder.tokenizer)


def test_kept_words_are_joined_in_order_and_untouched_texts_stay_as_they_were():
    encoder = Encoder(micro_tokenizer(), 512)
    for texts in (("a  film", "the play"), ("a \t film", "the play")):  # remembered, and tokenised whole
        shorter = encoder(texts).without(np.array([True, False, True, True]), encoder)
        assert shorter.texts == ("a", "the play")
        assert encoder(texts).without(np.ones(4, bool), encoder).texts == texts


def test_for_another_tokenizer_what_is_left_is_tokenised_by_it():
    own, other = Encoder(micro_tokenizer(), 512), Encoder(word_tokenizer(), 512)
    encoding = own(("w1 film w2",))
    assert isinstance(encoding, Remembered)
    same(lambda _: encoding.without(np.array([True, False, True]), other), ("w1 w2",), other.tokenizer)


def test_what_was_tokenised_whole_is_tokenised_again(tokenizer):
    encoder = Encoder(tokenizer, LONGEST)
    encoding = encoder(("bad " * 30 + "film",))
    assert encoding.truncated
    shorter = encoding.without(np.arange(31) > 27, encoder)
    assert shorter.texts == ("bad bad film",) and shorter.ids == tokenizer.encode("bad bad film").ids
    assert shorter.word_of_token.tolist() == [-1, 0, 1, 2, -1] and not shorter.truncated
