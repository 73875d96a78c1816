"""A model in segments says what it says whole."""

import numpy as np
import pytest
import torch

from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tests.engines.micro_models import Ramp, write_model

CUT = ("bert", "roberta", "albert", "distilbert", "electra", "mpnet", "meanpool")
TEXTS = (("not a good film",), ("don't play the films", "a very bad café"))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("family", CUT)
def test_the_last_segment_ends_in_the_models_own_logits(specs, family, fuse):
    engine = make_engine(read_file("engine", "eager", device="cpu", fuse_qkv=fuse))
    whole, parts = engine.load(specs[family]), engine.load_segments(specs[family], {1: Ramp()})
    assert parts.n_segments == 2
    for texts in TEXTS:
        parts.start(parts.encode(texts))
        parts.step()
        np.testing.assert_allclose(parts.step(), whole.forward(whole.encode(texts)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_ramp_reads_the_hidden_states_after_its_layer(specs, family, eager):
    ramp = Ramp()
    parts = eager.load_segments(specs[family], {1: ramp})
    encoding = parts.encode(TEXTS[0])
    parts.start(encoding)
    network = eager.load(specs[family]).network
    with torch.inference_mode():
        ids = torch.tensor([encoding.ids])
        hidden = network.model(input_ids=ids, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(parts.step(), ramp(hidden[1], None)[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CUT)
def test_padding_changes_nothing(specs, family, eager):
    """The function that a graph captures, on a padded query, against the whole model on the bare one."""
    segments = eager.load_segments(specs[family], {1: Ramp()}).segments
    model = eager.load(specs[family])
    encoding = model.encode(TEXTS[1])
    ids = torch.zeros(1, 24, dtype=torch.int64)
    ids[0, : encoding.n_tokens] = torch.tensor(encoding.ids)
    types = torch.zeros_like(ids)
    types[0, : encoding.n_tokens] = torch.tensor(encoding.type_ids)
    keep = (torch.arange(24) < encoding.n_tokens).long()[None]
    with torch.inference_mode():
        hidden = segments.stages.embed(ids, types)
        for number in range(2):
            hidden, logits = segments.run(number, hidden, keep, padded=True)
    np.testing.assert_allclose(logits[0].numpy(), model.forward(encoding).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CUT)
def test_rows_that_stay_in_a_batch_end_as_they_do_alone(specs, family, eager):
    parts = eager.load_segments(specs[family], {1: Ramp()})
    encodings = [parts.encode(texts) for texts in (*TEXTS, TEXTS[0])]
    alone = []
    for encoding in encodings:
        parts.start(encoding)
        alone.append([parts.step(), parts.step()])
    parts.start_batch(encodings)
    first, stay = parts.step_batch(), np.array([1, 0])
    np.testing.assert_allclose(first, [steps[0] for steps in alone], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.step_batch(stay), [alone[k][1] for k in stay], rtol=1e-4, atol=1e-5)


def test_segments_can_be_run_again_and_left_early(specs, eager):
    parts = eager.load_segments(specs["bert"], {1: Ramp()})
    first, second = parts.encode(TEXTS[0]), parts.encode(TEXTS[1])
    parts.start(first)
    early = parts.step()
    parts.start(second)
    parts.step()
    parts.start(first)
    np.testing.assert_array_equal(parts.step(), early)


def test_albert_with_groups_of_weights_is_cut_at_the_right_layer(tmp_path, eager):
    spec = write_model(tmp_path, "albert", num_hidden_layers=4, num_hidden_groups=2)
    whole, parts = eager.load(spec), eager.load_segments(spec, {1: Ramp(), 3: Ramp()})
    parts.start(parts.encode(TEXTS[0]))
    assert parts.n_segments == 3
    logits = [parts.step() for _ in range(3)][-1]
    np.testing.assert_allclose(logits, whole.forward(whole.encode(TEXTS[0])).logits, rtol=1e-4, atol=1e-5)


def test_ramps_out_of_reach_and_foreign_families_are_refused(specs, eager):
    with pytest.raises(ValueError, match=r"ramps after layers \[2\]: a model of 2 layers has 1..1"):
        eager.load_segments(specs["bert"], {1: Ramp(), 2: Ramp()})
    with pytest.raises(ValueError, match="deberta-v2 cannot be cut"):
        eager.load_segments(specs["deberta-v2"], {1: Ramp()})
