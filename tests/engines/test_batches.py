"""A batch gives the numbers of its queries one by one, for every family and engine."""

import numpy as np
import pytest

from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.batches import FEWEST, BatchStep, packed_shape, rooms_up_to
from tests.engines.micro_models import FAMILIES

TEXTS = [("a good film",), ("not bad , the movie is very very good and don't",), ("bad",), ("the play", "is a movie")]
TEXTS += [("café film not good",)]


def check(batch, alone):
    assert len(batch) == len(alone)
    for ours, theirs in zip(batch, alone, strict=True):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=2e-4, rtol=1e-4)
        np.testing.assert_allclose(ours.importance, theirs.importance, atol=1e-4)
        assert ours.verdict[0] == theirs.logits.argmax()


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_batches_equal_single_queries(specs, eager, family):
    model = eager.load(specs[family], importance="last")
    encodings = [model.encode(texts) for texts in TEXTS]
    alone = [model.forward(encoding, True) for encoding in encodings]
    check(model.forward_batch(encodings, True), alone)
    model.set_temperature(3.0)
    sure = model.forward_batch(encodings)[1].verdict[1]
    z = alone[1].logits.astype(np.float64) / 3
    assert sure == pytest.approx((np.exp(z) / np.exp(z).sum()).max(), abs=1e-4)
    tokens = [encoding.n_tokens for encoding in encodings]
    padding = 1 - sum(tokens) / (len(tokens) * max(tokens))
    assert eager.describe()["batch_padding_share"] == pytest.approx(padding)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_larger_static_batch_equals_single_queries(specs, eager, family):
    """What a graph would record, run as it is: more rows and a longer bucket than the batch needs."""
    model = eager.load(specs[family], importance="mean")
    encodings = [model.encode(texts) for texts in TEXTS]
    step = BatchStep(model.network, 8, 24, True, "cpu")
    for _ in range(2):  # buffers are used again
        check(step.begin(encodings, 1.0).result(), [model.forward(encoding, True) for encoding in encodings])


def test_a_packed_shape_holds_its_batch_and_is_one_of_those_captured_beforehand():
    rooms = rooms_up_to(packed_shape([128] * 128, 128)[0])
    assert rooms[0] == 128 * 128 and rooms == sorted(set(rooms), reverse=True) and len(rooms) == 33
    mixed = [[k + 2, 40] * n for k in range(90) for n in (1, 9, 64)]
    for counts in ([2], [2] * 128, [64], [65], [128] * 128, *mixed):
        room, longest = packed_shape(counts, 128)
        assert room in rooms and room >= sum(counts) and room >= FEWEST * len(counts) and longest >= max(counts)
        assert room <= max(64, 1.25 * sum(counts), 1.25 * FEWEST * len(counts))
    assert packed_shape([30], 48) == (64, 48) and packed_shape([30], 512) == (64, 64)


def test_pooled_vectors_come_with_their_rows(specs, eager):
    model = eager.load(specs["bert"], pooled=True)
    encodings = [model.encode(texts) for texts in TEXTS]
    for ours, encoding in zip(model.forward_batch(encodings), encodings, strict=True):
        np.testing.assert_allclose(ours.pooled, model.forward(encoding).pooled, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_batches_equal_single_queries(specs, family, tmp_path):
    pytest.importorskip("onnxruntime")
    engine = make_engine(read_file("engine", "onnx", cache_dir=str(tmp_path), quantize=False))
    model = engine.load(specs[family], importance="last")
    encodings = [model.encode(texts) for texts in TEXTS]
    for size in (2, 5):  # the axis is free
        check(model.forward_batch(encodings[:size], True), [model.forward(e, True) for e in encodings[:size]])
    engine.close()
