"""Records: a round trip, refusal of newer ones, finished sessions, folders that cannot be written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tabi_bench.records import Record, check_writable, finished


def record(**changes) -> Record:
    fields = dict(
        run_id="r", session_id="s", task="sst2", method="tabi", source="generated", zoo="tiny", engine="eager"
    )
    return Record(**{**fields, "device": "cpu", **changes})


def test_round_trip_with_numpy(tmp_path):
    record(shares=[0.5, 0.5], details={"bins": np.arange(3), "n": np.int64(4)}).save(tmp_path)
    again = Record.load(tmp_path)
    assert again.shares == [0.5, 0.5]
    assert again.details == {"bins": [0, 1, 2], "n": 4}


def test_a_newer_schema_is_refused(tmp_path):
    record().save(tmp_path)
    raw = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps({**raw, "schema_version": 99}))
    with pytest.raises(ValueError, match="newer version"):
        Record.load(tmp_path)


def test_a_session_is_finished_when_all_its_records_are_there(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    record().save(folders[0])
    assert finished(folders) is None
    record(session_id="other").save(folders[1])
    assert finished(folders) is None, "records of two sessions are not one session"
    record().save(folders[1])
    assert len(finished(folders)) == 2
    record(status="failed").save(folders[1])
    assert finished(folders) is None


def test_a_half_written_record_is_not_a_finished_run(tmp_path):
    (tmp_path / "record.json").write_text('{"run_id": "r", ')
    assert finished([tmp_path]) is None


def test_an_unwritable_folder_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*results_dir"):
        check_writable(tmp_path / "file" / "results")


def test_a_full_disk_is_said_at_once(tmp_path):
    with pytest.raises(OSError, match="MB left on the disk"):
        check_writable(tmp_path, needed_bytes=10**18)
