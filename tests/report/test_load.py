"""Tables and figures of what was measured under load, from hand-written records."""

import json

import pytest
from report_samples import write_under_load

from tabi_bench.report.figures import build
from tabi_bench.report.reading import read
from tabi_bench.report.tables import Tables


@pytest.fixture
def tables(tmp_path):
    write_under_load(tmp_path)
    results = read(tmp_path)
    return Tables(results, results.settings()[0])


def test_goodput_beside_the_references_and_its_range_over_seeds(tables):
    data = tables.get("load").data.set_index("system")
    assert data.ratio.round(3).to_dict() == {"INFaaS": 1.0, "Tabi": 1.5, "Cocktail": 0.375}
    assert data.goodput_low["Tabi"] == pytest.approx(1080) and data.goodput_high["Tabi"] == pytest.approx(1320)
    text = tables.get("load").markdown()
    assert "1200 [1080, 1320]" in text and "4.00 [3.00, 5.00]" in text
    assert "Its runs took" not in text, "30 s are enough"
    assert "overloaded at 700 queries a second" in text, "a system without latencies says why"
    assert "300 [270, 330] | 0.38 | 10.00 | 700 | –" in text, "and has its goodput"


def test_offline_against_the_reference(tables):
    assert tables.get("offline").data.ratio.tolist() == pytest.approx([1.0, 10 / 6])


def test_figures_hold_what_the_tables_say(tables, tmp_path):
    drawings = build(tables, ("load_curve", "goodput", "throughput"))
    assert set(drawings) == {"load_curve", "goodput", "throughput"}
    curve = drawings["load_curve"].data
    assert curve[~curve.overloaded].rate.tolist() == [500.0] * 3
    assert curve[curve.overloaded].p99.isna().all(), "an overloaded rate is a mark, and no point"
    assert drawings["goodput"].data.goodput.tolist() == tables.get("load").data.goodput.tolist()
    for drawing in drawings.values():
        assert all(path.stat().st_size > 0 for path in drawing.save(tmp_path))


def test_without_goodput_the_table_has_the_latency_at_the_rate(tmp_path):
    write_under_load(tmp_path)
    for path in tmp_path.rglob("record.json"):
        record = json.loads(path.read_text())
        record["details"].get("load", {}).pop("goodput", None)
        path.write_text(json.dumps(record))
    results = read(tmp_path)
    tables = Tables(results, results.settings()[0])
    text = tables.get("load").markdown()
    assert tables.get("load").data.goodput.isna().all() and "4.00 [3.00, 5.00]" in text
    assert "No goodput was asked for." in text and "it held for" not in text
    assert set(build(tables, ("load_curve", "goodput"))) == {"load_curve"}
