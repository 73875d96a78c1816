"""Two results folders side by side: what changed beyond its interval, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "report"))
from report_samples import record, write

from tabi_bench.compare import compare, main


def session(root, reduction: float, half: float, **changes) -> None:
    reference = {"method": "infaas", "reduction_pct": reduction}
    reference |= {"reduction_low": reduction - half, "reduction_high": reduction + half}
    runs = [record("infaas", "s", **changes), record("tabi", "s", reference=reference, **changes)]
    write(root, *runs, profile=False)


@pytest.fixture
def folders(tmp_path):
    """30 ± 3 and 40 ± 4 %: the change of 10 is beyond 5."""
    session(tmp_path / "a", 30.0, 3.0)
    session(tmp_path / "b", 40.0, 4.0)
    return tmp_path / "a", tmp_path / "b"


def test_a_change_and_its_interval(folders):
    lines = compare(*folders).data.set_index(["system", "quantity"])
    line = lines.loc["Tabi", "reduction %"]
    assert (line.A, line.B, line.change, line.change_low, line.change_high) == pytest.approx((30, 40, 10, 5, 15))
    assert line.beyond and not lines.beyond["Tabi", "score %"], "the score is the same"
    assert ("INFaaS", "reduction %") not in lines.index, "the reference's own"


def test_what_lies_within_is_not_told_unless_asked_for(folders, tmp_path, capsys):
    session(tmp_path / "c", 34.0, 4.0)
    main([str(folders[0]), str(tmp_path / "c")])
    assert "reduction %" not in capsys.readouterr().out
    main([str(folders[0]), str(tmp_path / "c"), "--all"])
    assert "reduction %" in capsys.readouterr().out


def test_what_only_one_folder_holds_is_counted(folders):
    session(folders[1], 1.0, 1.0, task="rte", run_id="r")
    notes = compare(*folders).notes
    assert "Only in A: 0 records." in notes and "Only in B: 1 records." in notes


def test_folders_without_anything_in_common(folders, tmp_path):
    session(tmp_path / "other", 1.0, 1.0, task="rte")
    with pytest.raises(SystemExit, match="no record of the same task"):
        main([str(folders[0]), str(tmp_path / "other")])
    with pytest.raises(SystemExit, match="no readable record"):
        main([str(folders[0]), str(tmp_path / "none")])
