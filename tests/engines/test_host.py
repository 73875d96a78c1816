"""A model without layers runs on the host and says what PyTorch says."""

import numpy as np
import pytest
import torch

from tabi_bench.engines.host import HostModel
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


def known_logits(spec, encoding):
    ids, types = (torch.tensor([row]) for row in (encoding.ids, encoding.type_ids))
    with torch.no_grad():
        return load_model(spec, torch.float32, "cpu")(ids, None, token_type_ids=types).logits[0]


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_it_says_what_the_model_says(specs, family, texts):
    model = HostModel(specs[family, 3])
    model.set_temperature(2.0)
    encoding = model.encode(texts)
    expected = known_logits(model.spec, encoding)
    found = model.forward(encoding)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, (expected / 2).softmax(0), rtol=1e-4)
    assert found.verdict == (expected.argmax(), pytest.approx(found.probabilities.max())) and found.finite
    again = model.forward(encoding)
    assert np.array_equal(again.logits, found.logits), "the tables were written to"


@pytest.mark.parametrize(("family", "texts"), CASES)
def test_a_regression_answers_with_its_score_and_pooled_vector(specs, family, texts):
    model = HostModel(specs[family, 1])
    encoding = model.encode(texts)
    found = model.forward(encoding)
    assert found.logits.shape == (1,) and found.verdict is None
    np.testing.assert_allclose(found.logits, known_logits(model.spec, encoding), rtol=1e-4, atol=1e-5)
    score = load_model(model.spec, torch.float32, "cpu").classifier(torch.tensor(found.pooled))
    np.testing.assert_allclose(score.detach(), found.logits, rtol=1e-4, atol=1e-5)


def test_engines_put_it_on_the_host_and_share_its_weights(specs, eager):
    spec = specs["cnn", 3]
    one, other = eager.load(spec, importance="last"), eager.load(spec)
    other.set_temperature(3.0)
    assert isinstance(one, HostModel) and one._features is other._features and one.temperature == 1.0
    assert spec.name in eager.describe()["on_host"]


def test_it_has_no_importance(specs):
    model = HostModel(specs["cnn", 3])
    with pytest.raises(ValueError, match="no attention to read importance from"):
        model.forward(model.encode(ONE[0]), want_importance=True)


def test_a_logit_that_is_not_finite_is_no_verdict(tmp_path):
    model = HostModel(write_model(tmp_path, "cnn", num_hidden_layers=0))
    model._bias[1] = -np.inf
    assert not model.forward(model.encode(ONE[0])).finite


def test_a_head_on_the_first_token_is_refused(tmp_path):
    with pytest.raises(ModelError, match="must be a TextCnn or DecomposableAttention"):
        HostModel(write_model(tmp_path, "bert", num_hidden_layers=0))
