"""Tables and figures of what was measured under load, from hand-written records."""

import pytest
from report_samples import record, write

from tabi_bench.report.figures import build
from tabi_bench.report.reading import read
from tabi_bench.report.tables import Tables


def under_load(goodput, overloaded=False):
    seeds = [{"passed": goodput * factor, "failed": goodput * factor * 1.05} for factor in (0.9, 1.0, 1.1)]
    p99 = {"value": 4.0, "low": 3.0, "high": 5.0}
    facts = {"rate": 700.0, "slo_ms": 10.0, "saturation_qps": 1000.0, "busy_share": 0.7, "forward_share": 0.6}
    facts |= {"mean_batch": 3.0, "goodput": {"qps": goodput, "seeds": seeds, "seconds": 30}}
    point = {"rate": 500.0, "p50": 1.0, "p99": 3.0, "mean": 1.5, "overloaded": False}
    facts["curve"] = [point, {"rate": 2000.0, "overloaded": True}]
    if overloaded:
        return {"load": {key: facts[key] for key in ("rate", "slo_ms", "saturation_qps", "goodput", "curve")}}
    return {"load": facts | {"p99": p99}}


@pytest.fixture
def tables(tmp_path):
    records = [
        record(m, "l", label="load", run_id=f"l-{m}", details=under_load(q))
        for m, q in (("infaas", 800.0), ("tabi", 1200.0))
    ]
    nothing = {"accuracy": {}, "latency_ms": {}, "shares": [], "reference": {}, "cost": {}, "throughput_qps": None}
    slow = {"status": "infeasible", "error": "overloaded at 700 queries a second", "outcome": None, **nothing}
    records.append(record("cocktail", "l", label="load", run_id="l-c", details=under_load(300.0, True), **slow))
    write(tmp_path, *records)
    facts = {"load": {"forward_share": 0.8, "busy_share": 0.9, "mean_batch": 60.0}}
    write(tmp_path, *(record(m, "o", label="offline", run_id=f"o-{m}", details=facts) for m in ("infaas", "tabi")))
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
