"""Rows as a reader found them: columns of cells, and where in its file each row stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from tabi_bench.names import printable

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Cell = str | int | float | bool | None


class DataError(ValueError):
    """The data cannot be used; the message says in one line what, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class Table:
    """The rows of one split.

    columns: cells by column, lists of Python values or Arrow columns, all of length N. place(row): where the row stands
    in its file, e.g. "line 7". classes: the names behind a column of class numbers. warnings: what the reader doubts.
    """

    columns: Mapping[str, Sequence | pa.ChunkedArray]
    rows: int
    place: Callable[[int], str]
    classes: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.rows

    @classmethod
    def of(cls, data: Table | Dataset) -> Table:
        """A Table as it is; a `datasets.Dataset`, which a source of one's own may hand in, as one."""
        return data if isinstance(data, Table) else cls.of_arrow(data.data.table, data.features.arrow_schema.metadata)

    @classmethod
    def of_arrow(cls, table: pa.Table, metadata: dict[bytes, bytes] | None) -> Table:
        """An Arrow table; `metadata` of its schema may hold the names of classes, as Hugging Face writes them."""
        try:
            written = json.loads((metadata or {}).get(b"huggingface", b"{}"))
            features = (written.get("info") or {}).get("features") or {}
        except (ValueError, AttributeError):
            features = {}
        classes = {name: f for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
        named = {name: names for name, feature in classes.items() if (names := class_names(feature.get("names")))}
        columns = dict(zip(table.column_names, table.columns, strict=True))
        return cls(columns, table.num_rows, lambda row: f"row {row + 1}", named)

    @classmethod
    def joined(cls, parts: dict[str, Table]) -> Table:
        """The rows of several shards, by file name, one after the other. Raises DataError if their columns differ."""
        if len(parts) == 1:
            return next(iter(parts.values()))
        first, starts = next(iter(parts)), np.cumsum([0, *map(len, parts.values())])
        for name, part in parts.items():
            if set(part.columns) != set(parts[first].columns) or part.classes != parts[first].classes:
                raise DataError(f"{name} has other columns than {first}: {', '.join(part.columns)}; "
                                f"the shards of a split need the same")  # fmt: skip

        def place(row: int) -> str:
            shard = int(np.searchsorted(starts, row, side="right")) - 1
            return f"{list(parts)[shard]} {list(parts.values())[shard].place(row - int(starts[shard]))}"

        columns = {name: [c for part in parts.values() for c in part.cells(name)] for name in parts[first].columns}
        warnings = [line for part in parts.values() for line in part.warnings]
        return cls(columns, int(starts[-1]), place, parts[first].classes, warnings)

    def cells(self, column: str) -> list[Cell]:
        """The cells of a column: text, numbers, booleans, None. Raises DataError for anything else, by its row.

        Bytes are decoded as UTF-8; a float of 32 or 16 bits is the shortest decimal number that it stands for (3.8,
        not 3.7999999523), which is what was written into it.
        """
        import pyarrow as pa

        cells, values = [], self.columns[column]
        arrow = isinstance(values, pa.ChunkedArray)
        kind = values.type if isinstance(values, pa.ChunkedArray) else None
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        narrow = {pa.float32(): np.float32, pa.float16(): np.float16}.get(kind)
        for row, value in enumerate(values):
            try:
                value = value.as_py() if arrow else value
                cells.append(_cell(narrow(value) if narrow and value is not None else value))
            except UnicodeDecodeError:
                raise DataError(f"{self.place(row)}: column {column!r} holds bytes that are no UTF-8 text") from None
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"{self.place(row)}: column {column!r} holds {error}") from None
        return cells


def class_names(names: Any) -> list[str]:
    """The names of classes, written as a list or by their number; none where they are not all texts."""
    listed = list(names.values()) if isinstance(names, dict) else names
    return listed if isinstance(listed, list) and all(isinstance(name, str) for name in listed) else []


def _cell(value: object) -> Cell:
    """A cell's value. Raises TypeError or ValueError, whose message says what it holds instead."""
    if isinstance(value, np.floating):
        value = float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half of a character (a lone surrogate); write the whole one") from None
        return value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    kind = {"dict": "an object", "list": "a list", "ndarray": "a list"}.get(type(value).__name__, type(value).__name__)
    more = "; one label or text a row" if kind == "a list" else ""
    raise TypeError(f"{kind} ({str(value)[:40]}), not text or a number{more}")
