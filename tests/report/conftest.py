"""A results folder written by hand."""

from __future__ import annotations

import matplotlib
import pytest
from report_samples import record, write

matplotlib.use("Agg")


@pytest.fixture
def results(tmp_path):
    """A main table with a whole session, one with an infeasible Cocktail, a failed one, and an older double."""
    nothing = {"accuracy": {}, "latency_ms": {}, "shares": [], "reference": {}, "cost": {}, "outcome": None}
    nothing |= {"target": {}, "throughput_qps": None}
    write(tmp_path, record("infaas", "a"), record("cocktail", "a"), record("tabi", "a"))
    reason = {"status": "infeasible", "error": "no ensemble of [2] meets the target", **nothing}
    cocktail = record("cocktail", "b", task="rte", run_id="rte-cocktail-b", **reason)
    rte = [record(m, "b", task="rte", run_id=f"rte-{m}-b") for m in ("infaas", "tabi")]
    write(tmp_path, rte[0], cocktail, rte[1])
    failure = {"status": "failed", "error": "RuntimeError: out of memory & luck", **nothing}
    failed = [record(m, "c", task="cola", run_id=f"cola-{m}-c", **failure) for m in ("infaas", "cocktail", "tabi")]
    write(tmp_path, *failed, profile=False)
    return tmp_path
