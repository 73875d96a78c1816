"""The paper's claims, judged on records written by hand."""

from __future__ import annotations

import pandas as pd
from report_samples import record, write

from tabi_bench.report.claims import _three_levels, claims
from tabi_bench.report.reading import read


def judged(root) -> dict[str, tuple[str, str]]:
    text = claims(read(root)).text().set_index("claim")
    return {claim: (line["eager: here"], line["eager: verdict"]) for claim, line in text.iterrows()}


def test_each_claim_by_its_rule(tmp_path):
    """Tabi saves 40 and 10 % on two tasks, 40 and 10 points more than DeeBERT, which saves nothing on either."""
    for session, task, saved in (("a", "sst2", 40.0), ("b", "rte", 10.0)):
        reference = {"method": "infaas", "reduction_pct": saved}
        runs = [record("infaas", session, task=task, run_id=f"{task}-infaas"), record("cocktail", session, task=task)]
        write(tmp_path, *runs, record("tabi", session, task=task, run_id=f"{task}-tabi", reference=reference))
        nothing = {"method": "infaas", "reduction_pct": 0.0}
        exits = [("infaas", nothing), ("tabi", reference), ("deebert", nothing)]
        more = {"task": task, "label": "deebert"}
        early = [record(m, f"e{session}", run_id=f"e{task}-{m}", reference=r, **more) for m, r in exits]
        write(tmp_path, *early, profile=False)
    actual = judged(tmp_path)
    assert actual["Mean latency below INFaaS's at equal target"] == ("10 to 40 %, median 25", "held on 1 of 2")
    assert actual["Mean latency below Cocktail's"] == ("25 to 25 %, median 25", "held")
    assert actual["p99 like the single-model selector's"] == ("0.67 to 0.67 times, median 0.67", "held")
    assert actual["Queries that return early"] == ("60 to 60 %, median 60; one model on 0 of 2", "held")
    assert actual["Word pruning is worth choosing"] == ("chosen in 0 of 2 plans", "not held")
    assert actual["Similar to early exit (DeeBERT), or better"] == ("ahead of it by 10 to 40 points, median 25", "held")
    assert actual["A third level hurts the tail (mnli)"] == ("not measured", "not tested")


def test_engines_stand_side_by_side_or_are_chosen(tmp_path):
    for engine in ("eager", "graph"):
        write(tmp_path, *(record(m, engine, engine=engine, run_id=f"{engine}-{m}") for m in ("infaas", "tabi")))
    results = read(tmp_path)
    headers = [column.header for column in claims(results).columns]
    assert headers[3:7] == ["graph: here", "graph: verdict", "eager: here", "eager: verdict"]
    table = claims(results, "claim, graph: here, graph: verdict")
    assert "eager: here" not in [column.header for column in table.columns] and "eager" not in table.provenance


def test_without_a_main_table_there_are_none(tmp_path):
    write(tmp_path, record("infaas", "a", label="deebert"), record("deebert", "a", label="deebert"))
    assert claims(read(tmp_path)) is None


def test_a_third_level_that_no_plan_chose_says_nothing_of_the_tail():
    two = {"method": "tabi3", "same_plan": "same plan as Tabi", "mean_ms_change": 0.1, "p99_change": 0.5}
    three = {"method": "tabi3", "same_plan": None, "mean_ms_change": 8.0, "p99_change": -3.0}
    assert _three_levels(pd.DataFrame([two]), pd.DataFrame()) == ("no third level chosen on 1 of 1", [])
    words, held = _three_levels(pd.DataFrame([two, three]), pd.DataFrame())
    assert words.endswith("p99 -3 to -3 %, median -3; chosen on 1 of 2") and list(held) == [False]
