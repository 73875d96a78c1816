"""record.json: a round trip, older and newer ones, what is none, and its JSON schema."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from tabi_bench.experiment import run_session
from tabi_bench.records.record import Record, age
from tabi_bench.records.schema import record_schema, schema_of
from tests.records.samples import record

ROOT = Path(__file__).resolve().parents[2]


def test_round_trip_with_numpy(tmp_path):
    details = {"bins": np.arange(3), "n": np.int64(4), "deep": {"shares": (np.float32(0.5), True)}, "path": Path("a")}
    record(shares=[0.5, 0.5], details=details).save(tmp_path)
    again = Record.load(tmp_path)
    assert again.shares == [0.5, 0.5]
    assert again.details == {"bins": [0, 1, 2], "n": 4, "deep": {"shares": [0.5, True]}, "path": "a"}
    assert Record.load(tmp_path / "record.json") == again


def test_what_is_no_finite_number_is_null(tmp_path):
    record(details={"auroc": float("nan"), "curve": np.array([1.0, np.inf])}).save(tmp_path)
    assert "NaN" not in (tmp_path / "record.json").read_text()
    assert Record.load(tmp_path).details == {"auroc": None, "curve": [1.0, None]}


def edited(tmp_path: Path, **changes) -> Path:
    record().save(tmp_path)
    raw = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps({**raw, **changes}))
    return tmp_path


def test_a_newer_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"newer version \(schema 99\)"):
        Record.load(edited(tmp_path, schema_version=99))
    with pytest.raises(ValueError, match=r"newer version.*throughput_of_tomorrow"):
        Record.load(edited(tmp_path, throughput_of_tomorrow=1))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"run_id": "r"}', '{"schema_version": "two"}'])
def test_what_is_no_record_is_a_value_error_with_its_name(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError) as refused:
        Record.load(tmp_path)
    assert text in ("", "{") or str(tmp_path) in str(refused.value)


def test_records_of_the_schema_before_are_read():
    """As committed; what schema 2 added is empty in them."""
    files = sorted((ROOT / "results").rglob("record.json"))
    records = [Record.load(file) for file in files]
    old = [r for r in records if r.schema_version == 1]
    assert old and all(r.warnings == [] and r.scenario == "single_stream" for r in old)
    assert all(r.status == "ok" and r.latency_ms["n"] > 0 for r in old if r.accuracy)


def test_how_long_ago_is_told_in_the_largest_unit():
    assert age(record(provenance={"time": "2020-01-01T00:00:00+00:00"})).endswith("days")


# --- its schema -------------------------------------------------------------------------------------------------------


def invalid(raw: dict) -> set[str]:
    """Paths of what the schema refuses."""
    errors = Draft202012Validator(record_schema()).iter_errors(raw)
    return {"/".join(map(str, error.absolute_path)) for error in errors}


def test_the_committed_schema_is_up_to_date():
    committed = json.loads((ROOT / "docs" / "record.schema.json").read_text())
    assert committed == json.loads(json.dumps(record_schema())), (
        "run: python -m tabi_bench.records.schema docs/record.schema.json"
    )
    Draft202012Validator.check_schema(committed)


def test_type_hints_as_schemas():
    assert schema_of(dict[str, list[float | None]]) == {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
    }
    with pytest.raises(TypeError, match="no JSON schema"):
        schema_of(Path)


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_the_records_of_a_session_are_valid(micro, task):
    config = micro(f"task={task}", "compare=[infaas,tabi,tabi3,cocktail,deebert,oracle,single]", "target.slack=0.05")
    run_session(config)
    files = sorted(Path(config.results_dir).rglob("record.json"))
    raws = [json.loads(file.read_text()) for file in files]
    assert [invalid(raw) for raw in raws] == [set()] * 7
    ok = next(raw for raw in raws if raw["status"] == "ok")
    for key, value, where in [
        ("accuracy", {}, "accuracy"),
        ("status", "fine", "status"),
        ("shares", [0.5, "half"], "shares/1"),
        ("outcome", None, "outcome"),
        ("target", ok["target"] | {"kind": "easy"}, "target/kind"),
        ("latency_ms", ok["latency_ms"] | {"typical": 1.0}, "latency_ms"),
        ("extra", 1, ""),
    ]:
        assert invalid(copy.deepcopy(ok) | {key: value}) == {where}, key


def test_a_record_of_failure_is_valid_without_results():
    raw = asdict(record(status="failed", error="it broke", latency_ms={}))
    assert invalid(raw) == set()
    assert "outcome" in invalid(raw | {"status": "ok"})
