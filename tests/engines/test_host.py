"""A model without layers runs on the host and says what PyTorch says."""

import numpy as np
import pytest
import torch

from tabi_bench.engines.host import HostModel
from tabi_bench.zoo.loading import ModelError, load_model
from tests.engines.micro_models import write_model

TEXTS = (("not a good film",), ("don't play the films", "a very bad café"), ("",), ("good " * 100,))


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("average"), "meanpool", num_hidden_layers=0)


@pytest.mark.parametrize("texts", TEXTS)
def test_it_says_what_the_model_says(spec, texts):
    model, known = HostModel(spec), load_model(spec, torch.float32, "cpu")
    model.set_temperature(2.0)
    encoding = model.encode(texts)
    ids, types = (torch.tensor([row]) for row in (encoding.ids, encoding.type_ids))
    with torch.no_grad():
        expected = known(ids, token_type_ids=types).logits[0]
    found = model.forward(encoding)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, (expected / 2).softmax(0), rtol=1e-4)
    assert found.verdict == (expected.argmax(), pytest.approx(found.probabilities.max())) and found.finite


@pytest.mark.parametrize("texts", TEXTS)
def test_a_regression_answers_with_its_score_and_pooled_vector(tmp_path, texts):
    spec = write_model(tmp_path, "meanpool", num_hidden_layers=0, num_labels=1)
    model = HostModel(spec)
    encoding = model.encode(texts)
    found = model.forward(encoding)
    assert found.verdict is None and found.probabilities is None
    with torch.no_grad():
        ids, types = (torch.tensor([row]) for row in (encoding.ids, encoding.type_ids))
        known = load_model(spec, torch.float32, "cpu")
        np.testing.assert_allclose(found.logits, known(ids, token_type_ids=types).logits[0], rtol=1e-4, atol=1e-5)
        score = known.classifier(torch.tensor(found.pooled))
    np.testing.assert_allclose(score, found.logits, rtol=1e-4, atol=1e-5)


def test_engines_put_it_on_the_host_and_share_its_weights(spec, eager):
    one, other = eager.load(spec, importance="last"), eager.load(spec)
    other.set_temperature(3.0)
    assert isinstance(one, HostModel) and one._average is other._average and one.temperature == 1.0
    assert spec.name in eager.describe()["on_host"]


def test_it_has_no_importance(spec):
    model = HostModel(spec)
    with pytest.raises(ValueError, match="no attention to read importance from"):
        model.forward(model.encode(TEXTS[0]), want_importance=True)


def test_a_logit_that_is_not_finite_is_no_verdict(spec):
    model = HostModel(spec)
    model._average.constant[1] = -np.inf
    assert not model.forward(model.encode(TEXTS[0])).finite


def test_a_head_on_the_first_token_is_refused(tmp_path):
    with pytest.raises(ModelError, match="must average its embeddings"):
        HostModel(write_model(tmp_path, "bert", num_hidden_layers=0))
