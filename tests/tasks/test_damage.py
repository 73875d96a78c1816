"""Generated damage: every reader gives the rows as they were written, or a DataError that says where."""

from __future__ import annotations

import csv
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabi_bench.tasks.checks import DataError
from tabi_bench.tasks.readers import read

AWKWARD = st.sampled_from(
    ['"', '""', ",", "\t", "\n", "\r", "\r\n", "\u2028", "\x85", "\x0b", "\ufeff", "[", "{", "'", "\\", " "]
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
CELLS = st.lists(AWKWARD | WORDS, max_size=5).map("".join)
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8)
SOMEWHERE = re.compile(r"line \d+|row \d+|empty|twice|UTF|is expected|not readable as")
OTHERS = st.sampled_from([None, True, 3, 2.5, ["a"], {"a": 1}, float("nan"), 10**30])


def check(path, content: bytes, written: list[tuple], suffix: str) -> bool:
    """Reads `content`: the rows as written (True), or a DataError that says where (False)."""
    file = path / f"train.{suffix}"
    file.write_bytes(content)
    try:
        table = read([file])
        assert set(table.columns) == {"text", "label"} or not written
        rows = list(zip(*(table.cells(column) for column in ("text", "label")), strict=True))
    except DataError as error:
        assert SOMEWHERE.search(str(error)) and "\n" not in str(error), error
        return False
    assert repr(rows) == repr(written)
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


def as_csv(rows, **options) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows([("text", "label"), *rows])
    return stream.getvalue()


@given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_a_written_csv_is_read_as_written(folder, rows, end, mark, everything):
    rows = [(text, label) for text, label in rows if not (text == "" and label == "")] or [("a", "b")]
    breaks = any(re.search(r"[\r\n]", cell) for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if everything or breaks else csv.QUOTE_MINIMAL  # the writer forgets line breaks of others
    content = mark + as_csv(rows, lineterminator=end, quoting=quoting)
    whole = check(folder, content.encode(), rows, "csv")
    assert whole or breaks  # only a text with line breaks may be doubted


@given(ROWS)
def test_a_csv_without_quotation_is_read_line_by_line_or_refused(folder, rows):
    rows = [tuple(re.sub(r"[\r\n,]", "", cell) for cell in row) for row in rows]
    content = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows])
    file = folder / "plain.csv"
    file.write_bytes(content.encode())
    try:
        table = read([file])
    except DataError as error:
        assert SOMEWHERE.search(str(error)), error
        return
    assert len(table) == len(rows)
    for cell, (text, _) in zip(table.cells("text"), rows, strict=True):
        unquoted = text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text
        assert cell == unquoted


@given(ROWS)
def test_a_tsv_is_read_as_written_or_refused(folder, rows):
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    clean = not any(re.search(r"[\t\r\n]", cell) for row in rows for cell in row)
    file = folder / "train.tsv"
    file.write_bytes(content.encode())
    try:
        table = read([file])
    except DataError as error:
        assert SOMEWHERE.search(str(error)) and not clean, error
        return
    if clean:
        assert list(zip(table.cells("text"), table.cells("label"), strict=True)) == rows


@given(st.lists(st.tuples(CELLS | OTHERS, CELLS | OTHERS), min_size=1, max_size=6), st.booleans(),
       st.sampled_from(["\n", "\r\n", "\r"]))  # fmt: skip
def test_jsonl_gives_what_was_written_and_refuses_lists(folder, rows, ascii_only, end):
    lines = [json.dumps({"text": a, "label": b}, ensure_ascii=ascii_only) for a, b in rows]
    whole = check(folder, (end.join(lines) + end).encode(), rows, "jsonl")
    assert whole == (not any(isinstance(cell, (list, dict)) for row in rows for cell in row))


@given(ROWS)
def test_parquet_gives_what_was_written(folder, rows):
    texts, labels = zip(*rows, strict=True)
    stream = io.BytesIO()
    table = pa.table({"text": pa.array(texts).dictionary_encode(), "label": pa.array([one.encode() for one in labels])})
    pq.write_table(table, stream)
    assert check(folder, stream.getvalue(), rows, "parquet")


@settings(max_examples=200)
@given(
    st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    st.sampled_from(["cut", "flip", "insert", "utf-16", "cp1252", "nul", "list", "empty"]),
    st.integers(0, 10_000),
    st.binary(min_size=1, max_size=3),
)
def test_damaged_bytes_are_never_a_traceback(folder, suffix, kind, place, noise):
    rows = [(f"naïve film {k}", ("neg", "pos")[k % 2]) for k in range(12)]
    content = {
        "csv": as_csv(rows).encode(),
        "tsv": "".join(f"{a}\t{b}\n" for a, b in [("text", "label"), *rows]).encode(),
        "jsonl": "".join(json.dumps({"text": a, "label": b}, ensure_ascii=False) + "\n" for a, b in rows).encode(),
    }.get(suffix)
    if content is None:
        stream = io.BytesIO()
        pq.write_table(pa.table({"text": [a for a, _ in rows], "label": [b for _, b in rows]}), stream)
        content = stream.getvalue()
    place %= len(content)
    damaged = {
        "cut": content[:place],
        "flip": content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :],
        "insert": content[:place] + noise + content[place:],
        "nul": content[:place] + b"\0" + content[place:],
        "list": b"[1, 2]\n" + content,
        "empty": b"",
    }.get(kind)
    if damaged is None:
        damaged = content.decode("utf-8", "replace").replace("\ufffd", "?").encode(kind, "replace")
    file = folder / f"damaged.{suffix}"
    file.write_bytes(damaged)
    try:
        table = read([file])
        for column in table.columns:
            assert len(table.cells(column)) == len(table)
    except DataError as error:
        assert SOMEWHERE.search(str(error)) and "\n" not in str(error), error
