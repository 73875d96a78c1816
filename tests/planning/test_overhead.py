"""What a level costs beside its model, with models that take a known time."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tabi_bench.config import read_file
from tabi_bench.planning.overhead import with_overheads
from tabi_bench.planning.search import search
from tabi_bench.planning.targets import Target
from tests.cascade.ladder import build

TOKENISE_S = 2e-3


class Slow:
    """An encoder that takes its time, shared by all models or not."""

    def __init__(self, encode):
        self.encode = encode

    def __call__(self, texts):
        end = time.perf_counter() + TOKENISE_S
        while time.perf_counter() < end:
            pass
        return self.encode(texts)


def measured(shared: bool, importance: list[str]):
    ladder = build(60, seed=3)
    models = list(ladder.models.values())
    one = Slow(models[0].encode)
    for model in models:
        model.encode = one if shared else Slow(model.encode)
    return with_overheads(ladder.profile, ladder, importance)


def test_levels_that_share_tokens_save_tokenising_and_pruned_text_does_not():
    """The saving is the fixed time of the encoder: what is left of the cascade is far below it."""
    profile = measured(shared=True, importance=["last"])
    assert profile.overhead_ms == pytest.approx(-1e3 * TOKENISE_S, abs=0.5e3 * TOKENISE_S)
    assert profile.level_ms(pruned=True) > profile.level_ms(pruned=False) + 0.5e3 * TOKENISE_S


def test_models_with_tokenizers_of_their_own_share_nothing():
    assert measured(shared=False, importance=[]).overhead_ms > -0.5e3 * TOKENISE_S


def test_one_model_has_no_second_level():
    ladder = build(40, seed=3)
    alone = replace(ladder.profile, models={"small": ladder.profile.models["small"]})
    assert with_overheads(alone, ladder, []) is alone and not ladder.loaded


def test_a_cascade_whose_overhead_eats_its_saving_is_not_planned():
    ladder = build(160, seed=2)
    options = read_file("method", "tabi", alphas=[0.0])
    cheap, dear = ladder.profile, replace(ladder.profile, overhead_ms=1e3)
    plans = [search(profile, Target.of(profile, "relative", None, 0.05, 0.5, 0), options) for profile in (cheap, dear)]
    assert [len(plan.point["models"]) for plan in plans] == [2, 1]
