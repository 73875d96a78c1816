"""Queries that name their row."""

from __future__ import annotations

import pytest

from tabi_bench.tasks.base import Query


@pytest.fixture
def queries() -> list[Query]:
    return [Query(row, (str(row),)) for row in range(20)]
