"""What records tell of pruning, of the oracle and of early exit, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.account import of_cascade, pruned_text
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import read_file
from tabi_bench.evaluation.targets import Target
from tabi_bench.records import Record
from tabi_bench.results import beside_oracle, time_saved
from tests.cascade.ladder import as_plan, build


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_pruned_against_full_text(alpha):
    ladder = build(n=120, names=("small", "large"))
    profile = ladder.profile
    options = read_file("method", "tabi", alphas=[alpha], fewer_levels=False)
    fold = Cascade.plan(profile, Target.of(profile, "relative", None, 0.05, 0.0), options)
    plan = as_plan(fold)
    replayed = Cascade.replay(plan, profile, profile.rows)
    found = pruned_text(profile, plan, replayed)
    if alpha == 0:
        assert found is None
        return
    routed = np.flatnonzero(replayed.levels == 1)
    large = profile.models["large"]
    assert found["queries"] == len(routed) > 0
    assert found["full_ms"] == pytest.approx(large.latency(large.tokens[routed]).mean())
    assert found["tokens_pruned"] < found["tokens"] and found["pruned_ms"] < found["full_ms"]
    assert of_cascade(profile, plan, replayed)["pruned_text"] == found


def _record(method: str, mean_ms: float, **details) -> Record:
    reference = {"method": "infaas", "reduction_pct": 100 * (1 - mean_ms / 10)}
    names = dict.fromkeys(("run_id", "session_id", "task", "source", "zoo", "engine", "device"), "x")
    return Record(**names, method=method, latency_ms={"mean": mean_ms}, reference=reference, details=details)


@pytest.mark.parametrize(
    ("tabi_ms", "oracle_ms", "reached", "share", "says"),
    [
        (8.0, 6.0, True, 0.5, "routing alone reaches"),
        (5.0, 6.0, True, 1.25, "Tabi is faster"),
        (8.0, 6.0, False, 0.5, "the rest comes from its ensemble"),
        (8.0, 11.0, True, None, "Tabi is faster"),
    ],
)
def test_tabis_share_of_the_oracles_reduction(tabi_ms, oracle_ms, reached, share, says):
    oracle = _record("oracle", oracle_ms, system={"score_to_reach": 0.9, "reached": reached})
    found = {"tabi": _record("tabi", tabi_ms), "oracle": oracle}
    beside_oracle(found)
    line = found["tabi"].details["oracle"]
    assert line == oracle.details["oracle"] and says in line["note"]
    assert line["share"] is None if share is None else line["share"] == pytest.approx(share)
    alone = {"tabi": _record("tabi", 8.0)}
    beside_oracle(alone)
    assert "oracle" not in alone["tabi"].details


def test_the_time_that_early_exit_saved():
    """The reference was profiled at 5 ms and took 10: the whole model, profiled at 8, would have taken 16."""
    early = _record("deebert", 4.0, system={"saving_pct": {"time_expected": 70.0}, "full_ms": 8.0})
    time_saved({"infaas": _record("infaas", 10.0, replay={"predicted_ms": 5.0}), "deebert": early})
    assert early.details["system"]["saving_pct"] == {"time_expected": 70.0, "time_measured": pytest.approx(75.0)}
