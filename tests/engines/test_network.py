"""A classifier as the engines run it: padding and fused projections change nothing."""

import pytest
import torch

from tabi_bench.engines.fuse import fuse_projections
from tabi_bench.engines.network import Network, build_network
from tabi_bench.zoo.families.attention import additive_mask
from tabi_bench.zoo.loading import load_model
from tests.engines.micro_models import FAMILIES, write_model

LENGTH, BUCKET = 7, 16
FUSED = ("bert", "roberta", "albert", "distilbert", "electra", "mpnet", "meanpool")


def query(length: int, bucket: int, pad: int = 0) -> dict[str, torch.Tensor]:
    """A fixed query of `length` tokens, padded to `bucket`: ids, types, keep, content, (1, bucket) each."""
    ids = torch.full((1, bucket), pad)
    ids[0, :length] = torch.tensor([2, 4, 6, 7, 8, 9, 3])[:length]
    keep = (torch.arange(bucket) < length).long()[None]
    content = keep.clone()
    content[0, [0, length - 1]] = 0
    types = torch.zeros_like(ids)
    types[0, 4:length] = 1
    return {"ids": ids, "types": types, "keep": keep, "content": content}


def build(spec, **options) -> Network:
    return build_network(
        spec, torch.float32, "cpu", **{"importance": "last", "pooled": True, "fuse_qkv": False} | options
    )


@pytest.mark.parametrize("importance", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(specs, family, importance):
    network = build(specs[family], importance=importance)
    tight, padded = query(LENGTH, LENGTH), query(LENGTH, BUCKET)
    with torch.inference_mode():
        expected = network(**tight | {"keep": None})
        actual = network(**padded)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual[1][:LENGTH], expected[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actual[2], expected[2], rtol=1e-4, atol=1e-5)
    assert (actual[1][LENGTH:] == 0).all() and (actual[1][[0, LENGTH - 1]] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(specs, family):
    model = load_model(specs[family], torch.float32, "cpu")
    model.set_attn_implementation("eager")
    given = query(LENGTH, LENGTH)
    network = build(specs[family], importance=None, pooled=False)
    kwargs = {"token_type_ids": given["types"]} if network.typed else {}
    with torch.inference_mode():
        expected = model(input_ids=given["ids"], **kwargs).logits[0]
        logits, scores, pooled = network(given["ids"], given["types"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert scores is None and pooled is None and logits.dtype == torch.float32


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu", "layer_norm_eps": 0.1}])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_a_layer_by_its_parts_is_the_layer(tmp_path, family, changes):
    """To the last bit: projections fused and apart, with and without padding, in single and half precision."""
    spec = write_model(tmp_path, family, **changes)
    keep = query(LENGTH, BUCKET)["keep"]
    for dtype in (torch.float32, torch.bfloat16):
        hidden = torch.randn(1, BUCKET, 32, dtype=dtype)
        for fuse in (False, True):
            stages = build_network(spec, dtype, "cpu", "last", False, fuse).stages
            for mask in (None, additive_mask(attention_mask=keep, dtype=dtype)):
                assert torch.equal(stages.layer(1, hidden, mask), stages.family.blocks(stages.model)[1](hidden, mask))


def test_the_pooled_vector_is_what_the_last_linear_layer_reads(specs):
    network = build(specs["roberta"])
    with torch.inference_mode():
        logits, _, pooled = network(**query(LENGTH, LENGTH))
    torch.testing.assert_close(network.model.classifier.out_proj(pooled), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_projections_change_nothing(specs, family):
    given = query(LENGTH, BUCKET)
    with torch.inference_mode():
        expected = build(specs[family])(**given)
        actual = build(specs[family], fuse_qkv=True)(**given)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_families_that_allow_it_are_fused(specs, family):
    model = load_model(specs[family], torch.float32, "cpu")
    before = sum(p.numel() for p in model.parameters())
    linears = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
    assert fuse_projections(model) is (family in FUSED)
    assert sum(p.numel() for p in model.parameters()) == before  # the three weights are gone, not kept beside
    assert (sum(isinstance(m, torch.nn.Linear) for m in model.modules()) < linears) is (family in FUSED)


def test_deberta_v2_with_keys_of_its_own_is_fused(tmp_path):
    spec = write_model(tmp_path, "deberta-v2", share_att_key=False)
    given = query(LENGTH, BUCKET)
    with torch.inference_mode():
        expected = build(spec)(**given)[0]
        fused = build(spec, fuse_qkv=True)
        torch.testing.assert_close(fused(**given)[0], expected, rtol=1e-4, atol=1e-5)
    assert fuse_projections(load_model(spec, torch.float32, "cpu"))


def test_half_precision_masks_with_its_own_lowest_number():
    mask = additive_mask(attention_mask=torch.tensor([[1, 1, 0]]), dtype=torch.float16)
    assert mask.shape == (1, 1, 1, 3) and mask.dtype == torch.float16
    assert mask.flatten().tolist() == [0, 0, torch.finfo(torch.float16).min]
    assert additive_mask(attention_mask=None) is None
