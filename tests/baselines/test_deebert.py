"""Early exit: ramps with known entropies, what leaving early costs, live equals replayed, what training learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from baseline_toys import PlainTarget, TableLab, TableModel, plan_of, profile_of
from datasets import Dataset

from baselines import off_ramps
from baselines.deebert import Deebert, Exits, entropy, first_below
from baselines.off_ramps import Ramp, Ramps
from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.profiling.lab import Lab
from tabi_bench.profiling.profile import SegmentTimes
from tabi_bench.serving.trace import Served, trace_of
from tabi_bench.system import Infeasible, Item, NoAnswer, PlanError
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import Zoo
from tabi_bench.zoo.loading import load_model
from tests.engines.micro_models import write_model
from tests.settings import toy_task

LABELS = [0, 1, 0, 1]
SURE = 0.09009  # nats of logits (4, 0): p = .98201; (1, 0): p = .73106 has .58220
RAMPS = {1: [[4, 0], [0, 1], [0, 1], [0, 0]], 2: [[4, 0], [0, 4], [4, 0], [1, 0]]}
OWN = [[4, 0], [0, 4], [4, 0], [0, 4]]
OPTIONS = read_file("method", "deebert")


@pytest.fixture
def profile():
    """One model of four layers and 4 ms, with ramps after layers 1 and 2 that cost 0.1 ms each."""
    base = profile_of(LABELS, {"small": OWN})
    ramps = {layer: np.array(z, np.float32) for layer, z in RAMPS.items()}
    latency = replace(base.models["small"].latency, ms=np.array([4.0]))
    deep = replace(base.models["small"], layers=4, ramps=ramps, ramps_hash="toy", latency=latency)
    times = SegmentTimes(np.array([0.25, 0.5, 0.75, 1.0]), 0.1)
    return replace(base, models={"small": deep}, segments={"small": times})


class SegmentLab(TableLab):
    """Cuts its model after the active ramps, by the profile's table; has trained the ramps of layers 1 and 2."""

    def __init__(self, profile):
        super().__init__(profile)
        self.memo["ramps", "toy"] = Ramps("toy", {1: None, 2: None}, 1.5)

    def load_segments(self, name, ramps):
        model = self.profile.models[name]
        return Segmented([*(model.ramps[layer] for layer in ramps), model.logits])


class Segmented(TableModel):
    def __init__(self, exits):
        super().__init__(exits[-1])
        self.exits, self.n_segments, self.steps = exits, len(exits), 0

    def start(self, encoding):
        self.row, self.next = encoding.row, 0

    def step(self):
        self.next, self.steps = self.next + 1, self.steps + 1
        return self.exits[self.next - 1][self.row]

    def start_batch(self, encodings):
        self.rows, self.next, self.sizes = np.array([encoding.row for encoding in encodings]), 0, []

    def step_batch(self, rows=None):
        self.rows, self.next = self.rows if rows is None else self.rows[rows], self.next + 1
        self.sizes.append(len(self.rows))
        return np.stack([self.exits[self.next - 1][row] for row in self.rows])


def planned(profile, value=1.0):
    fold = Deebert.plan(profile, PlainTarget(profile, value), OPTIONS)
    return plan_of(replace(fold, serves=profile.rows.tolist()), method="deebert")


def deployed(plan, profile):
    return Deebert.deploy(plan.folds[0].point, SegmentLab(profile), OPTIONS)


def traced(answers) -> pd.DataFrame:
    """A trace of one pass over rows 0, 1, ..."""
    return trace_of([Served(0, row, 10**6, np.nan, answer) for row, answer in enumerate(answers)])


def test_entropy_by_hand():
    assert entropy(np.array([[4.0, 0.0], [1.0, 0.0], [0.0, 0.0]])) == pytest.approx([SURE, 0.58220, 0.69315], abs=1e-5)
    assert entropy(np.array([1e4, 0.0])) == 0.0
    assert np.isnan(entropy(np.array([np.nan, 0.0])))


def test_the_first_ramp_below_the_threshold_is_left_by():
    entropies = np.array([[0.1, 0.6, 0.6, np.nan], [0.1, 0.1, 0.6, 0.1]])
    assert first_below(entropies, 0.3).tolist() == [0, 1, 2, 1]
    assert first_below(entropies, 0.1).tolist() == [2, 2, 2, 2]  # strictly below


def test_leaving_early_costs_the_layers_and_ramps_passed(profile):
    exits = Exits.of(profile, "small")
    assert exits.latency_ms[:, 0] == pytest.approx([1.1, 2.2, 4.2])  # no ramp at the end
    assert exits.left(0.3).tolist() == [0, 1, 1, 2]
    labels, latency = exits.at(exits.left(0.3))
    assert labels.tolist() == LABELS and latency == pytest.approx([1.1, 2.2, 2.2, 4.2])
    assert exits.only((2,)).latency_ms[:, 0] == pytest.approx([2.1, 4.1])


@pytest.mark.parametrize(
    ("value", "ramps", "latency", "saved"),
    [(1.0, [1, 2], 2.425, 7 / 16), (0.75, [1], 1.85, 9 / 16), (0.5, [1], 1.1, 12 / 16)],
)
def test_the_fastest_exit_that_meets_the_target(profile, value, ramps, latency, saved):
    fold = Deebert.plan(profile, PlainTarget(profile, value), OPTIONS)
    assert fold.point["ramps"] == ramps and fold.predicted["score"] == value
    assert fold.predicted["latency_ms"] == pytest.approx(latency)
    assert fold.predicted["layers_saved"] == pytest.approx(saved)


def test_no_exit_meets_the_target_is_a_result(profile):
    with pytest.raises(Infeasible, match=r"no exit meets the target 1\.1000; the best of \d+ has 1\.0000"):
        Deebert.plan(profile, PlainTarget(profile, 1.1), OPTIONS)
    shallow = replace(profile, models={"small": replace(profile.models["small"], ramps={})})
    with pytest.raises(Infeasible, match="no model has two layers"):
        Deebert.plan(shallow, PlainTarget(profile, 0.5), OPTIONS)
    with pytest.raises(Infeasible, match="has a score"):
        Deebert.plan(replace(profile, metric="pearson", n_outputs=1), PlainTarget(profile, 0.5), OPTIONS)


def test_live_equals_replayed_and_later_segments_do_not_run(profile, queries):
    plan = planned(profile)
    system = deployed(plan, profile)
    answers = [system.answer(query) for query in queries[:4]]
    outcomes = Deebert.replay(plan.folds[0].point, profile, np.arange(4))
    assert [a.label for a in answers] == outcomes.labels.tolist() == LABELS
    assert [a.level for a in answers] == outcomes.levels.tolist() == [0, 1, 1, 2]
    assert outcomes.latency_ms == pytest.approx([1.1, 2.2, 2.2, 4.2])
    assert system.model.steps == 1 + 2 + 2 + 3
    assert set(answers[0].stages_ns) == {"tokenise", "level1", "decide"}
    together = system.run(0, [Item(query) for query in queries[:4]])
    assert [(a.label, a.level) for a in together] == [(a.label, a.level) for a in answers]
    assert system.model.sizes == [4, 3, 1], "rows that leave drop out of the batch"


def test_savings_are_those_of_the_rows_served(profile, queries):
    plan = planned(profile)
    described = Deebert.describe(plan, traced([deployed(plan, profile).answer(query) for query in queries[:4]]))
    assert described["saving_pct"]["layers_expected"] == pytest.approx(100 * 7 / 16)
    assert described["saving_pct"]["layers_measured"] == pytest.approx(100 * 7 / 16)
    assert described["saving_pct"]["time_expected"] == pytest.approx(100 * (1 - 2.425 / 4))
    assert described["full_ms"] == pytest.approx(4)


def test_what_the_head_leaves_between_two_labels_is_borderline(profile):
    head = profile.models["small"]
    undecided = replace(profile, models={"small": replace(head, logits=np.ones_like(head.logits))})
    outcomes = Deebert.replay(planned(profile).folds[0].point, undecided, profile.rows)
    assert outcomes.levels.tolist() == [0, 1, 1, 2]
    assert outcomes.borderline.tolist() == [False, False, False, True]


def test_a_ramp_that_fails_is_passed_and_a_head_that_fails_is_an_error(profile, queries):
    system = deployed(planned(profile), profile)
    model = profile.models["small"]
    model.ramps[1][0] = np.nan
    answer = system.answer(queries[0])
    assert (answer.level, answer.failures) == (1, 1)
    answers = system.run(0, [Item(query) for query in queries[:2]])
    assert [(a.level, a.failures) for a in answers] == [(1, 1), (1, 0)]
    model.logits[3] = np.inf
    with pytest.raises(NoAnswer, match="query 3"):
        system.answer(queries[3])


def test_a_plan_that_predicts_exits_but_serves_none_is_an_error(profile, queries):
    plan = planned(profile)
    system = deployed(plan, profile)
    for ramp in profile.models["small"].ramps.values():
        ramp[:] = 0.0  # no ramp is sure any more
    served = traced([system.answer(query) for query in queries[:4]])
    Deebert.describe(plan, served)  # a quarter was to stay: four of four may be chance
    plan.folds[0].predicted["shares"] = [0.5, 0.45, 0.05]
    with pytest.raises(PlanError, match="predicts early exits, but none"):
        Deebert.describe(plan, served)


@pytest.mark.parametrize("changes", [{"ramps_hash": "other"}, {"ramps": [1, 9]}])
def test_ramps_of_another_training_are_refused(profile, changes):
    plan = planned(profile)
    plan.folds[0].point |= changes
    with pytest.raises(PlanError, match="other off-ramps of small"):
        deployed(plan, profile)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "huge"},
        {"model": None},
        {"entropy": float("nan")},
        {"entropy": "low"},
        {"entropy": None},
        {"ramps": []},
        {"ramps": [0]},
        {"ramps": ["1"]},
        {"ramps": 1},
        {"ramps": [2, 1]},
        {"ramps": [1, 4]},
        {"layers": "four"},
    ],
    ids=str,
)
def test_an_early_exit_that_cannot_be_served_is_refused(profile, changes):
    point = planned(profile).folds[0].point
    Deebert.check_point(point, profile.names)
    with pytest.raises(PlanError):
        Deebert.check_point(point | changes, profile.names)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [False, True])
def test_a_ramp_learns_what_its_vectors_tell(mean):
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (600,), generator=rng)
    x = torch.randn(600, 16, generator=rng) + 4 * torch.eye(3, 16)[labels]
    torch.manual_seed(0)
    options = replace(read_file("method", "deebert").train, epochs=20, learning_rate=1e-2)
    ramp = off_ramps._fit(Ramp(16, 3, mean, 0.1), x, labels, options, 0, "cpu")
    right = (ramp.head(x).argmax(1) == labels).float().mean()
    assert right > 0.9 and not any(p.requires_grad for p in ramp.parameters())


@pytest.mark.parametrize("family", ["bert", "meanpool", "distilbert", "albert", "roberta"])
def test_what_a_ramp_is_trained_on_is_what_it_reads_when_serving(tmp_path, family):
    """Batched and padded in training, one query at a time in serving."""
    eager = make_engine(read_file("engine", "eager", device="cpu", dtype="float32"))
    spec = write_model(tmp_path, family)
    texts = [("not a good film",), ("a very bad film",), ("good",)]
    mean = family == "meanpool"
    vectors = off_ramps.hidden_vectors(load_model(spec, torch.float32, "cpu"), spec, texts, mean, "cpu")
    ramp = Ramp(vectors[0].shape[1], 3, mean).eval()
    model = eager.load_segments(spec, {1: ramp})
    for text, vector in zip(texts, vectors[0], strict=True):
        model.start(model.encode(text))
        with torch.no_grad():
            np.testing.assert_allclose(model.step(), ramp.head(vector[None])[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def task():
    rows = {"sentence": ["a good film", "a bad film", "the play"] * 20, "label": [0, 1, 2] * 20}
    config = toy_task(texts=("sentence",), labels=["good", "bad", "none"])
    return Task(config, "generated", Dataset.from_dict(rows), Dataset.from_dict({k: v[:6] for k, v in rows.items()}))


def test_ramps_are_trained_once_and_read_as_served(tmp_path, task, monkeypatch):
    spec = write_model(tmp_path / "model", "albert")  # of three layers
    eager = make_engine(read_file("engine", "eager", device="cpu", dtype="float32"))
    tokens = np.array([len(eager.load(spec).encode(texts).tokens) for texts in task.texts("validation")])
    base = profile_of([0, 1, 2, 0, 1, 2], {"small": np.zeros((6, 3))})
    base = replace(base, models={"albert": replace(base.models["small"], name="albert", layers=3, tokens=tokens)})
    lab = Lab(task, Zoo("toy", (spec,)), eager, tmp_path / "cache", seed=0, rounds=1)
    options = replace(OPTIONS.train, epochs=2)
    profile = off_ramps.add_ramps(lab, base, options)
    model, times = profile.models["albert"], profile.segments["albert"]
    assert sorted(model.ramps) == [1, 2] and model.ramps[1].shape == (6, 3)
    assert times.share.shape == (3,) and (np.diff(times.share) >= 0).all() and times.ramp_ms >= 0
    modules = off_ramps.trained(lab, model.ramps_hash).modules
    assert off_ramps.trained(lab.apart(), model.ramps_hash).modules is modules, "other models, the same ramps"
    served = lab.load_segments("albert", {2: modules[2]})
    served.start(served.encode(task.queries[4].texts))
    np.testing.assert_allclose(served.step(), model.ramps[2][4], rtol=1e-4, atol=1e-5)
    monkeypatch.delattr(off_ramps, "_train")
    fresh = replace(lab, memo={})
    assert off_ramps.trained(fresh, model.ramps_hash) is None
    again = off_ramps.add_ramps(fresh, base, options)
    np.testing.assert_array_equal(again.models["albert"].ramps[2], model.ramps[2])
    monkeypatch.undo()
    other = off_ramps.add_ramps(lab, base, replace(options, epochs=3))
    assert other.models["albert"].ramps_hash != model.ramps_hash
