"""Tokens and words: byte-level, WordPiece and Unigram tokenizers against the tokens' own characters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tabi_bench.zoo.training import encode
from tabi_bench.zoo.words import align, without_short_texts

CORPUS = ["the film isn't good at all , a bad movie", "do not play it again (really) ; café 映画"] * 20


def byte_level(corpus: list[str] = CORPUS) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    return tokenizer


def word_piece(corpus: list[str] = CORPUS) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def unigram(corpus: list[str] = CORPUS) -> Tokenizer:
    """Spaces are counted to the word behind them, as in DeBERTa's and ALBERT's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>", "[CLS]", "[SEP]"], unk_token="<unk>")
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


KINDS = {"byte-level": byte_level(), "WordPiece": word_piece(), "Unigram": unigram()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["the film isn't good ", " the film\tisn't  good", "the film isn't good\n"])
def test_white_space_around_words_changes_no_word(kind, text):
    tokenizer = KINDS[kind]
    tokens = tokenizer.encode(text)
    word = align([text], tokens)
    for number, expected in enumerate(["the", "film", "isn't", "good"]):
        rows = np.flatnonzero(word == number)
        characters = {at for row in rows for at in range(*tokens.offsets[row]) if not text[at].isspace()}
        start = text.index(expected)
        assert characters == set(range(start, start + len(expected)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(KINDS)),
    st.lists(st.text(" \t\nab.,'thefilmé映()", max_size=30), min_size=1, max_size=2).map(tuple),
)
def test_a_tokens_characters_lie_in_its_word(kind, texts):
    """An oracle by characters: what is not white space of a token lies in one word, and that is the aligned one."""
    tokens = KINDS[kind].encode(*texts)
    counts = [0, len(texts[0].split())]
    for row, word in enumerate(align(texts, tokens)):
        sequence = tokens.sequence_ids[row]
        if sequence is None:
            assert word == -1
            continue
        text = texts[sequence]
        solid = [at for at in range(*tokens.offsets[row]) if not text[at].isspace()]
        words_before = {len(text[: at + 1].split()) - 1 + counts[sequence] for at in solid}
        if len(words_before) <= 1 and (not solid or solid[-1] == tokens.offsets[row][1] - 1):
            assert word == (words_before.pop() if solid else -1)


@pytest.mark.parametrize("kind", KINDS)
def test_training_reads_the_same_words(kind):
    tokenizer, row = KINDS[kind], ("the film isn't good ", "a bad movie ")
    words = encode(tokenizer, [row]).words[0]
    tokens = tokenizer.encode(*row)
    expected = align(row, tokens)
    expected[expected > 3] = -1  # the second text has three words, which are never dropped
    np.testing.assert_array_equal(words, expected)
    assert set(words) == {-1, 0, 1, 2, 3}


def test_short_texts_are_left_out_by_their_count():
    word = np.array([-1, 0, 1, 2, 3, -1, 4, 5, -1])
    texts = ("a b c d", "e f")
    assert without_short_texts(word, texts, 3).tolist() == [-1, 0, 1, 2, 3, -1, -1, -1, -1]
    assert without_short_texts(word, texts, 1).tolist() == word.tolist()
