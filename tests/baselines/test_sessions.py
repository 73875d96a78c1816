"""Every system in one session on a micro zoo: the same queries, live equals replayed, and what each record tells."""

from __future__ import annotations

import pytest

from tabi_bench.experiment import run_session
from tabi_bench.summary import where

SYSTEMS = ["infaas", "cocktail", "tabi", "tabi3", "deebert", "random", "oracle", "single"]


@pytest.fixture
def session(micro):
    def run(task: str) -> tuple[dict, str]:
        config = micro(f"task={task}", f"compare=[{','.join(SYSTEMS)}]", "target.slack=0.05")
        records = run_session(config)
        return {record.method: record for record in records}, where(records, config)

    return run


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_every_system_serves_what_its_plan_replays(session, task):
    found, printed = session(task)
    assert list(found) == SYSTEMS
    assert len({record.session_id for record in found.values()}) == 1
    for name, record in found.items():
        if record.status == "infeasible":
            assert name in ("cocktail", "deebert") and task in record.error
            continue
        assert record.status == "ok" and record.reference["method"] == "infaas"
        replay = record.details["replay"]
        assert replay["compared"] == 120 and replay["unexplained"] == 0, name
    line = found["tabi"].details["oracle"]
    assert line == found["oracle"].details["oracle"]
    assert line["share"] is None or line["share"] == line["tabi_reduction_pct"] / line["oracle_reduction_pct"]
    assert line["score"] == pytest.approx(found["tabi"].accuracy["value"], abs=1e-4) and line["note"]
    assert f"oracle: {'' if line['share'] is None else 'Tabi has '}" in printed
    if found["cocktail"].status == "ok":
        assert "Cocktail: its row is serial" in printed and "eager runs nothing concurrently" in printed
    if found["deebert"].status == "ok":
        saving = found["deebert"].details["system"]["saving_pct"]
        assert set(saving) == {"layers_expected", "layers_measured", "time_expected", "time_measured"}
    account = found["tabi"].details
    assert len(account["break_even"]) == 1 and account["break_even"][0]["share"] <= 1
    if task == "stsb":
        assert account["deferral"] is None
        return
    assert {"ece_before", "ece_after", "auroc", "reliability"} <= set(account["calibration"])
    areas = account["deferral"]["areas"]
    assert areas["oracle"] >= max(areas["confidence"], areas["random"])
    assert account["calibration"]["n"] == sum(account["calibration"]["reliability"]["after"]["n"]) == 120
