"""Fixed-sequence testing by hand, its error rate by simulation with known risk, and a session that asks for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi_bench.cascade.point import Point
from tabi_bench.config import CertifyConfig, read_file
from tabi_bench.experiment import run_session
from tabi_bench.planning import certify as module
from tabi_bench.planning.certify import certify, family, fixed_sequence, losses, p_value, rows_needed, set_apart
from tabi_bench.planning.tabi import Tabi
from tabi_bench.planning.targets import Target
from tabi_bench.summary import where
from tests.cascade.ladder import build

DELTA, EPSILON = 0.05, 0.01


def test_fixed_sequence_by_hand():
    # 300 rows: .99^300 = .0490 with none spoilt; with one, + 300 x .01 x .99^299 = .1486
    assert p_value(0, 300, EPSILON) == pytest.approx(0.99**300)
    assert p_value(1, 300, EPSILON) == pytest.approx(0.0490 + 0.1486, abs=1e-4)
    assert fixed_sequence(np.array([0, 0, 1, 0]), 300, DELTA, EPSILON) == 2  # the third fails: the fourth is not asked
    assert fixed_sequence(np.array([0, 0, 0]), 300, DELTA, EPSILON) == 3
    assert fixed_sequence(np.array([0, 0, 0]), 298, DELTA, EPSILON) == 0  # .99^298 = .0500 is a little above


def test_rows_needed_by_hand():
    # the textbook's 299, 473, 628 and 773 rows for 0, 1, 2 and 3 spoilt ones at 95 %
    assert rows_needed(DELTA, EPSILON) == 299
    for spoilt, n in ((1, 473), (2, 628), (3, 773)):
        assert p_value(spoilt, n, EPSILON) <= DELTA < p_value(spoilt, n - 1, EPSILON)
    assert rows_needed(DELTA, EPSILON, 1 / 300) == 773  # 628 rows hold three at this rate, no longer two
    assert rows_needed(DELTA, EPSILON, 1 / 300, above=773) == 774
    assert rows_needed(DELTA, EPSILON, 0.01) is None


@given(st.floats(0.005, 0.2), st.floats(0.01, 0.3), st.floats(0, 0.8))
def test_the_rows_needed_suffice(epsilon, delta, share):
    n = rows_needed(delta, epsilon, share * epsilon)
    assert p_value(int(np.ceil(share * epsilon * n - 1e-9)), n, epsilon) <= delta


def test_the_family_goes_from_everything_to_the_plan():
    point = Point(["a", "b", "c"], [1.0] * 3, [1.0] * 3, taus=[0.6, 0.9], alphas=[0.0, 0.0])
    taus = np.array([p.taus for p in family(point)])
    assert taus[0].tolist() == [2.0, 2.0] and taus[-1].tolist() == [0.6, 0.9]
    assert taus[-2] == pytest.approx([0.8, 0.95]) and (np.diff(taus, axis=0) < 0).all()
    assert family(Point(["a"], [1.0], [1.0])) == [Point(["a"], [1.0], [1.0])]


def test_violations_stay_within_delta():
    """Known risks, rising along the sequence; rows spoilt at one step are spoilt at all later ones."""
    risks = np.array([0.0005, 0.001, 0.002, 0.0101, 0.0105, 0.012, 0.02])
    rng, resamples, n = np.random.default_rng(0), 2000, 473
    certified = []
    for _ in range(resamples):
        spoilt = (rng.random(n)[None] < risks[:, None]).sum(axis=1)
        certified.append(fixed_sequence(spoilt, n, DELTA, EPSILON))
    certified = np.array(certified)
    violated = (certified > 3).mean()  # a risk above epsilon was certified
    assert violated <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / resamples)
    assert violated > 0.01 and (certified >= 1).mean() > 0.9  # the bound is used, and there is power


@pytest.fixture(scope="module")
def planned():
    ladder = build(n=1200, names=("small", "large"))
    tune, held = set_apart(ladder.profile.labels, np.arange(1200), 0)
    view = ladder.profile.view(tune)
    options = read_file("method", "tabi", alphas=[0.0], ensembles=["weighted"], fewer_levels=False)
    fold = Tabi.plan(view, Target.of(view, "relative", None, 0.03, 0.0), options)
    return fold, view, ladder.profile.view(held)


def test_violations_of_a_real_cascade_stay_within_delta(planned):
    """The held rows as population: its risks are known; certificates are made from resamples of it."""
    fold, _, population = planned
    bad = losses(family(Point(**fold.point)), population)
    risks, rng, resamples, n = bad.mean(axis=1), np.random.default_rng(1), 1000, 300
    epsilon = float(np.median(risks))  # some thresholds keep it, some do not
    drawn = rng.integers(0, bad.shape[1], (resamples, n))
    passed = np.array([fixed_sequence(bad[:, rows].sum(axis=1), n, DELTA, epsilon) for rows in drawn])
    violated = np.array([count > 0 and risks[:count].max() > epsilon for count in passed])
    assert violated.mean() <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / resamples)


def test_a_certificate_says_what_it_found(planned):
    fold, view, held = planned
    loose = certify(fold, view, held, CertifyConfig(epsilon=0.5, delta=0.05))
    assert (
        loose["certified"]
        and loose["taus"] == fold.point["taus"]
        and loose["spoilt"] <= loose["most"]
        and "certified on 600 rows" in loose["says"]
    )
    strict = certify(fold, view, held, CertifyConfig(epsilon=0.001, delta=0.05))
    assert not strict["certified"] and "cannot certify" in strict["says"]
    few = certify(fold, view, held.view(np.arange(20)), CertifyConfig(epsilon=0.2, delta=0.001))
    assert not few["certified"] and few["needs"] > 20 and f"it needs {few['needs']} rows" in few["says"]
    bad = losses(family(Point(**fold.point)), held)
    assert strict["spoilt"] == bad[-1].sum()


def test_points_are_tested_in_the_order_of_their_risk_on_tune(planned, monkeypatch):
    """Where pruning makes re-routing everything the riskier choice, the plan does not have to wait for it."""
    fold, view, held = planned
    risky = np.zeros((12, 600), bool)
    risky[:-1, :100] = True  # all points but the plan's own spoil a sixth
    monkeypatch.setattr(module, "losses", lambda points, profile: risky)
    result = certify(fold, view, held, CertifyConfig(epsilon=0.05, delta=0.05))
    assert result["certified"] and result["taus"] == fold.point["taus"] and result["most"] == 0
    monkeypatch.setattr(module, "losses", lambda points, profile: risky[::-1])
    result = certify(fold, view, held, CertifyConfig(epsilon=0.05, delta=0.05))
    assert not result["certified"] and (result["spoilt"], result["most"]) == (100, 100)
    assert result["needs"] is None and "no number of rows would do" in result["says"]
    assert result["taus"] == [2.0] and result["share"] == 1.0 and "certified is re-routing 100%" in result["says"]


def test_rows_set_apart_are_in_no_plan():
    labels = np.tile([0, 1], 50)
    half = np.arange(0, 100, 3)
    tune, held = set_apart(labels, half, 0)
    assert sorted([*tune, *held]) == half.tolist() and not set(tune) & set(held)


def test_a_session_certifies_its_cascades(micro):
    config = micro("task=sst2", "method=tabi", "certify.epsilon=0.3", "target.slack=0.05")
    records = run_session(config)
    infaas, tabi = records
    certificates = [fold["certificate"] for fold in tabi.details["plan"]]
    assert [c["n"] for c in certificates] == [30, 30] and "certificate" not in infaas.details["plan"][0]
    assert where(records, config).count("Tabi: fold") == 2
