"""A model without layers runs on the host and says what PyTorch says, compiled or in numpy."""

import ctypes

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tabi_bench.engines import native
from tabi_bench.engines.encoding import Encoders, Encoding, as_int64
from tabi_bench.engines.host import HostModel
from tabi_bench.engines.rounding import INPUT, rounded_layer
from tabi_bench.zoo.loading import ModelError, load_model
from tests.engines.micro_models import write_model

ONE = (("not a good film",), ("",), ("good " * 100,))
TWO = (("don't play the films", "a very bad café"), ("", ""), ("the film", "good " * 100), ("good " * 100, "film"))
CASES = [("cnn", texts) for texts in ONE] + [("attention", texts) for texts in TWO]


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Micro models by family and number of outputs."""
    return {
        (family, outputs): write_model(
            tmp_path_factory.mktemp(f"{family}-{outputs}"), family, num_hidden_layers=0, num_labels=outputs
        )
        for family in ("cnn", "attention")
        for outputs in (1, 3)
    }


@pytest.fixture(params=["compiled", "numpy"], scope="module")
def way(request):
    """How a HostModel made in the test runs."""
    native.library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setenv("CC", "no-such-compiler")
        elif native.library()[0] is None:
            pytest.skip(native.library()[1])
        yield request.param
    native.library.cache_clear()


@pytest.fixture
def library(monkeypatch):
    """The compiled host.c, whatever `way` is at the moment."""
    monkeypatch.setenv("CC", "cc")
    native.library.cache_clear()
    actual, why = native.library()
    if actual is None:
        pytest.skip(why)
    yield actual
    native.library.cache_clear()


def known_logits(spec, encoding):
    ids, types = (torch.tensor([row]) for row in (encoding.ids, encoding.type_ids))
    with torch.no_grad():
        return load_model(spec, torch.float32, "cpu")(ids, None, token_type_ids=types).logits[0]


def assert_close(actual, expected):
    """But for rounding to 16 bits; what remains of a sum of large numbers is moved by more than its own thousandth."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=max(1e-2, 2e-3 * abs(expected).max()))


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_it_says_what_the_model_says(specs, way, family, texts):
    model = HostModel(specs[family, 3], Encoders())
    assert model.runs.split(":")[0] == way
    model.set_temperature(2.0)
    encoding = model.encode(texts)
    expected = known_logits(model.spec, encoding)
    actual = model.forward(encoding)
    assert_close(actual.logits, expected)
    np.testing.assert_allclose(actual.probabilities, (torch.tensor(actual.logits) / 2).softmax(0), rtol=1e-5)
    assert actual.verdict == (expected.argmax(), pytest.approx(actual.probabilities.max())) and actual.finite
    again = model.forward(encoding)
    assert np.array_equal(again.logits, actual.logits), "the tables were written to"


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_both_ways_round_alike(specs, library, family, texts):
    model = HostModel(specs[family, 3], Encoders())
    encoding = model.encode(texts)
    expected = known_logits(model.spec, encoding)
    ways = [model.forward(encoding), model.in_numpy(encoding)]
    apart = abs(ways[0].logits - ways[1].logits).max()
    assert apart <= 2e-4 * abs(expected).max() and ways[0].verdict[1] == pytest.approx(ways[1].verdict[1], abs=1e-3)


@pytest.mark.parametrize("family", ["cnn", "attention"])
def test_rounding_is_two_thousandths_of_the_spread_of_logits(specs, way, family):
    model, random = HostModel(specs[family, 3], Encoders()), np.random.default_rng(0)
    encodings = []
    for length in random.integers(2, model.spec.max_length + 1, 300):
        first = length if family == "cnn" else random.integers(1, length)
        types = [0] * first + [1] * (length - first)
        rows = as_int64(random.integers(4, 22, length).tolist()), as_int64(types)
        encodings.append(Encoding((), *rows, False, None))
    known = load_model(model.spec, torch.float32, "cpu")
    rows = [[torch.tensor([row]) for row in (encoding.ids, encoding.type_ids)] for encoding in encodings]
    with torch.no_grad():
        expected = np.array([known(ids, None, token_type_ids=types).logits[0].numpy() for ids, types in rows])
    actual = np.array([model.forward(encoding).logits for encoding in encodings])
    assert (actual - expected).std() < 2e-3 * (expected - expected.mean(0)).std()
    assert (actual.argmax(1) == expected.argmax(1)).mean() > 0.995


def test_powers_of_two(library):
    x = np.concatenate([np.linspace(-126, 126.99, 100_003), np.linspace(-2, 2, 100_003)]).astype(np.float32)
    actual = np.append(x, [-1000, np.nan, -np.inf]).astype(np.float32)
    library.powers(actual.ctypes.data_as(ctypes.c_void_p), len(actual))
    assert (abs(actual[:-3] / np.exp2(x.astype(float)) - 1)).max() < 3e-7
    assert actual[-3] == actual[-1] == pytest.approx(2.0**-126, rel=3e-7) and np.isnan(actual[-2])


@pytest.mark.parametrize("columns", [7, 64, 512])
def test_products_of_a_rounded_layer_stay_in_32_bits(columns):
    layer = rounded_layer(np.ones((3, columns), np.float32), np.zeros(3, np.float32))
    assert abs(layer.weight.values.astype(int)).sum(1).max() * INPUT < 2**31
    x = np.random.default_rng(0).normal(size=columns).astype(np.float32)
    np.testing.assert_allclose(layer(x), x.sum(), atol=1e-3 * abs(x).sum())


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_a_regression_answers_with_its_score_and_pooled_vector(specs, way, family, texts):
    model = HostModel(specs[family, 1], Encoders())
    encoding = model.encode(texts)
    actual = model.forward(encoding)
    assert actual.logits.shape == (1,) and actual.verdict is None and actual.probabilities is None
    assert_close(actual.logits, known_logits(model.spec, encoding))
    score = load_model(model.spec, torch.float32, "cpu").classifier(torch.tensor(actual.pooled))
    assert_close(actual.logits, score.detach())


def test_engines_put_it_on_the_host_and_share_its_weights(specs, eager):
    spec = specs["cnn", 3]
    one, other = eager.load(spec, importance="last"), eager.load(spec)
    other.set_temperature(3.0)
    assert isinstance(one, HostModel) and one._features is other._features and one.temperature == 1.0
    assert spec.name in eager.describe()["on_host"]


def test_it_has_no_importance(specs):
    model = HostModel(specs["cnn", 3], Encoders())
    with pytest.raises(ValueError, match="no attention to read importance from"):
        model.forward(model.encode(ONE[0]), want_importance=True)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("weight", ["classifier.bias", "at.bias"])
def test_an_answer_that_is_not_finite_is_no_verdict(tmp_path, way, value, weight):
    spec = write_model(tmp_path, "cnn", num_hidden_layers=0)
    stored = load_file(tmp_path / "model.safetensors")
    stored[weight][1] = value
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    model = HostModel(spec, Encoders())
    finite = weight == "at.bias" and value == -np.inf  # a filter that finds nothing
    assert model.forward(model.encode(ONE[0])).finite == finite and model.runs.startswith("numpy")


@pytest.mark.filterwarnings("ignore:.*encountered in matmul")
def test_an_overflow_is_no_verdict(tmp_path, way):
    spec = write_model(tmp_path, "cnn", num_hidden_layers=0)
    stored = load_file(tmp_path / "model.safetensors")
    stored["at.bias"].fill_(3e38)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    model = HostModel(spec, Encoders())
    assert model.runs.split(":")[0] == way and not model.forward(model.encode(ONE[0])).finite


def test_why_nothing_was_compiled_is_said(specs, monkeypatch, caplog):
    monkeypatch.setenv("CC", "false")
    native.library.cache_clear()
    model = HostModel(specs["cnn", 3], Encoders())
    native.library.cache_clear()
    assert model.runs.startswith("numpy: ") and "false failed" in model.runs and model.runs[7:] in caplog.text


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path):
    with pytest.raises(ModelError, match="its embeddings end at 20"):
        HostModel(write_model(tmp_path, "cnn", num_hidden_layers=0, vocab_size=20), Encoders())


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_an_encoding_of_other_lengths_is_an_error_and_nothing_is_overwritten(specs, library, family, texts):
    model = HostModel(specs[family, 3], Encoders())
    encoding = model.encode(texts)
    expected = model.forward(encoding).logits
    with pytest.raises(ValueError, match=r"same size|not in list"):
        model.forward(Encoding(texts, as_int64([1] * 1000), as_int64([0] * 1000), False, None))
    assert np.array_equal(model.forward(encoding).logits, expected)


def test_a_head_on_the_first_token_is_refused(tmp_path):
    with pytest.raises(ModelError, match="must be a TextCnn or DecomposableAttention"):
        HostModel(write_model(tmp_path, "bert", num_hidden_layers=0), Encoders())
