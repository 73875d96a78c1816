"""Traffic without labels: drift, the bound on disagreement, and thresholds set on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from tabi_bench import load, registry, run_session, traffic
from tabi_bench.config import compose_config
from tabi_bench.export import export
from tabi_bench.tasks.table import DataError
from tests.processes import SMALL


@pytest.fixture(scope="module")
def exported(cache, tmp_path_factory):
    """The folder of an exported two-level plan; nobody changes it."""
    root = tmp_path_factory.mktemp("traffic")
    micro = registry.TABLE["zoo"]["tiny"]._replace(code="tests.micro:load")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TABLE["zoo"], "tiny", micro)
        places = [f"results_dir={root}/results", f"cache_dir={cache}"]
        records = run_session(compose_config([*SMALL, *places, "method=tabi", "systems.tabi.fewer_levels=false"]))
        export(root / "results" / "adhoc" / records[1].run_id, root / "plan")
    return root / "plan"


@pytest.fixture
def plan(exported, micro):
    """The same, where the tiny zoo is the micro one."""
    return exported


def write(path, classify, rows):
    lines = [json.dumps(dict(zip(classify.columns, texts, strict=True))) for texts in rows]
    path.write_text("\n".join(lines))
    return path


def texts(classify, n):
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "never", "so", "very", "plot", "dull"]
    return [tuple(" ".join(rng.choice(words, 6)) for _ in classify.columns) for _ in range(n)]


def test_bound_is_clopper_pearson():
    bound = traffic.at_most(3, 200)
    assert binom.cdf(3, 200, bound) == pytest.approx(traffic.DELTA)
    assert traffic.at_most(200, 200) == 1.0
    assert traffic.at_most(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))


def test_distance_is_the_largest_change_of_a_share():
    tuned = np.linspace(0, 1, 101)
    assert traffic.distance(tuned, tuned) == 0
    assert traffic.distance(tuned, np.array([2.0, 3.0])) == 1
    assert traffic.distance(tuned, np.concatenate([tuned[tuned > 0.25], [np.nan]])) == pytest.approx(0.257, abs=0.01)


def test_threshold_re_routes_at_most_the_share():
    confidence = np.array([0.5, 0.6, 0.6, 0.9, np.nan])
    for share in (0.0, 0.2, 0.4, 0.7):
        tau = traffic.threshold_for(share, confidence)
        assert (~(confidence >= tau)).mean() <= max(share, 0.2)  # a row without a confidence is always re-routed
    assert traffic.threshold_for(1.0, confidence) > 1


def test_report_ends_with_the_verdict_and_needs_no_labels(plan, tmp_path, capsys):
    classify = load(plan)
    file = write(tmp_path / "t.jsonl", classify, texts(classify, 220))
    traffic.main([str(plan), str(file), "--sample", "100"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("220 queries, answered by micro-1x16")
    assert "distance" in lines[2] and "on at most" in lines[3]
    assert lines[-1].split(":")[0] in (
        "A cascade pays here", "Not decided", "Do not cascade", "Do not trust this plan here"
    )  # fmt: skip


def test_budget_holds_on_the_traffic_and_stands_in_the_new_plan(plan, tmp_path):
    classify = load(plan)
    rows = texts(classify, 220)
    file = write(tmp_path / "t.jsonl", classify, rows)
    traffic.main([str(plan), str(file), "--sample", "50", "--at-most", "0.2", "--out", str(tmp_path / "new/plan.json")])
    again = load(tmp_path / "new")
    levels = [prediction.level for prediction in again(rows)]
    assert np.mean(np.array(levels) > 1) <= 0.2
    assert again.system.point.taus != classify.system.point.taus


def test_agreement_is_kept_or_refused_with_the_rows_that_it_needs(plan, tmp_path):
    classify = load(plan)
    rows = texts(classify, 220)
    file = write(tmp_path / "t.jsonl", classify, rows)
    with pytest.raises(SystemExit, match="cannot be shown"):
        traffic.main([str(plan), str(file), "--agreement", "0.9999"])
    traffic.main([str(plan), str(file), "--agreement", "0.6", "--out", str(tmp_path / "new/plan.json")])
    assert load(tmp_path / "new").system.point.taus[0] >= 0


@pytest.mark.parametrize("content", ["", '{"other": "a"}', '{"premise": 1, "hypothesis": "b", "sentence": 3}'])
def test_files_without_the_texts_are_refused_in_one_line(plan, tmp_path, content):
    file = tmp_path / "t.jsonl"
    file.write_text(content)
    with pytest.raises((SystemExit, DataError)) as error:
        traffic.main([str(plan), str(file)])
    assert "\n" not in str(error.value)
