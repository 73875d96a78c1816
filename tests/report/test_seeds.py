"""Sessions of several seeds: no table mixes them, and the spread between them, by hand."""

from __future__ import annotations

import pytest
from report_samples import record, write

from tabi_bench.report.from_records import headline
from tabi_bench.report.reading import by_seed, newest, read, sessions
from tabi_bench.report.slim import slim
from tabi_bench.report.tables import Tables

LATER = {"dtype": "float32", "commit": "def4567890", "time": "2026-02-01T00:00:00+00:00"}


def session(name: str, reduction: float, early: float, apart: float, **changes):
    """INFaaS and Tabi, Tabi `reduction` percent faster and `apart` (a fraction) better."""
    reference = {"method": "infaas", "reduction_pct": reduction, "accuracy_difference": {"value": apart}}
    reference |= {"reduction_low": reduction - 1, "reduction_high": reduction + 1}
    mean = {"mean": 10 - reduction / 10, "p99": 12.0}
    of_tabi = {"shares": [early, 1 - early], "reference": reference, "latency_ms": mean} | changes
    common = {key: changes[key] for key in ("seed", "provenance", "task", "margin_se", "label") if key in changes}
    task = changes.get("task", "sst2")
    infaas = record("infaas", name, run_id=f"{task}-infaas-{name}", **common)
    return infaas, record("tabi", name, **(of_tabi | {"run_id": f"{task}-tabi-{name}"}))


@pytest.fixture
def folder(tmp_path):
    """sst2 under seeds 0 and 1, the latter twice; rte under seed 0 alone."""
    write(tmp_path, *session("a", 40.0, 0.6, -0.010))
    write(tmp_path, *session("b", 20.0, 0.5, -0.030, seed=1))
    write(tmp_path, *session("c", 34.0, 0.7, -0.020, seed=1, provenance=LATER, outcome="within noise"))
    write(tmp_path, *session("d", 30.0, 0.6, 0.0, task="rte"))
    return tmp_path


def built(root):
    results = read(root)
    (setting,) = results.settings()
    return Tables(results, setting).build()


def ids(actual):
    return [next(iter(cells.values())).record.session_id for cells in actual]


def test_of_several_seeds_the_lowest_is_read_and_of_one_seed_the_newest(folder):
    every = sessions(read(folder).runs)
    assert ids(newest(every)) == ["a", "d"]
    assert {seed: ids(actual) for seed, actual in by_seed(every).items()} == {0: ["a", "d"], 1: ["c"]}


def test_a_seed_that_failed_gives_way_to_the_next(folder):
    write(folder, *session("e", 1.0, 0.5, 0.0, task="cola", status="failed"), profile=False)
    write(folder, *session("f", 25.0, 0.5, 0.0, task="cola", seed=1))
    assert ids(newest(sessions(read(folder).runs))) == ["a", "d", "f"]


def test_a_session_of_other_systems_does_not_bring_a_second_seed_in(folder):
    """Sessions with and without Cocktail stand side by side, but only those of one seed."""
    infaas, tabi = session("g", 10.0, 0.5, 0.0, seed=1)
    write(folder, infaas, record("cocktail", "g", seed=1), tabi)
    assert ids(newest(sessions(read(folder).runs))) == ["a", "d"]


def test_no_table_mixes_seeds(folder):
    actual = built(folder)
    for name in ("main", "models", "tail", "break_even", "calibration"):
        assert set(actual[name].data.session_id) == {"a", "d"}, name
    assert "seeds" not in actual["main"].provenance
    assert "seeds 0, 1" in actual["seeds"].provenance


def test_the_median_and_the_range_by_hand(folder):
    write(folder, *session("h", 10.0, 0.8, 0.010, seed=2, outcome="missed", accuracy={"value": 0.89}))
    table = built(folder)["seeds"]
    (line,) = table.text().to_dict("records")
    assert line == {
        "task": "sst2",
        "margin SE": "0.5",
        "systems": "Tabi vs INFaaS",
        "seeds": "0, 1, 2",
        "less %": "34.0 [10.0, 40.0]",
        "early %": "70 [60, 80]",
        "score, points": "-1.0 [-2.0, 1.0]",
        "outcome": "met / within noise / missed",
        "p99 ratio": "1.00 [1.00, 1.00]",
    }
    assert "seeds 0, 1, 2" in table.provenance


def test_the_headline_holds_the_median_and_the_range_or_one_seeds_interval(folder):
    table = headline(read(folder))
    text = table.text().set_index("task")
    assert text.loc["sst2", "eager: less than INFaaS %"] == "37.0 [34.0, 40.0]"
    assert text.loc["rte", "eager: less than INFaaS %"] == "30.0 [29.0, 31.0]"
    assert text.loc["sst2", "eager: score % (over the target)"] == "92.5 (+2.5, met / within noise)"
    assert text.loc["sst2", "paper: less % (at score %)"] == "40 (at 95.6)"
    assert table.notes == ["In brackets: 95 % intervals. eager, seeds 0, 1 (sst2): median [lowest, highest]."]


def test_the_mean_over_tasks_by_hand(tmp_path):
    """Of one seed: half-widths 1 and 1 of independent tasks; of two: the means 35 and 25, and their median."""
    write(tmp_path, *session("a", 40.0, 0.6, 0.0), profile=False)
    write(tmp_path, *session("b", 30.0, 0.6, 0.0, task="rte"), profile=False)
    mean = headline(read(tmp_path)).text().set_index("task").loc["mean of 2"]
    assert mean["eager: less than INFaaS %"] == "35.0 [34.3, 35.7]"
    write(tmp_path, *session("c", 20.0, 0.6, 0.0, seed=1), profile=False)
    write(tmp_path, *session("d", 30.0, 0.6, 0.0, task="rte", seed=1), profile=False)
    mean = headline(read(tmp_path)).text().set_index("task").loc["mean of 2"]
    assert mean["eager: less than INFaaS %"] == "30.0 [25.0, 35.0]"


def test_one_seed_has_no_spread(results):
    assert "seeds" not in built(results)
    assert headline(read(results)).notes == ["In brackets: 95 % intervals."]


def test_the_slim_copy_keeps_every_seed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("slim") / "copy"
    slim(folder, out)
    assert built(out)["seeds"].text().equals(built(folder)["seeds"].text())
    assert sorted(path.stem for path in out.rglob("*.npz")) == ["a", "d"], "profiles of the seed that tables read"
