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
    records, printed = session(task)
    assert list(records) == SYSTEMS
    assert len({record.session_id for record in records.values()}) == 1
    for name, record in records.items():
        if record.status == "infeasible":
            assert name in ("cocktail", "deebert") and task in record.error
            continue
        assert record.status == "ok" and record.reference["method"] == "infaas"
        replay = record.details["replay"]
        assert replay["compared"] == 120 and replay["unexplained"] == 0, name
    oracle, tabi = records["oracle"].details["system"], records["tabi"]
    assert oracle["reached"] == (records["oracle"].accuracy["value"] >= oracle["score_to_reach"] - 1e-9)
    assert oracle["tabi_reduction_pct"] == tabi.reference["reduction_pct"]
    best = records["oracle"].reference["reduction_pct"]
    assert oracle["share"] == (oracle["tabi_reduction_pct"] / best if best > 0 else None)
    assert oracle["score_to_reach"] == pytest.approx(tabi.accuracy["value"], abs=1e-4)
    assert f"oracle: {'' if oracle['share'] is None else 'Tabi has '}" in printed
    if records["cocktail"].status == "ok":
        assert "Cocktail: its row is serial" in printed and "eager runs nothing concurrently" in printed
    if records["deebert"].status == "ok":
        saving = records["deebert"].details["system"]["saving_pct"]
        assert set(saving) == {"layers_expected", "layers_measured", "time_expected", "time_measured"}
    small = tabi.details["small_level"]
    if task == "stsb":
        assert small is None
        return
    assert small["model"] == "micro-1x16" and sum(small["reliability"]["n"]) == 120
    assert 0 <= small["ece"] <= 1 and {"auroc_right", "auroc_easy"} <= set(small)
