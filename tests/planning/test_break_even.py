"""Break-even by hand: the share above which a cascade loses, and the targets at which it wins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tabi_bench.planning.break_even import break_even, break_even_share, pairs, winning_targets
from tests.cascade.ladder import build

SINGLES = [(1.0, 0.80), (4.0, 0.90), (6.0, 0.92)]  # (ms, score)


def test_the_share_by_hand():
    assert break_even_share(1.0, 4.0) == 0.75  # 1 + .75 x 4 = 4
    assert break_even_share(1.0, 4.0, overhead_ms=1.0) == pytest.approx(0.6)  # 1 + .6 x 5 = 4
    assert break_even_share(1.0, 4.0, overhead_ms=-0.5) == pytest.approx(6 / 7)
    assert break_even_share(1.0, 4.0, overhead_ms=-3.5) == 1.0  # nothing left to pay for: 1 + .5 r < 4
    assert break_even_share(5.0, 4.0) < 0


def test_the_targets_by_hand():
    curve = pd.DataFrame({"mean_ms": [1.0, 2.0, 3.0, 5.0], "score": [0.80, 0.86, 0.91, 0.93]})
    # 2 ms: no single model within it is above .80, so it wins in (.80, .86]; 5 ms: rival .90, and none beyond .92
    assert winning_targets(curve, SINGLES) == (0.80, 0.92)
    assert winning_targets(curve[curve.mean_ms > 4], SINGLES) == (0.90, 0.92)
    assert np.isnan(winning_targets(curve[curve.mean_ms == 1], SINGLES)).all()
    slow = curve.assign(mean_ms=7.0)
    assert np.isnan(winning_targets(slow, SINGLES)).all()


def test_every_pair_of_a_profile():
    profile = build(n=200).profile
    table = break_even(profile)
    assert list(zip(table.small, table.large, strict=True)) == [
        ("small", "medium"), ("small", "large"), ("medium", "large"),
    ]  # fmt: skip
    curve = pairs(profile)
    both = curve[(curve.small == "small") & (curve.large == "large")].set_index("share")
    small, large = (profile.models[name].mean_ms for name in ("small", "large"))
    assert both.mean_ms[0.0] == pytest.approx(small)
    assert both.mean_ms[1.0] == pytest.approx(small + large + profile.overhead_ms)
    line = table.iloc[1]
    assert small + line["share"] * (large + profile.overhead_ms) == pytest.approx(large)
    assert line.above < line.upto


def test_scores_have_a_share_only():
    table = break_even(build(n=60, outputs=1, metric="pearson").profile)
    assert table.share.notna().all() and table.above.isna().all()
