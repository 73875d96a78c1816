"""What of the graph engine needs no GPU: buffers, buckets, and what happens when a capture fails."""

import numpy as np
import pytest
import torch

from tabi_bench.config import read_file
from tabi_bench.engines.base import Output
from tabi_bench.engines.buffers import Inputs, out_of_memory
from tabi_bench.engines.compiled import CompileEngine
from tabi_bench.engines.graph import GraphEngine, Step, decided
from tabi_bench.engines.graph_segments import SegmentGraphs
from tests.engines.micro_models import FAMILIES, Ramp

TEXTS = (("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good " * 100,))
FULL = torch.OutOfMemoryError("CUDA out of memory")


class Called:
    """In place of a graph: replaying calls the step."""

    def __init__(self, step):
        self.replay = step


class Uncaptured(GraphEngine):
    """The graph engine on the CPU, its steps called instead of replayed; `failing` lengths raise when recorded."""

    def __init__(self, failing: dict[int, Exception] | None = None):
        super().__init__(read_file("engine", self.name, dtype="float32", buckets=[8, 16]))
        self.device, self.failing = "cpu", failing or {}

    def record(self, step, pool, stream):
        length = step.inputs.length if isinstance(step, Step) else None
        if length in self.failing:
            raise self.failing[length]
        step()
        self.stats["graphs"] += 1
        return Called(step)


@pytest.fixture(autouse=True)
def no_device(monkeypatch):
    """Whatever the engine asks of CUDA is granted and does nothing."""
    monkeypatch.setattr("tabi_bench.engines.eager.resolve", lambda name: "cuda:0" if name == "auto" else name)
    for name in ("set_device", "graph_pool_handle", "Stream", "empty_cache", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_stream", torch.cpu.current_stream)
    monkeypatch.setattr(torch.cpu.Stream, "synchronize", lambda _: None, raising=False)


def agree(actual, expected, read: bool = True) -> None:
    np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-4, atol=1e-5)
    if read:
        np.testing.assert_allclose(actual.importance, expected.importance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_says_what_eager_says(specs, eager, family):
    """On its static buffers, padded, one query after another."""
    model = eager.load(specs[family], importance="last", pooled=True)
    step = Step(model.network, 24, True, "cpu")
    for texts in TEXTS:
        encoding = model.encode(texts)
        step.inputs.fill(encoding, model.network, 2.0, content=True)
        step()
        actual, expected = step.output(encoding), model.forward(encoding, want_importance=True)
        agree(actual, expected)
        np.testing.assert_allclose(actual.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
        odds = np.exp(expected.logits / 2)
        np.testing.assert_allclose(actual.probabilities, odds / odds.sum(), rtol=1e-4)
        assert actual.verdict == (odds.argmax(), actual.probabilities.max()) and actual.finite


@pytest.mark.parametrize("logit", [np.nan, np.inf, -np.inf])
def test_a_verdict_on_logits_that_are_not_finite_is_no_verdict(logit):
    label, largest, *others = decided(torch.tensor([1.0, logit, 0.0]), Inputs(8, "cpu")).tolist()
    assert (
        np.isnan(largest)
        and len(others) == 6
        and not Output(np.array(others[:3]), verdict=(int(label), largest)).finite
    )


def test_an_output_outlives_the_next_query(specs):
    engine = Uncaptured()
    model = engine.load(specs["bert"], importance="last")
    first = model.forward(model.encode(TEXTS[0]), want_importance=True)
    logits = first.logits.copy()
    other = model.forward(model.encode(TEXTS[3]), want_importance=True)
    again = model.forward(model.encode(TEXTS[0]), want_importance=True)
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.importance, again.importance)  # worked out only now
    assert not np.allclose(other.logits, logits)


def test_queries_run_at_the_next_bucket_and_the_books_are_kept(specs, eager):
    engine = Uncaptured()
    model, known = engine.load(specs["bert"]), eager.load(specs["bert"])
    for texts in TEXTS:
        encoding = model.encode(texts)
        agree(model.forward(encoding), known.forward(encoding), read=False)
        wanted = next(length for length in (8, 16, 24) if length >= encoding.n_tokens)
        assert model.runner.step(encoding.n_tokens, False).inputs.length == wanted
    assert engine.stats["graphs"] == 3  # of one kind: nobody asked for importance
    tokens = [model.encode(texts).n_tokens for texts in TEXTS]
    assert engine.describe()["padding_share"] == pytest.approx(1 - sum(tokens) / (8 + 16 + 8 + 24))
    assert engine.lengths(10) == [8, 16] and engine.lengths(24) == [8, 16, 24]


@pytest.mark.parametrize("length, served_at", [(8, 16), (16, 24), (24, None)])
def test_a_bucket_that_does_not_fit_is_left_out(specs, eager, length, served_at):
    """Its queries run at the next one up, or under eager; the record names it."""
    engine = Uncaptured({length: FULL})
    model, known = engine.load(specs["bert"], importance="last"), eager.load(specs["bert"], importance="last")
    for texts in TEXTS:
        encoding = model.encode(texts)
        agree(model.forward(encoding, want_importance=True), known.forward(encoding, want_importance=True))
    step = model.runner.step(length, True)
    assert (step and step.inputs.length) == served_at
    facts = engine.describe()
    assert facts["dropped_buckets"] == [{"model": "bert", "length": length}]
    assert facts["graphs"] == 2 and facts["fallbacks"] == []


def test_without_any_bucket_the_model_runs_under_eager(specs, eager):
    engine = Uncaptured(dict.fromkeys((8, 16, 24), FULL))
    model, known = engine.load(specs["bert"]), eager.load(specs["bert"])
    agree(model.forward(model.encode(TEXTS[0])), known.forward(known.encode(TEXTS[0])), read=False)
    (fallback,) = engine.describe()["fallbacks"]
    assert (fallback["model"], fallback["reason"]) == ("bert", "no bucket fits into device memory")


def test_a_model_that_cannot_be_captured_runs_under_eager_and_says_so_once(specs, eager):
    engine = Uncaptured({16: RuntimeError("operation not permitted\nwhen the stream is capturing")})
    model, known = engine.load(specs["bert"], importance="last"), eager.load(specs["bert"], importance="last")
    for texts in TEXTS:
        encoding = model.encode(texts)
        agree(model.forward(encoding, want_importance=True), known.forward(encoding, want_importance=True))
        assert model.forward(encoding).probabilities is None
    (fallback,) = engine.describe()["fallbacks"]
    assert fallback["reason"] == "capture at 16 tokens: RuntimeError: operation not permitted"
    whole = engine.load(specs["roberta"])  # other models are captured all the same
    assert whole.forward(whole.encode(TEXTS[2])).probabilities is None
    assert len(engine.describe()["fallbacks"]) == 2


def test_out_of_memory_is_found_beneath_what_it_led_to():
    try:
        try:
            raise FULL
        except RuntimeError:
            raise RuntimeError("capture failed")  # noqa: B904 - as torch does when it leaves a capture
    except RuntimeError as error:
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("out of memory")) and not out_of_memory(None)


def test_handles_share_graphs_but_not_temperatures(specs):
    engine = Uncaptured()
    one, other = engine.load(specs["bert"]), engine.load(specs["bert"])
    other.set_temperature(5.0)
    encoding = one.encode(TEXTS[0])
    sharp, flat = one.forward(encoding), other.forward(encoding)
    np.testing.assert_array_equal(sharp.logits, flat.logits)
    assert sharp.probabilities.max() > flat.probabilities.max()
    assert engine.stats["graphs"] == 3


def test_segments_of_a_graph_say_what_they_say_under_eager(specs, eager):
    engine, ramp = Uncaptured(), Ramp()
    parts, known = (by.load_segments(specs["bert"], {1: ramp}) for by in (engine, eager))
    for texts in TEXTS:
        for model in (parts, known):
            model.start(model.encode(texts))
        for _ in range(parts.n_segments):
            np.testing.assert_allclose(parts.step(), known.step(), rtol=1e-4, atol=1e-5)
    assert engine.stats["graphs"] == 6 and engine.describe()["fallbacks"] == []


@pytest.mark.parametrize(
    ("full", "graphs", "reasons"),
    [([8], 4, []), ([24], 4, []), ([8, 16, 24], 0, ["no bucket fits into device memory"])],
)
def test_segments_leave_out_buckets_that_do_not_fit(specs, eager, monkeypatch, full, graphs, reasons):
    def captured(segments, length, engine):
        if length in full:
            raise FULL
        return SegmentGraphs(segments, length, engine)

    monkeypatch.setattr("tabi_bench.engines.graph_segments.SegmentGraphs", captured)
    engine, ramp = Uncaptured(), Ramp()
    parts, known = (by.load_segments(specs["bert"], {1: ramp}) for by in (engine, eager))
    for texts in TEXTS:
        for model in (parts, known):
            model.start(model.encode(texts))
        for _ in range(parts.n_segments):
            np.testing.assert_allclose(parts.step(), known.step(), rtol=1e-4, atol=1e-5)
    facts = engine.describe()
    assert facts["graphs"] == graphs and [entry["reason"] for entry in facts["fallbacks"]] == reasons
    assert sorted(entry["length"] for entry in facts["dropped_buckets"]) == full


@pytest.mark.parametrize("family", ["bert", pytest.param("deberta-v2", marks=pytest.mark.slow)])
def test_compiled_forwards_trace_whole_and_once_per_bucket(specs, eager, family, monkeypatch):
    """Dynamo traces them without a break; the traced code is run as it is, for there is nothing to compile for."""
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lambda module, *_, **__: module)

    class Traced(CompileEngine, Uncaptured):
        """Compiles as on a GPU, and captures as on a CPU."""

    engine = Traced({})
    model, known = engine.load(specs[family], importance="last"), eager.load(specs[family], importance="last")
    for texts in TEXTS:
        encoding = model.encode(texts)
        agree(model.forward(encoding, want_importance=True), known.forward(encoding, want_importance=True))
    facts = engine.describe()
    assert (facts["compilations"], facts["recompilations"], facts["fallbacks"]) == (3, 0, [])
    engine.close()
