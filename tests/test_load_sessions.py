"""Sessions in batches, whole: plans for the scenario, live labels as replayed, what the records say."""

import numpy as np
import pytest

from tabi_bench import registry
from tabi_bench.experiment import run_session
from tabi_bench.profiling.profile import LatencyCurve, ModelProfile, Profile
from tabi_bench.summary import COLUMNS, heading, rows, where

SMALL = ["source.train_rows=600", "source.validation_rows=120", "engine.device=cpu", "scenario.profile_rounds=1"]


@pytest.fixture
def micro(composed, cache, tmp_path, monkeypatch):
    """As the shared fixture of that name, without the settings of single_stream."""
    monkeypatch.setitem(registry.TABLE["zoo"], "tiny", registry.TABLE["zoo"]["tiny"]._replace(code="tests.micro:load"))
    return lambda *overrides: composed(*SMALL, f"results_dir={tmp_path}/results", f"cache_dir={cache}", *overrides)


def by_method(config):
    return {record.method: record for record in run_session(config)}


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_a_session_in_batches(micro, scenario):
    more = ["scenario.seconds=0.2", "scenario.rate=300"] if scenario == "server" else ["scenario.least_seconds=0"]
    config = micro(
        f"scenario={scenario}", "scenario.max_batch=8", "compare=[infaas,cocktail,tabi]", "target.slack=0.2", *more
    )
    records = by_method(config)
    assert {record.status for record in records.values()} == {"ok"}
    for record in records.values():
        assert record.scenario == scenario and record.details["replay"]["unexplained"] == 0
        assert record.cost["device_seconds_per_1k"] <= record.latency_ms["mean"] + 1e-9
        assert record.throughput_qps == pytest.approx(1e3 / record.cost["device_seconds_per_1k"])
        for model in record.details["zoo"]["models"]:
            assert set(model["in_batches"]) == {1, 8} and model["labels_kept"] >= 0.999
            assert model["mean_ms"] == model["in_batches"][8]
        assert 0 <= record.details["engine"]["batch_padding_share"] < 1
    text = "\n".join([heading(list(records.values())), where(list(records.values()), config)])
    assert "queries a batch" in text and len(rows(list(records.values()))[0]) == len(COLUMNS)


def test_a_rate_that_nothing_survives_ends_the_session(micro):
    with pytest.raises(ValueError, match="no system survives"):
        run_session(micro("scenario=server", "scenario.max_batch=1", "scenario.rate=200000", "scenario.seconds=0.4"))


def test_times_that_go_backwards_are_refused_before_any_work(micro, tmp_path, monkeypatch):
    monkeypatch.setattr("tabi_bench.session.load_task", None)
    (tmp_path / "times.txt").write_text("0\n2\n1\n")
    with pytest.raises(ValueError, match="line 3 goes backwards, from 2 to 1 s; sort the times"):
        run_session(micro("scenario=server", f"scenario.times={tmp_path}/times.txt"))


def model(drift, curves):
    logits = np.zeros((4, 2), np.float32)
    return ModelProfile(
        "m", 1, 1, logits, np.array([2, 4, 6, 8]), curves[1], np.zeros(4, bool), in_batches=curves, drift=drift
    )


def test_the_band_is_the_drift_of_the_rows_that_the_plan_was_tuned_on():
    curve = LatencyCurve(np.array([8]), np.ones(1), np.ones(1))
    moved = np.array([0.001, 0.02, 0.3, np.inf])
    profile = Profile("t", "accuracy", 2, np.arange(4), np.zeros(4), {"m": model(moved, {1: curve})})
    assert profile.band(1e-3, np.array([2, 3])) == 0.02 and profile.band(1e-3, np.array([0, 1])) == 0.3
    assert profile.band(0.5, np.array([2, 3])) == 0.5 and profile.band(1e-3, np.arange(4)) == 0.3


def test_plans_minimise_the_time_per_query_at_the_batch_that_is_served():
    alone, together = (LatencyCurve(np.array([2, 8]), np.array(ms), np.array(ms)) for ms in ([1.0, 2.0], [0.1, 0.4]))
    profile = Profile("t", "accuracy", 2, np.arange(4), np.zeros(4), {"m": model(None, {1: alone, 8: together})})
    assert profile.in_batches and profile.at_batch(8).models["m"].mean_ms == pytest.approx(0.25)
    assert profile.at_batch(1).models["m"].mean_ms == pytest.approx(1.5)
