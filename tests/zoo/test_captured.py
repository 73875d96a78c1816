"""Training steps as CUDA graphs learn what plain steps learn; without a device, what is captured when."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tabi_bench.zoo import captured, training
from tabi_bench.zoo.captured import CapturedSteps
from tabi_bench.zoo.loading import load_folder
from tabi_bench.zoo.training import Examples, predict, train
from tests.engines.micro_models import write_model
from tests.settings import fine_tuning


def rows(n: int = 400) -> Examples:
    """Texts of 5 to 20 tokens; their first one names the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    ids = [np.r_[2, 4 + y, rng.integers(8, 20, rng.integers(2, 17)), 3].astype(np.int32) for y in labels]
    return Examples(ids, [np.zeros_like(row) for row in ids], [np.full_like(row, -1) for row in ids], labels)


class Graph:
    """Stands in for a device's graph: a capture runs nothing, a replay runs what was recorded."""

    def replay(self) -> None:
        self.recorded()


def test_a_shape_is_captured_when_it_is_met_again(monkeypatch):
    ran, holder = [], {}
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    steps = CapturedSteps(lambda inputs: ran.append(int(inputs["input_ids"].sum())))

    def capture(shape, inputs):
        buffers, graph = {name: value.clone() for name, value in inputs.items()}, Graph()
        graph.recorded = lambda: steps.step(buffers)
        steps._graphs[shape] = buffers, graph
        holder[shape] = graph
        return True

    monkeypatch.setattr(steps, "_capture", capture)
    for width, value in ((2, 1), (2, 2), (3, 1), (2, 3), (3, 2)):
        steps({"input_ids": torch.full((1, width), value)})
    assert ran == [2, 4, 3, 6, 6] and set(holder) == {(1, 2), (1, 3)}


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["bert", "mpnet", "meanpool", "roberta", "distilbert", "electra"])
def test_captured_steps_learn_what_plain_steps_learn(tmp_path, monkeypatch, family):
    spec, data, made = write_model(tmp_path, family, initializer_range=0.05), rows(), []
    config = fine_tuning(epochs=6, batch_size=16, learning_rate=2e-3, average=0.9, word_dropout=0.1)
    data = replace(data, teacher=np.eye(3, dtype=np.float32)[data.labels] * 4)
    real = CapturedSteps._capture
    monkeypatch.setattr(CapturedSteps, "_capture", lambda *given: made.append(real(*given)) or made[-1])
    logits = {}
    for way in ("captured", "plain"):
        if way == "plain":
            monkeypatch.setattr(training, "CapturedSteps", lambda step: step)
        model = load_folder(spec.path, torch.float32)
        result = train(model, data, config, seed=0, device="cuda:0")
        logits[way] = predict(model, data, "cuda:0")
        assert result.score > 0.9
    assert made and all(made)
    assert (logits["captured"].argmax(1) == logits["plain"].argmax(1)).mean() > 0.97
    assert np.abs(logits["captured"] - logits["plain"]).max() < 0.5


@pytest.mark.gpu
def test_what_cannot_be_captured_runs_as_it_is(tmp_path, monkeypatch, caplog):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("not here")

    monkeypatch.setattr(captured.torch.cuda, "graph", refuse)
    spec = write_model(tmp_path, "bert", initializer_range=0.05)
    model = load_folder(spec.path, torch.float32)
    config = fine_tuning(epochs=6, batch_size=16, learning_rate=2e-3)
    assert train(model, rows(), config, seed=0, device="cuda:0").score > 0.9
    assert "training steps are not captured: RuntimeError: not here" in caplog.text
