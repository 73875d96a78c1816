"""Our Triton kernels against PyTorch: on a GPU, or in Triton's interpreter (pip install triton; TRITON_INTERPRET=1)."""

import os

import numpy as np
import pytest
import torch

from tabi_bench.config import read_file

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device, or Triton and TRITON_INTERPRET=1", allow_module_level=True)
pytest.importorskip("triton")

from tabi_bench.engines import kernels
from tabi_bench.engines.batches import BatchStep, PackedStep
from tabi_bench.engines.buffers import Inputs
from tabi_bench.engines.fused import FusedStages, fusible
from tabi_bench.engines.graph import Step, decided
from tabi_bench.engines.network import build_network
from tests.engines.micro_models import write_model

ON = "cuda:0" if torch.cuda.is_available() else "cpu"
TEXTS = (("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good " * 30,))
WIDE = {"hidden_size": 64, "intermediate_size": 96}  # four heads of 16
NARROW = {"dim": 64, "hidden_dim": 96}  # the same


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def test_linear_with_gelu_where_nothing_is_a_power_of_two():
    x, weight, bias = (torch.randn(*shape, device=ON) for shape in ((13, 48), (100, 48), (100,)))
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(kernels.linear(x, weight, bias), expected, rtol=1e-4, atol=1e-4)
    gelu = torch.nn.functional.gelu(expected)
    torch.testing.assert_close(kernels.linear(x, weight, bias, gelu=True), gelu, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("logit", [0.5, np.nan, np.inf, -np.inf])
def test_a_decision_is_that_of_pytorch(logit):
    inputs, logits = Inputs(8, ON), torch.tensor([1.0, logit, 1.0], device=ON)
    inputs.device[-1:].view(torch.float64).fill_(2.5)
    actual, expected = kernels.decide(logits, inputs.temperature), decided(logits, inputs)
    if np.isfinite(logit):
        torch.testing.assert_close(actual, expected)
        assert actual[0] == 0  # the first of equals
    else:
        assert actual[1].isnan() and expected[1].isnan()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet", "meanpool"])
@pytest.mark.parametrize("importance", [None, "last", "mean"])
def test_fused_stages_say_what_pytorch_says(tmp_path, eager, family, importance):
    """Padded to a bucket, one query after another."""
    spec = write_model(tmp_path, family, **(NARROW if family == "distilbert" else WIDE))
    model = eager.load(spec, importance=importance or "last", pooled=family == "bert")
    network = build_network(spec, torch.float32, ON, importance, family == "bert", fuse_qkv=True)
    assert fusible(network) is None
    network.stages = FusedStages(network.model, network.probe)
    step = Step(network, 24, importance is not None, ON, lambda z, i: kernels.decide(z, i.temperature))
    for texts in TEXTS:
        encoding = model.encode(texts)
        step.inputs.fill(encoding, network, 2.0, content=importance is not None)
        step()
        if ON != "cpu":
            torch.cuda.synchronize()
        actual, expected = step.output(encoding), model.forward(encoding, want_importance=importance is not None)
        np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-3, atol=1e-4)
        assert actual.verdict[0] == expected.logits.argmax()
        if importance:
            np.testing.assert_allclose(actual.importance, expected.importance, rtol=1e-3, atol=1e-5)
        if family == "bert":
            np.testing.assert_allclose(actual.pooled, expected.pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet", "meanpool"])
@pytest.mark.parametrize("importance", [None, "last", "mean"])
@pytest.mark.parametrize("size", [4, 16])  # 16 queries of 24 tokens: the library's matrix products, larger tiles
def test_a_fused_batch_says_what_pytorch_says_one_by_one(tmp_path, eager, family, importance, size):
    spec = write_model(tmp_path, family, **(NARROW if family == "distilbert" else WIDE))
    scored = importance is not None
    model = eager.load(spec, importance=importance or "last", pooled=family == "bert")
    network = build_network(spec, torch.float32, ON, importance, family == "bert", fuse_qkv=True)
    network.stages = FusedStages(network.model, network.probe)
    encodings = [model.encode(texts) for texts in TEXTS]
    outputs = BatchStep(network, size, 24, scored, ON).begin(encodings, 2.0).result()
    for encoding, output in zip(encodings, outputs, strict=True):
        expected = model.forward(encoding, want_importance=scored)
        np.testing.assert_allclose(output.logits, expected.logits, rtol=1e-3, atol=1e-4)
        if scored:
            np.testing.assert_allclose(output.importance, expected.importance, rtol=1e-3, atol=1e-5)
        if family == "bert":
            np.testing.assert_allclose(output.pooled, expected.pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "meanpool"])
@pytest.mark.parametrize("room", [64, 320])  # 320 rows: the library's matrix products, larger tiles
def test_a_packed_batch_says_what_pytorch_says_one_by_one(tmp_path, eager, family, room):
    spec = write_model(tmp_path, family, **(NARROW if family == "distilbert" else WIDE))
    model = eager.load(spec, importance="last", pooled=family == "bert")
    network = build_network(spec, torch.float32, ON, "last", family == "bert", fuse_qkv=True)
    assert not network.packs
    network.stages = FusedStages(network.model, network.probe)
    assert network.packs
    step = PackedStep(network, room, 24, ON)
    for texts in (TEXTS, TEXTS[1:2], TEXTS[::-1]):  # the same buffer: nothing of a batch before is left
        encodings = [model.encode(part) for part in texts]
        for encoding, output in zip(encodings, step.begin(encodings, 2.0).result(), strict=True):
            expected = model.forward(encoding, want_importance=False)
            np.testing.assert_allclose(output.logits, expected.logits, rtol=1e-3, atol=1e-4)
            if family == "bert":
                np.testing.assert_allclose(output.pooled, expected.pooled, rtol=1e-3, atol=1e-4)


def test_a_mean_that_a_hook_wants_is_not_packed(tmp_path):
    spec = write_model(tmp_path, "meanpool", **WIDE)
    network = build_network(spec, torch.float32, ON, None, True, fuse_qkv=True)
    network.stages = FusedStages(network.model, network.probe)
    assert not network.packs


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("albert", {}, "albert has no fused layers"),
        ("bert", {"hidden_size": 64, "hidden_act": "relu"}, "its activation is a ReLU"),
        ("bert", {"hidden_size": 32}, "its heads are 8 wide"),
    ],
)
def test_a_model_that_does_not_fit_says_why(tmp_path, family, changes, reason):
    network = build_network(write_model(tmp_path, family, **changes), torch.float32, "cpu", None, False, True)
    assert reason in fusible(network)


def test_without_a_device_the_engine_says_what_to_use():
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    from tabi_bench.engines import make_engine

    with pytest.raises(ValueError, match="needs a CUDA device"):
        make_engine(read_file("engine", "fused"))


@pytest.mark.skipif(ON == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet", "meanpool"])
def test_half_precision_under_the_engine_says_what_float32_says(tmp_path, family):
    from tabi_bench.engines import make_engine

    spec = write_model(tmp_path, family, **(NARROW if family == "distilbert" else WIDE))
    exact = make_engine(read_file("engine", "eager", dtype="float32", fuse_qkv=False))
    engine = make_engine(read_file("engine", "fused", buckets=[8, 16]))
    model, known = (by.load(spec, importance="last") for by in (engine, exact))
    for texts in TEXTS:
        for want in (False, True):
            actual = model.forward(model.encode(texts), want_importance=want)
            expected = known.forward(known.encode(texts), want_importance=want)
            assert actual.verdict[0] == expected.logits.argmax()
            assert np.abs(actual.logits - expected.logits).max() <= 2e-2 * np.abs(expected.logits).max()
            if want:
                np.testing.assert_allclose(actual.importance, expected.importance, rtol=2e-2, atol=2e-3)
    facts = engine.describe()
    assert facts["fallbacks"] == [] and facts["unfused"] == {} and facts["dropped_buckets"] == []
    for loaded in (engine, exact):
        loaded.close()
