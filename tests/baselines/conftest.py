"""The ladder of the toy profile, and queries that name their row."""

from __future__ import annotations

from pathlib import Path

import pytest
from baseline_toys import LATENCY_MS

from tabi_bench.tasks.base import Query
from tabi_bench.zoo.base import ModelSpec, Zoo


@pytest.fixture
def zoo() -> Zoo:
    specs = [ModelSpec(name, Path("nowhere"), "bert", 1, 1, name) for name in LATENCY_MS]
    return Zoo("toy", tuple(specs))


@pytest.fixture
def queries() -> list[Query]:
    return [Query(row, (str(row),)) for row in range(20)]
