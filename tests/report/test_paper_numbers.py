"""The paper's numbers, as printed: what its claims say follows from its table."""

from __future__ import annotations

import pytest

from tabi_bench.report import paper


def test_claims_hold_for_the_printed_table():
    printed = paper.printed("main_table").query("method == 'tabi'")
    assert (printed.printed_reduction_vs_infaas_pct.min(), printed.printed_reduction_vs_infaas_pct.max()) == (21, 40)
    assert (printed.accuracy_pct >= printed.target_pct).all()
    tabi3 = paper.printed("three_level").iloc[0]
    tabi = paper.main_cell("mnli", "tabi")
    assert 100 * (tabi3.mean_ms / tabi["latency_ms"] - 1) == pytest.approx(tabi3.mean_vs_tabi_pct, abs=0.05)
    assert paper.main_cell("mnli", "deebert") == {}
