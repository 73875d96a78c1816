"""The paper's numbers: which printed reductions follow from the printed latencies."""

from __future__ import annotations

import pytest

from tabi_bench.report import paper


def test_all_but_one_printed_reduction_follow():
    table = paper.reductions().set_index(["task", "against"])
    assert len(table) == 20
    assert table[table.follows == "no"].index.tolist() == [("rte", "cocktail")]
    assert set(table[table.follows == "within rounding"].index) == {("mnli", "infaas"), ("clinc", "infaas")}


@pytest.mark.parametrize(
    ("ours", "other", "said", "expected", "follows"),
    [
        (13.2, 22.0, 40, 40.0, "yes"),
        (20.3, 25.8, 22, 21.318, "within rounding"),  # 20.25 / 25.85 gives 21.66
        (30.0, 34.7, 12, 13.545, "no"),
    ],
)
def test_reductions_by_hand(ours, other, said, expected, follows):
    row = paper._reduction("task", "other", said, ours, other)
    assert row["recomputed_pct"] == pytest.approx(expected, abs=1e-3)
    assert row["low_pct"] < row["recomputed_pct"] < row["high_pct"]
    assert row["follows"] == follows


def test_claims_hold_for_the_printed_table():
    printed = paper.printed("main_table").query("method == 'tabi'")
    assert (printed.printed_reduction_vs_infaas_pct.min(), printed.printed_reduction_vs_infaas_pct.max()) == (21, 40)
    assert (printed.accuracy_pct >= printed.target_pct).all()
    tabi3 = paper.printed("three_level").iloc[0]
    tabi = paper.main_cell("mnli", "tabi")
    assert 100 * (tabi3.mean_ms / tabi["latency_ms"] - 1) == pytest.approx(tabi3.mean_vs_tabi_pct, abs=0.05)
    assert paper.main_cell("mnli", "deebert") == {}
