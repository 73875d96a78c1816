"""The engine that the others are compared with."""

from dataclasses import replace

import numpy as np
import pytest

from tabi_bench.config import ConfigError, read_file
from tabi_bench.engines import make_engine
from tests.engines.micro_models import FAMILIES, write_model


def logits_of(engine, spec, texts=("not a good film",)) -> np.ndarray:
    model = engine.load(spec)
    return model.forward(model.encode(texts)).logits


def test_dtype_is_explicit_and_a_cpu_runs_float32(specs, eager):
    engine = make_engine(read_file("engine", "eager", device="cpu"))
    assert engine.dtype == "float32"
    assert {p.dtype.itemsize for p in engine.network(specs["bert"], None, False).parameters()} == {4}
    assert logits_of(engine, specs["bert"]).dtype == np.float32


def test_weights_are_shared_between_loads(specs, eager):
    read = eager.load(specs["bert"], importance="last")
    assert eager.load(specs["bert"]).network is read.network
    assert eager.load(specs["bert"], importance="mean").network is not read.network
    assert eager.load(specs["bert"], pooled=True).network is not read.network


def test_temperature_belongs_to_the_handle(specs, eager):
    one, other = eager.load(specs["bert"]), eager.load(specs["bert"])
    one.set_temperature(2)
    assert (one.temperature, other.temperature) == (2.0, 1.0)


def test_label_order_and_scale_reach_the_logits(specs, eager, tmp_path):
    plain = logits_of(eager, specs["bert"])
    turned = logits_of(eager, replace(specs["bert"], label_order=(2, 0, 1)))
    np.testing.assert_allclose(turned, plain[[2, 0, 1]], rtol=1e-5)
    scaled = logits_of(eager, replace(specs["bert"], scale=(2.0, 1.0)))
    np.testing.assert_allclose(scaled, 2 * plain + 1, rtol=1e-5)


def test_odd_texts_are_answered(specs, eager):
    model = eager.load(specs["meanpool"], importance="last")
    for texts in (("",), ("good " * 10_000,), ("映画 \x00 café",), ("", "")):
        encoding = model.encode(texts)
        output = model.forward(encoding, want_importance=True)
        assert np.isfinite(output.logits).all()
        assert len(output.importance) == sum(len(text.split()) for text in texts)
    assert np.isnan(model.forward(model.encode(("a \x00",)), want_importance=True).importance).tolist() == [False, True]


def test_profile_lengths_end_at_the_longest_query(eager):
    assert eager.lengths(20) == [4, 8, 12, 16, 20]
    assert not eager.pads and eager.concurrent([]) is None


@pytest.mark.parametrize("name", ["graph", "compile"])
def test_graphs_need_a_gpu(name):
    with pytest.raises(ValueError, match="needs a CUDA device"):
        make_engine(replace(read_file("engine", name), device="cpu"))
    with pytest.raises(ConfigError, match="CUDA graphs need a GPU"):
        read_file("engine", name, device="cpu")


def test_unknown_engines_and_devices_are_refused():
    with pytest.raises(ValueError, match="unknown engine 'tensorrt'"):
        make_engine(read_file("engine", "tensorrt"))
    with pytest.raises(ValueError, match="cuda:99"):
        make_engine(read_file("engine", "eager", device="cuda:99"))
    with pytest.raises(ValueError, match="choose auto, cpu or cuda"):
        make_engine(read_file("engine", "eager", device="tpu"))


def test_describe_is_plain_data(specs, eager):
    facts = eager.describe()
    assert facts["engine"] == "eager" and facts["fallbacks"] == [] and facts["dtype"] == "float32"
    eager.load(specs["bert"])
    eager.close()
    assert not eager._networks


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_in_half_precision(specs, family, eager):
    half = make_engine(read_file("engine", "eager", device="cpu", dtype="float16"))
    known = logits_of(eager, specs[family])
    np.testing.assert_allclose(logits_of(half, specs[family]), known, atol=2e-2 * np.abs(known).max())


def test_another_instance_has_weights_of_its_own(specs, eager):
    first, same, other = eager.load(specs["bert"]), eager.load(specs["bert"]), eager.load(specs["bert"], instance="b")
    assert same.network is first.network and other.network is not first.network
    pointers = [{p.data_ptr() for p in model.network.parameters()} for model in (first, other)]
    assert not pointers[0] & pointers[1]
    encoding = first.encode(("not a good film",))
    np.testing.assert_array_equal(first.forward(encoding).logits, other.forward(encoding).logits)


def test_another_instance_is_built_as_the_first_one(specs, eager):
    # one with a probe and one without would differ in more than where their weights lie
    eager.load(specs["bert"], importance="mean")
    assert eager.load(specs["bert"], instance="b").network.probe.option == "mean"
    eager.load(specs["roberta"])
    assert eager.load(specs["roberta"], instance="b").network.probe is None


def test_a_model_on_the_host_has_instances_too(tmp_path, eager):
    spec = write_model(tmp_path, "cnn", num_hidden_layers=0)
    first, same, other = eager.load(spec), eager.load(spec), eager.load(spec, instance="b")
    assert first._features is same._features and first._features is not other._features


def test_a_batch_is_its_queries_one_by_one(specs, eager):
    model = eager.load(specs["bert"], importance="last")
    encodings = [model.encode(texts) for texts in (("not a good film",), ("a play", "the films"))]
    for together, encoding in zip(model.forward_batch(encodings, True), encodings, strict=True):
        alone = model.forward(encoding, True)
        np.testing.assert_allclose(together.logits, alone.logits, rtol=1e-5)
        np.testing.assert_allclose(together.importance, alone.importance, atol=1e-6)
