"""Captured and compiled models against float32 eager, on a GPU: `pytest -m gpu tests/engines`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.graph import GraphEngine
from tests.engines.micro_models import FAMILIES, Ramp, write_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    ("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good",), ("good " * 100,),
    ("the film is not very good , and the movie is bad .",), ("a play of the movie", "the film"),
)  # fmt: skip
COMPILED = ("bert", "deberta", "deberta-v2", "mpnet")
CASES = [("graph", family) for family in FAMILIES] + [("compile", family) for family in COMPILED]


@pytest.fixture
def make():
    """Makes engines and closes them."""
    made = []

    def build(name: str, kind=None, **options):
        own = {} if name == "eager" else {"buckets": [8, 16]}
        config = read_file("engine", name, **{"device": "cuda:0", **own, **options})
        made.append(kind(config) if kind else make_engine(config))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


@pytest.fixture
def exact(make):
    """Float32 eager on the GPU, unfused."""
    torch.backends.cuda.matmul.allow_tf32 = False
    return make("eager", dtype="float32", fuse_qkv=False)


def answers(model, want: bool = True) -> list:
    return [model.forward(model.encode(texts), want_importance=want) for texts in TEXTS]


def agree(actual: list, expected: list, share: float = 0.75) -> None:
    """Labels equal, logits within 2e-2 of the largest, importance near, so that the same words are pruned."""
    for one, known in zip(actual, expected, strict=True):
        assert one.logits.argmax() == known.logits.argmax()
        assert np.abs(one.logits - known.logits).max() <= 2e-2 * np.abs(known.logits).max()
        np.testing.assert_allclose(one.importance, known.importance, rtol=2e-2, atol=2e-3)
        limit = share * np.nanmean(known.importance) if len(known.importance) else 0.0
        clear = np.abs(known.importance - limit) > 2e-3
        assert ((one.importance < limit) == (known.importance < limit))[clear].all()


@pytest.mark.parametrize("name, family", CASES)
def test_half_precision_says_what_float32_says(specs, make, exact, name, family):
    engine = make(name, buckets=[16])
    agree(answers(engine.load(specs[family], importance="last")), answers(exact.load(specs[family], importance="last")))
    facts = engine.describe()
    assert facts["fallbacks"] == [] and facts["graphs"] == 2 and facts["dtype"] == "float16"
    assert facts.get("recompilations", 0) == 0


@pytest.mark.parametrize("name, family", CASES)
def test_padding_changes_nothing(specs, make, name, family):
    """In float32, where rounding cannot hide a wrong mask."""
    bare = make("eager", dtype="float32").load(specs[family], importance="mean")
    wide = make(name, dtype="float32", buckets=[]).load(specs[family], importance="mean")
    for one, known in zip(answers(wide), answers(bare), strict=True):
        np.testing.assert_allclose(one.logits, known.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one.importance, known.importance, rtol=1e-3, atol=1e-5)


def test_probabilities_and_pooled_vector_come_from_the_graph(specs, make, exact):
    model = make("graph").load(specs["bert"], pooled=True)
    known = exact.load(specs["bert"], pooled=True)
    model.set_temperature(2.5)
    for one, other in zip(answers(model, False), answers(known, False), strict=True):
        odds = np.exp(one.logits / 2.5)
        np.testing.assert_allclose(one.probabilities, odds / odds.sum(), rtol=1e-3)
        np.testing.assert_allclose(one.pooled, other.pooled, atol=2e-2)
        assert one.importance is None


def test_a_text_beyond_the_largest_bucket_is_cut_at_the_longest_input(specs, make, exact):
    model, known = make("graph", buckets=[8]).load(specs["bert"]), exact.load(specs["bert"])
    encoding = model.encode(("bad film " * 5000,))
    assert encoding.truncated and encoding.n_tokens == 24
    np.testing.assert_allclose(model.forward(encoding).logits, known.forward(encoding).logits, rtol=2e-2, atol=2e-2)


def test_the_first_query_after_capture_is_answered_like_the_next(specs, make):
    model = make("graph").load(specs["bert"], importance="last")
    encoding = model.encode(TEXTS[0])
    first, second = (model.forward(encoding, want_importance=True) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(first.importance, second.importance)


def test_models_that_share_a_pool_do_not_disturb_each_other(specs, make):
    engine = make("graph")
    alone = {name: answers(make("graph").load(specs[name], importance="last")) for name in ("bert", "roberta")}
    models = {name: engine.load(specs[name], importance="last") for name in alone}
    for number, texts in enumerate(TEXTS):
        for _ in range(2):
            for name, model in models.items():
                output = model.forward(model.encode(texts), want_importance=True)
                np.testing.assert_array_equal(output.logits, alone[name][number].logits)
                np.testing.assert_array_equal(output.importance, alone[name][number].importance)


def test_concurrent_members_say_what_they_say_alone(specs, make):
    engine = make("graph")
    members = [engine.load(specs[name]) for name in ("bert", "roberta", "albert", "distilbert")]
    together = engine.concurrent(members)
    for texts in TEXTS * 3:
        encodings = [member.encode(texts) for member in members]
        alone = [member.forward(encoding).logits for member, encoding in zip(members, encodings, strict=True)]
        for output, logits in zip(together.forward(encodings), alone, strict=True):
            np.testing.assert_allclose(output.logits, logits, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["graph", "compile"])
def test_segments_end_in_the_models_own_logits(specs, make, exact, name):
    engine = make(name, buckets=[])
    ramp = Ramp()
    parts, known = (by.load_segments(specs["bert"], {1: ramp}) for by in (engine, exact))
    for texts in TEXTS:
        for model in (parts, known):
            model.start(model.encode(texts))
        for _ in range(2):
            actual, expected = parts.step(), known.step()
            assert np.abs(actual - expected).max() <= 2e-2 * max(1.0, np.abs(expected).max())
    assert engine.describe()["fallbacks"] == []


class Greedy(GraphEngine):
    """Asks for more memory than there is while capturing at 16 tokens."""

    def prepare(self, forward):
        def run(ids, *others):
            if ids.size(1) == self.too_long:
                torch.empty(1 << 44, dtype=torch.uint8, device=self.device)
            return forward(ids, *others)

        return run


@pytest.mark.parametrize("length", [16, 24])
def test_out_of_memory_while_capturing_leaves_fewer_buckets(specs, make, exact, length):
    engine = make("graph", kind=Greedy)
    engine.too_long = length
    actual = answers(engine.load(specs["bert"], importance="last"))
    agree(actual, answers(exact.load(specs["bert"], importance="last")))
    facts = engine.describe()
    assert facts["dropped_buckets"] == [{"model": "bert", "length": length}]
    assert facts["graphs"] == 2 and facts["fallbacks"] == []


BROKEN = """
import sys
sys.path.insert(0, {root!r})
from tabi_bench import registry
from tabi_bench.config import compose_config
from tabi_bench.engines.graph import GraphModel
from tabi_bench.experiment import run_session

registry.TABLE["zoo"]["tiny"] = registry.TABLE["zoo"]["tiny"]._replace(code="tests.micro:load")
launch, calls = GraphModel.launch, [0]

def broken(self, step, encoding):
    calls[0] += 1
    if calls[0] == 400:  # a token that the embedding table does not have: the device gives up
        step.inputs.fill(encoding, self.network, 1.0, step.scored)
        step.inputs._ids[:] = 1 << 40
        step.graph.replay()
    else:
        launch(self, step, encoding)

if sys.argv[1] == "break":
    GraphModel.launch = broken
run_session(compose_config(sys.argv[2:]))
"""


def test_a_driver_error_in_the_middle_leaves_a_record_and_the_next_run_works(tmp_path):
    small = ["source.train_rows=600", "source.validation_rows=120", "scenario.min_queries=120", "scenario.warmup=4"]
    places = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache", "task=sst2", "engine=graph"]

    def run(how: str) -> tuple[int, str, list[dict]]:
        command = [sys.executable, "-c", BROKEN.format(root=str(ROOT)), how, *small, *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        records = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").rglob("record.json"))]
        return done.returncode, done.stderr, records

    code, printed, records = run("break")
    assert code != 0, printed[-2000:]  # torch may abort while it ends: its destructors meet the lost device
    assert {record["status"] for record in records} == {"failed"} and len(records) == 2, printed[-2000:]
    code, printed, records = run("work")
    assert code == 0, printed[-2000:]
    assert {record["status"] for record in records} == {"ok"}


def test_fewer_weights_stay_behind_after_closing(tmp_path, make):
    spec = write_model(tmp_path, "bert", hidden_size=512, intermediate_size=2048, vocab_size=20000)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = make("graph")
    answers(engine.load(spec, importance="last"))
    held = torch.cuda.memory_allocated() - before
    engine.close()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < held


@pytest.mark.parametrize("name", ["graph", "fused"])
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_of_batches_equal_single_queries(tmp_path, make, family, name):
    """Sizes that are no power of two, mixed lengths, twice on the same buffers; padding is counted."""
    wide = {"hidden_size": 64, "intermediate_size": 96}  # as the kernels need it
    changes = {"distilbert": {"dim": 64, "hidden_dim": 96}, "deberta": {}, "deberta-v2": {}}.get(family, wide)
    engine = make(name, dtype="float32")
    model = engine.load(write_model(tmp_path, family, **changes), importance="last")
    texts = [("a good film",), ("not bad , the movie is very very good",), ("bad",), ("the play", "is a movie"), ("a",)]
    encodings = [model.encode(text) for text in texts]
    for scored in (True, False, True):
        outputs = model.forward_batch(encodings, scored)
        for ours, encoding in zip(outputs, encodings, strict=True):
            alone = model.forward(encoding, scored)
            np.testing.assert_allclose(ours.logits, alone.logits, atol=2e-3, rtol=2e-3)
            if scored:
                np.testing.assert_allclose(ours.importance, alone.importance, atol=2e-3)
    assert not engine.describe()["fallbacks"] and 0 < engine.describe()["batch_padding_share"] < 1
    graphs = engine.describe()["graphs"]
    for scored in (True, False):
        model.forward_batch(encodings[2:3] * 5, scored)
    if model.runner._packed:
        model.forward_batch(encodings[2:4])
    assert engine.describe()["graphs"] == graphs, "a smaller batch was captured after a larger one"
    assert bool(model.runner._packed) == (name == "fused" and model.network.packs)
