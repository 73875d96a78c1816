"""What a run's name depends on, and what a number says of where it comes from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tabi_bench.records.ledger import Ledger
from tabi_bench.records.provenance import config_hash, provenance, revision


def test_the_same_settings_and_contents_are_the_same_run(composed):
    config = composed("task=sst2")
    assert config_hash(config, "data", "models") == config_hash(composed("task=sst2"), "data", "models")
    assert len(config_hash(config)) == 8 and int(config_hash(config), 16) >= 0
    assert config_hash(config, "data", "models") != config_hash(config, "other data", "models")


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("results_dir=elsewhere", True),
        ("cache_dir=elsewhere", True),
        ("overwrite=true", True),
        ("label=mine", True),
        ("cost.usd_per_hour=9", True),
        ("seed=1", False),
        ("search.margin_se=0", False),
        ("method.alphas=[0.0]", False),
        ("scenario.min_queries=2000", False),
        ("compare=[infaas,tabi,single]", False),
    ],
)
def test_settings_that_change_nothing_measured_change_no_name(composed, override, same):
    hashes = [config_hash(composed("task=sst2", *more)) for more in ([], [override])]
    assert (hashes[0] == hashes[1]) == same


def test_paths_do_not_count_but_a_plans_content_does(composed, tmp_path):
    local = [composed("task=sst2", "source=local", f"source.dir={place}") for place in ("a", "b")]
    assert config_hash(local[0]) == config_hash(local[1])
    for name, text in (("one", "{}"), ("same", "{}"), ("other", "{ }")):
        (tmp_path / name).write_text(text)
    config = composed("task=sst2")
    one, same, other = (config_hash(replace(config, plan=str(tmp_path / n))) for n in ("one", "same", "other"))
    assert one != other and one != config_hash(config)
    assert one == same, "the same plan under another name"


def test_a_number_says_where_it_comes_from():
    facts = provenance({"name": "some cpu"}, "float32")
    assert facts["device"] == {"name": "some cpu"} and facts["dtype"] == "float32"
    assert {"tabi_bench", "python", "torch", "numpy"} <= set(facts["versions"])
    assert facts["command"].startswith("python ") and facts["time"].endswith("+00:00")
    assert set(revision()) == {"commit", "dirty"} and {"commit", "dirty"} <= set(facts)


def test_sessions_that_begin_in_one_second_have_names_of_their_own(composed):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    two = [Ledger(composed("task=sst2"), "k", {}, "float32", began=began.replace(microsecond=us)) for us in (0, 1)]
    assert len({ledger.session_id for ledger in two}) == 2
