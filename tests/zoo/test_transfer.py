"""Queries made for a transfer set."""

import pytest

from tabi_bench.zoo.transfer import made_queries

ROWS = [
    ("the cat sat on the red mat", "a cat sat down on it"),
    ("two dogs ran over a green hill", "dogs ran up the hill today"),
    ("a cat and two dogs slept", "the weather is very fine"),
]


def test_texts_are_swapped_then_second_texts_replaced_then_fragments_taken():
    made = made_queries(ROWS, 3, seed=0)
    swapped, replaced, fragments = made[:3], made[3:6], made[6:]
    assert swapped == [(second, first) for first, second in ROWS]
    seconds = [second for _, second in ROWS]
    assert [query[0] for query in replaced] == [first for first, _ in ROWS]
    assert [seconds.index(query[1]) for query in replaced][:2] != [0, 1]
    assert all(query[1] != row[1] for query, row in zip(replaced, ROWS, strict=True))
    for (part, second), (whole, own) in zip(fragments, ROWS, strict=True):
        assert second == own and f" {part} " in f" {whole} " and 2 * len(part.split()) >= len(whole.split())


def test_a_second_text_is_replaced_by_the_one_that_shares_most_with_the_first():
    rows = [
        ("red apples fall", "blue sky"),
        ("blue sky above", "green apples"),
        ("tall green trees", "red apples here"),
    ]
    replaced = made_queries(rows, 2, seed=0)[len(rows) :]
    assert replaced == [(rows[0][0], rows[2][1]), (rows[1][0], rows[0][1]), (rows[2][0], rows[1][1])]


def test_later_rounds_repeat_with_fragments_and_the_next_similar_text():
    made = made_queries(ROWS, 5, seed=0)
    swapped, replaced, first_replaced = made[9:12], made[12:15], made[3:6]
    for (part, first), (own, second) in zip(swapped, ROWS, strict=True):
        assert first == own and f" {part} " in f" {second} "
    for row, one, other in zip(ROWS, first_replaced, replaced, strict=True):
        assert {row[1], one[1], other[1]} == {second for _, second in ROWS}


def test_the_same_seed_makes_the_same_queries_and_single_texts_are_refused():
    assert made_queries(ROWS, 4, seed=1) == made_queries(ROWS, 4, seed=1) != made_queries(ROWS, 4, seed=2)
    with pytest.raises(ValueError, match="pairs of texts"):
        made_queries([("one text",)], 1, seed=0)
