"""Curves from a profile and a plan, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tabi_bench.report import derived
from tabi_bench.report.reading import read


@pytest.fixture
def run(results):
    actual = read(results)
    run = next(r for r in actual.runs if (r.record.task, r.record.method) == ("sst2", "tabi"))
    return run, run.profile


def test_the_threshold_curve_by_hand():
    queries = pd.DataFrame({"label": [0, 0, 1, 1], "small": [1, 0, 1, 1], "both": [0, 0, 0, 1]})
    queries["confidence"] = [0.5, 0.6, 0.7, 0.8]
    queries["small_ms"], queries["large_ms"] = 2.0, 8.0
    curve = derived.threshold_curve("accuracy", queries)
    for share, score, ms in [(0.0, 0.75, 2.0), (0.25, 1.0, 4.0), (0.5, 1.0, 6.0), (0.75, 0.75, 8.0), (1.0, 0.75, 10.0)]:
        (point,) = curve[curve.share == share].drop_duplicates("share").itertuples()
        assert (point.score, point.mean_ms) == (score, ms)


def test_every_row_is_read_under_its_fold(run):
    run, profile = run
    queries = derived.routed(profile, run.plan)
    assert queries.row.tolist() == profile.rows.tolist()
    assert (queries.fold == (queries.row + 1) % 2).all(), "fold 0 serves the odd rows"
    assert (queries.small == profile.models["small"].logits.argmax(1)).all()
    assert (queries.confidence <= queries.raw + 1e-12).all(), "T = 2 makes two labels less sure"


def test_curves_start_and_end_where_the_models_stand(run):
    run, profile = run
    queries = derived.routed(profile, run.plan)
    small, both = (queries.small == queries.label).mean(), (queries.both == queries.label).mean()
    curves = derived.deferral(queries)
    assert all(curve[0] == pytest.approx(small) and curve[-1] == pytest.approx(both) for curve in curves.values())
    assert (curves["oracle"] >= curves["confidence"] - 1e-12).all()
    threshold = derived.threshold_curve("accuracy", queries)
    assert threshold.score.iloc[0] == pytest.approx(small) and threshold.score.iloc[-1] == pytest.approx(both)
    assert threshold.mean_ms.iloc[[0, -1]].tolist() == [2.0, 12.0]


def test_break_even(run):
    _, profile = run
    table = derived.break_even(profile)
    assert (table.single_ms.iloc[0], table.single.iloc[0]) == (10.0, "large")
    assert table.target.diff().iloc[1:].lt(0).all()
    for column in ("single_ms", "cascade_ms"):
        assert table[column].dropna().diff().iloc[1:].le(1e-12).all(), "a lower target never costs more"
    assert np.isfinite(table.cascade_ms.iloc[-1]) and table.cascade_ms.iloc[-1] < table.single_ms.iloc[0]


def test_calibration_of_the_sample(run):
    run, profile = run
    actual = derived.calibration(derived.routed(profile, run.plan))
    assert actual["bins"].loc["after"].n.sum() == actual["n"] == 120
    assert 0.5 < actual["auroc"] <= 1


def test_the_oracles_gain_by_hand():
    queries = pd.DataFrame({"label": [1, 1], "small": [1, 0], "both": [1, 1], "confidence": [0.6, 0.5]})
    assert derived.of_oracle(queries) == pytest.approx(1.0), "the one that gains is the least sure"
    assert derived.of_oracle(queries.assign(confidence=[0.5, 0.6])) == pytest.approx(-1.0)
    assert derived.of_oracle(queries.assign(small=[1, 1])) is None, "nothing to gain"


def test_the_oracles_reduction_by_hand():
    """Of four queries two are wrong and the dearer one is re-routed: 3 ms, where the cheaper one would have cost 2."""
    answers = {"label": [1, 1, 1, 1], "small": [1, 1, 0, 0], "both": 1, "large": 1}
    routing = {"confidence": [0.9, 0.9, 0.9, 0.1], "tau": 0.5, "levels": 2}
    times = {"small_ms": 1.0, "large_ms": [8.0, 8.0, 4.0, 8.0]}
    queries = pd.DataFrame(answers | routing | times)
    assert derived.of_oracle_reduction(queries, "accuracy", 6.0) == pytest.approx((6 - 3) / (6 - 2))
    assert derived.of_oracle_reduction(queries, "accuracy", 2.0) is None
    one = queries.assign(levels=1, large_ms=0.0, large=queries.small, both=queries.small)
    assert derived.of_oracle_reduction(one, "accuracy", 1.5) == pytest.approx(1.0)


def test_every_pair_by_hand(run):
    """Small 2 ms, middle 4, large 10: a pair costs its first model and the share of the second that is re-routed."""
    _, profile = run
    curve = derived.pairs(profile)
    assert list(curve[["small", "large"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("small", "middle"),
        ("small", "large"),
        ("middle", "large"),
    ]
    both = curve[(curve.small == "small") & (curve.large == "large")].set_index("share")
    assert both.mean_ms[[0.0, 0.5, 1.0]].tolist() == pytest.approx([2.0, 7.0, 12.0])
