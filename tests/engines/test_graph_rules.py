"""What of the graph engine needs no GPU: buffers, buckets, and what happens when a capture fails."""

import numpy as np
import pytest
import torch

from tabi_bench.config import EngineConfig
from tabi_bench.engines import graph
from tabi_bench.engines.graph import GraphEngine, Runner, Step, out_of_memory
from tests.engines.micro_models import FAMILIES

TEXTS = (("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good " * 100,))


class Uncaptured(GraphEngine):
    """The graph engine with steps that are called instead of replayed; `failing` lengths raise when recorded."""

    def __init__(self, failing: dict[int, Exception] | None = None):
        super().__init__(EngineConfig(name="graph", device="cpu", buckets=[8, 16]))
        self.failing = failing or {}

    def record(self, step, pool, stream):
        if step.inputs.length in self.failing:
            raise self.failing[step.inputs.length]
        self.stats["graphs"] += 1
        return Called(step)


class Called:
    def __init__(self, step):
        self.replay = step


@pytest.fixture
def engine_with(monkeypatch):
    """Makes an Uncaptured engine on the CPU."""
    for name in ("set_device", "graph_pool_handle", "Stream", "empty_cache", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: torch.cpu.current_stream())
    monkeypatch.setattr(torch.cpu.Stream, "synchronize", lambda _: None, raising=False)
    monkeypatch.setattr(graph.GraphEngine, "needs", "cpu")
    return Uncaptured


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_says_what_eager_says(specs, eager, family):
    """On its static buffers, padded, one query after another."""
    model = eager.load(specs[family], importance="last", pooled=True)
    step = Step(model.network, 24, True, "cpu")
    for texts in TEXTS:
        encoding = model.encode(texts)
        step.inputs.fill(encoding, model.network, 2.0, content=True)
        step()
        found, expected = step.output(encoding), model.forward(encoding, want_importance=True)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.importance, expected.importance, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
        odds = np.exp(expected.logits / 2)
        np.testing.assert_allclose(found.probabilities, odds / odds.sum(), rtol=1e-4)
