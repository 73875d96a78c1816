"""The last level's time on pruned and on full text, on the queries that reached it."""

from __future__ import annotations

import numpy as np
import pytest

from tabi_bench.account import of_cascade, pruned_text
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import CascadeConfig
from tabi_bench.evaluation.targets import Target
from tests.cascade.ladder import as_plan, build


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_pruned_against_full_text(alpha):
    ladder = build(n=120, names=("small", "large"))
    profile = ladder.profile
    options = CascadeConfig("tabi", alphas=[alpha], fewer_levels=False)
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
