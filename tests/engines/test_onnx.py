"""ONNX Runtime says what eager says; int8 runs and is near it; what cannot be exported runs under eager."""

import logging
import sys

import numpy as np
import pytest

from tabi_bench.config import ConfigError, read_file
from tabi_bench.engines import make_engine, onnx
from tabi_bench.zoo.base import Zoo
from tests.engines.micro_models import FAMILIES

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
TEXTS = (("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good " * 100,))


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(read_file("engine", "onnx", cache_dir=str(tmp_path), threads=1))
    yield engine
    engine.close()


def outputs(model, want: bool) -> list:
    return [model.forward(model.encode(texts), want_importance=want) for texts in TEXTS]


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_eager(specs, eager, engine, family):
    """At any length, with and without importance, padded nowhere."""
    exported = engine.load(specs[family], importance="last", pooled=True)
    expected = outputs(eager.load(specs[family], importance="last", pooled=True), True)
    for actual, known in zip(outputs(exported, True), expected, strict=True):
        np.testing.assert_allclose(actual.logits, known.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(actual.importance, known.importance, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(actual.pooled, known.pooled, rtol=1e-3, atol=1e-4)
    assert engine.describe()["fallbacks"] == []


def test_without_importance_and_over_all_layers(specs, eager, engine):
    plain = outputs(engine.load(specs["bert"]), False)
    read = outputs(engine.load(specs["bert"], importance="mean"), True)
    expected = outputs(eager.load(specs["bert"], importance="mean"), True)
    for one, other, known in zip(plain, read, expected, strict=True):
        assert one.importance is None and one.pooled is None
        np.testing.assert_allclose(one.logits, known.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other.importance, known.importance, rtol=1e-3, atol=1e-5)


def test_int8_is_another_model_near_the_first(specs, eager, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    engine = make_engine(read_file("engine", "onnx", cache_dir=str(tmp_path), quantize=True, threads=1))
    assert engine.dtype == "int8"
    actual = np.stack([output.logits for output in outputs(engine.load(specs["bert"]), False)])
    known = np.stack([output.logits for output in outputs(eager.load(specs["bert"]), False)])
    assert not np.allclose(actual, known, rtol=1e-5)
    assert np.abs(actual - known).max() < 0.1 * np.abs(known).max()
    assert engine.describe()["fallbacks"] == [] and engine.describe()["quantize"]
    assert [record.getMessage() for record in caplog.records if record.name == "root"] == []
    assert logging.getLogger().level == logging.INFO
    (file,) = tmp_path.rglob("model.onnx")
    assert engine.loads["bert"]["weights_mb"] == file.stat().st_size / 1e6, "as it is held, not as it was read"


def test_a_ladder_may_hold_every_model_in_both(specs, engine, tmp_path):
    int8 = make_engine(read_file("engine", "onnx", cache_dir=str(tmp_path), quantize=True, threads=1))
    both = Zoo("both", (specs["bert"], specs["mpnet"])).with_int8
    assert both.names == ["bert-int8", "bert", "mpnet-int8", "mpnet"]
    assert len({spec.content_hash for spec in both.models}) == 4
    for spec in both.models:
        name = spec.name.removesuffix("-int8")
        alone = (int8 if spec.int8 else engine).load(specs[name], importance="last")
        for actual, known in zip(
            outputs(engine.load(spec, importance="last"), True), outputs(alone, True), strict=True
        ):
            np.testing.assert_array_equal(actual.logits, known.logits)
            np.testing.assert_array_equal(actual.importance, known.importance)
    int8.close()


def test_a_model_is_exported_once(specs, engine, tmp_path, monkeypatch):
    outputs(engine.load(specs["distilbert"]), False)
    monkeypatch.setattr(onnx, "export", None)  # a second export would fail, and fall back
    again = make_engine(read_file("engine", "onnx", cache_dir=str(tmp_path), threads=1))
    outputs(again.load(specs["distilbert"]), False)
    assert again.describe()["fallbacks"] == []


def test_a_model_that_cannot_be_exported_runs_under_eager_and_says_so(specs, eager, engine, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(onnx, "export", refuse)
    model = engine.load(specs["bert"], importance="last")
    expected = outputs(eager.load(specs["bert"], importance="last"), True)
    for actual, known in zip(outputs(model, True), expected, strict=True):
        np.testing.assert_allclose(actual.importance, known.importance, rtol=1e-4, atol=1e-6)
    (fallback,) = engine.describe()["fallbacks"]
    assert (fallback["model"], fallback["engine"]) == ("bert", "eager")
    assert fallback["reason"] == "export: RuntimeError: no such operator"


def test_segments_run_under_eager_and_say_so(specs, engine):
    engine.load_segments(specs["bert"], {})
    assert "segments" in engine.describe()["fallbacks"][0]["reason"]


def test_settings_that_it_cannot_have_are_refused(specs, engine):
    for wrong in ({"device": "cuda:0"}, {"dtype": "float16"}):
        with pytest.raises(ConfigError, match="choose one of auto"):
            read_file("engine", "onnx", **wrong)
    model = engine.load(specs["bert"])
    with pytest.raises(ValueError, match="loaded without importance"):
        model.forward(model.encode(("good",)), want_importance=True)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'tabi-bench\[onnx\]'"):
        make_engine(read_file("engine", "onnx"))
