"""What stands beside what: A/A apart from competitors, equal plans, one row per system, intervals of older records."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from report_samples import plan, record, trace, write

from tabi_bench.report.from_records import headline
from tabi_bench.report.reading import read
from tabi_bench.report.tables import Tables

LATER = {"dtype": "float32", "commit": "def4567890", "time": "2026-02-01T00:00:00+00:00"}


def built(root) -> dict:
    results = read(root)
    (setting,) = results.settings()
    return Tables(results, setting).build()


def again(session: str, value: float, low: float | None, high: float | None, **changes):
    reference = {"method": "infaas", "reduction_pct": value, "reduction_low": low, "reduction_high": high}
    return record("reference_again", session, reference=reference, **changes)


# --- A/A --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_again(tmp_path):
    """Three sessions: two intervals with zero, one without, of widths 2, 4 and 1; a fourth of one block has none."""
    intervals = {"sst2": (0.0, -1, 1), "rte": (1.0, -1, 3), "cola": (2.0, 1.5, 2.5), "mrpc": (9.0, None, None)}
    for session, (task, interval) in zip("abcd", intervals.items(), strict=True):
        runs = [record(m, session, task=task, run_id=f"{task}-{m}") for m in ("infaas", "tabi")]
        write(tmp_path, *runs, again(session, *interval, task=task, run_id=f"{task}-again"), profile=False)
    return tmp_path


def test_a_a_by_hand(with_again):
    table = built(with_again)["aa"]
    assert table.text().to_dict("records") == [
        {
            "preset": "main_table",
            "sessions": "3",
            "intervals that contain zero": "2",
            "mean reduction % [lowest, highest]": "+1.00 [+0.00, +2.00]",
            "median width, points": "2.0",
        }
    ]


def test_the_reference_is_no_competitor_of_itself(with_again):
    tables = built(with_again)
    for name in ("main", "tail"):
        assert set(tables[name].data.system) == {"INFaaS", "Tabi"}
    assert "again" not in str(headline(read(with_again)).text())


def test_presets_have_lines_of_their_own(with_again):
    write(with_again, record("infaas", "e", label="deebert"), again("e", 0.5, -1, 2, label="deebert"), profile=False)
    text = built(with_again)["aa"].text()
    assert text[["preset", "sessions"]].to_numpy().tolist() == [["deebert", "1"], ["main_table", "3"], ["all", "4"]]


def test_without_a_a_there_is_no_table(results):
    assert "aa" not in built(results)


# --- one row per system -----------------------------------------------------------------------------------------------


def test_sessions_of_other_systems_add_rows_and_the_newest_speaks_for_a_system(tmp_path):
    write(tmp_path, record("infaas", "old", label="adhoc"), record("tabi", "old", label="adhoc"), profile=False)
    newer = {"provenance": LATER, "latency_ms": {"mean": 9.0}, "label": "adhoc"}
    write(tmp_path, record("infaas", "new", **newer), record("cocktail", "new", **newer), profile=False)
    table = built(tmp_path)["main"]
    assert table.text()[["system", "mean ms"]].to_numpy().tolist() == [
        ["INFaaS", "9.000"],
        ["Cocktail", "9.000"],
        ["Tabi", "6.000"],
    ]
    assert "sst2: rows of 2 sessions; compare their reductions, not their milliseconds." in table.notes


def test_a_failed_session_does_not_hide_an_older_good_one(tmp_path):
    write(tmp_path, record("infaas", "old"), record("tabi", "old"), profile=False)
    failed = {"provenance": LATER, "status": "failed"}
    names = ("infaas", "tabi", "cocktail")
    write(tmp_path, *(record(m, "new", run_id=f"f-{m}", **failed) for m in names), profile=False)
    text = built(tmp_path)["main"].text().set_index("system")
    assert text["mean ms"].to_dict() == {"INFaaS": "10.000", "Cocktail": "–", "Tabi": "6.000"}


# --- same plan --------------------------------------------------------------------------------------------------------


def test_systems_that_serve_the_same_plan_say_so(tmp_path):
    write(tmp_path, *(record(m, "a", label="three_level") for m in ("infaas", "tabi", "tabi3")))
    path = tmp_path / "three_level" / "sst2-tabi3-a" / "plan.json"
    path.write_text(json.dumps({**plan("tabi"), "method": "tabi3"}))
    text = built(tmp_path)["three_level"].text()
    assert text.set_index("system")["plan"].to_dict() == {"Tabi": "–", "Tabi, three levels": "same plan as Tabi"}


def test_a_record_that_says_so_needs_no_plan(tmp_path):
    same = {"method": "infaas", "reduction_pct": 0.2, "same_plan": True}
    write(tmp_path, record("infaas", "a"), record("tabi", "a", reference=same), profile=False)
    for path in tmp_path.rglob("plan.json"):
        path.unlink()
    assert built(tmp_path)["main"].text().set_index("system")["plan"]["Tabi"] == "same plan as INFaaS"


# --- intervals of older records ---------------------------------------------------------------------------------------


def narrow(method: str, session: str):
    """A record of schema 1, whose interval came from queries within blocks."""
    reference = {"method": "infaas", "reduction_pct": 40.0, "reduction_low": 39.9, "reduction_high": 40.1}
    return record(method, session, reference=reference, schema_version=1)


def test_intervals_of_schema_1_come_anew_from_traces_or_go(tmp_path):
    write(tmp_path, narrow("infaas", "a"), narrow("tabi", "a"), profile=False)
    path = tmp_path / "main_table" / "sst2-tabi-a" / "trace.parquet"
    noisy = trace(6.0)
    noisy["latency_ms"] *= np.random.default_rng(0).normal(1, 0.2, 40)[noisy.block]
    noisy.to_parquet(path)
    line = built(tmp_path)["main"].data.set_index("method").loc["tabi"]
    assert 2 < line.reduction_pct_high - line.reduction_pct_low < 20
    path.unlink()
    assert pd.isna(built(tmp_path)["main"].data.set_index("method").reduction_pct_low["tabi"])


def test_a_trace_in_part_gives_no_interval(tmp_path):
    write(tmp_path, narrow("infaas", "a"), narrow("tabi", "a"), profile=False)
    trace(6.0).iloc[:60].to_parquet(tmp_path / "main_table" / "sst2-tabi-a" / "trace.parquet")
    assert pd.isna(built(tmp_path)["main"].data.set_index("method").reduction_pct_low["tabi"])


def test_intervals_of_this_schema_are_those_of_the_record(tmp_path):
    reference = {"method": "infaas", "reduction_pct": 40.0, "reduction_low": 31.0, "reduction_high": 49.0}
    write(tmp_path, record("infaas", "a"), record("tabi", "a", reference=reference), profile=False)
    assert built(tmp_path)["main"].text().set_index("system")["vs INFaaS %"]["Tabi"] == "40.0 [31.0, 49.0]"
