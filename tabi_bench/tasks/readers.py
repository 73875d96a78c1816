"""Readers of parquet, jsonl, csv and tsv: all rows of the file as they were written, or a DataError with the line.

Text files are UTF-8, with or without a byte order mark; lines end with LF, CRLF or CR. A csv quotes as spreadsheets do;
a tsv does not quote at all, as GLUE's files with bare quotation marks do not.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabi_bench.tasks.table import DataError, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = (".parquet", ".jsonl", ".csv", ".tsv")
MARKS = {  # of files that are no UTF-8 text
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a zip archive or a workbook", b"\x1f\x8b": "gzip", b"PAR1": "parquet",
    b"version https://git-lfs": "a git-lfs pointer, not the file itself (git lfs pull)",
}  # fmt: skip
LINE_END = re.compile(r"\r\n|\n|\r")
MANY_LINES = 3  # a cell over so many lines whose every line looks like a row is two stray quotation marks


def usual_files(split: str) -> list[str]:
    """Patterns of the files that hold a split of this name: one, or shards."""
    return [f"{split}{middle}{suffix}" for suffix in FORMATS for middle in ("", "-*-of-*")]


def read(paths: list[Path], advice: str = "write it again") -> Table:
    """The rows of files of one format; columns of csv and tsv are all text. Raises DataError, with `advice`."""
    parts = {}
    for path in paths:
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path}: format {path.suffix or 'without a suffix'} is not read; use {', '.join(FORMATS)}")
        try:
            parts[path.name] = reader(path)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except Exception as error:  # whatever a damaged file makes a library raise
            if isinstance(error, OSError) and error.errno:
                raise DataError(f"{path} cannot be read: {error.strerror}") from None
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise DataError(f"{path}: not readable as {path.suffix[1:]} ({line}); {advice}") from error
    return Table.joined(parts)


def _parquet(path: Path) -> Table:
    import pyarrow.parquet

    with path.open("rb") as stream:
        _refuse_foreign(stream.read(32), "parquet")
        table = pyarrow.parquet.ParquetFile(stream).read()
    _refuse_repeated(table.column_names)
    return Table.of_arrow(table, table.schema.metadata)


def _refuse_foreign(data: bytes, wanted: str) -> None:
    kind = next((kind for mark, kind in MARKS.items() if data.startswith(mark)), wanted)
    if kind != wanted:
        raise DataError(f"it is {kind}, but {wanted} is expected; save it so, or give it the suffix of what it is")


def _text(path: Path) -> str:
    """The decoded file. Raises DataError that names the encoding, if it is another one, and the line."""
    data = path.read_bytes()
    _refuse_foreign(data, "UTF-8 text")
    if (place := data.find(b"\0")) >= 0:
        line = len(re.findall(rb"\r\n|\n|\r", data[:place])) + 1
        raise DataError(f"line {line}: a NUL byte; UTF-16 without a mark, or no text: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\n|\r", data[: error.start])) + 1
        meant = data[error.start : error.start + 1].decode("cp1252", "ignore")
        hint = f", {meant!r} in Windows-1252 (cp1252)" if meant else ""
        wrong = f"line {line}: byte 0x{data[error.start]:02x} is no UTF-8{hint}"
        raise DataError(f"{wrong}; save the file as UTF-8") from None


def _jsonl(path: Path) -> Table:
    rows, lines = [], []
    for number, line in enumerate(LINE_END.split(_text(path)), start=1):  # a raw CR cannot stand inside JSON
        if line.strip():
            rows.append(_object(line, number))
            lines.append(number)
    if not rows:
        raise DataError("the file is empty; one object per line is expected")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(columns, len(rows), lambda row: f"line {lines[row]}")


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_unrepeated)
    except DataError as error:
        raise DataError(f"line {number}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(f"line {number}: not a JSON object ({reason}); one object per line is expected") from None
    if not isinstance(row, dict):
        kinds = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
        raise DataError(f"line {number}: {kinds.get(type(row), 'null')}, not an object; one object per line is "
                        f'expected, {{"text": ..., "label": ...}}')  # fmt: skip
    return row


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([name for name, _ in pairs])
    return dict(pairs)


def _refuse_repeated(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{', '.join(map(repr, twice))} stands there twice; rename one")


def _csv(path: Path) -> Table:
    """Everything as text: "NA", "null" and "no" are words here, not missing values."""
    text = _text(path)
    raw = LINE_END.split(text)
    records = [(first, last, cells) for first, last, cells in _records(text) if cells]
    _refuse_swallowed(records, raw)
    return _table([(first, cells) for first, _, cells in records], "a comma in a text wants quotation marks around it")


def _records(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, last line, cells) of each record of a csv."""
    csv.field_size_limit(2**31 - 1)
    reader, last = csv.reader(io.StringIO(text, newline=""), strict=True), 0
    try:
        for cells in reader:
            yield last + 1, reader.line_num, cells
            last = reader.line_num
    except csv.Error as error:
        raise DataError(f"line {last + 1}: quotation marks that do not pair up ({error}); "
                        f'write "" for one inside quotation marks, or use jsonl') from None  # fmt: skip


def _refuse_swallowed(records: list[tuple[int, int, list[str]]], raw: list[str]) -> None:
    """Two stray quotation marks make one cell of all rows between them: each of its lines then looks like a row."""
    if not records:
        return
    commas = len(records[0][2]) - 1
    plain = all(line.count(",") == commas for line in raw if line)
    for first, last, _ in records:
        inside = raw[first - 1 : last]
        alike = len(inside) > 1 and all(line.count(",") == commas for line in inside if line)
        if alike and (plain or len(inside) >= MANY_LINES):
            raise DataError(
                f"line {first}: a quotation mark opens here, closes in line {last}, and every line between looks like "
                f'a row of its own; put the text in quotation marks and double those in it ("" for "), or use jsonl'
            )


def _tsv(path: Path) -> Table:
    lines = [(number, line) for number, line in enumerate(LINE_END.split(_text(path)), start=1) if line]
    table = _table([(number, line.split("\t")) for number, line in lines], "cells of a tsv hold no tabs or line breaks")
    quoted = [number for number, line in lines if re.search(r'(^|\t)"[^\t]*""[^\t]*"(\t|$)', line)]
    around = [number for number, line in lines[1:] if re.search(r'(^|\t)"[^\t]*"(\t|$)', line)]
    quoted = quoted or around * (2 * len(around) > len(lines))
    if quoted:
        table.warnings.append(
            f"{len(quoted)} lines of {path.name} look quoted, first line {quoted[0]}; a tsv is read without "
            f"quoting, so the marks are part of the text (save it as csv if they are not)"
        )
    return table


def _table(records: list[tuple[int, list[str]]], hint: str) -> Table:
    """Records (line, cells), the header first, as a table. Raises DataError for one with more or fewer cells."""
    if not records:
        raise DataError("the file is empty; its first line names the columns")
    header = records[0][1]
    _refuse_repeated(header)
    for line, cells in records[1:]:
        if len(cells) != len(header):
            raise DataError(f"line {line}: {len(cells)} fields, but the header has {len(header)}; {hint}")
    columns = {name: [cells[index] for _, cells in records[1:]] for index, name in enumerate(header)}
    return Table(columns, len(records) - 1, lambda row: f"line {records[row + 1][0]}")


READERS = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv}
