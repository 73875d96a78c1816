"""What a cascade's record tells beside its answers: calibration and deferral of level 1, pruning, break-even."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabi_bench.cascade.break_even import break_even
from tabi_bench.cascade.plans import Point
from tabi_bench.profiling.profile import Profile, PruneKey
from tabi_bench.report import derived
from tabi_bench.system import Outcomes, Plan

CURVE = np.linspace(0, 1, 51)  # shares at which a deferral curve is kept


def of_cascade(profile: Profile, plan: Plan, replayed: Outcomes) -> dict[str, Any]:
    """Plain data by topic; each fold's queries under the plan that was tuned on the other fold."""
    table = break_even(profile)
    found = {
        "break_even": table.astype(object).where(table.notna(), None).to_dict("records"),
        "pruned_text": pruned_text(profile, plan, replayed),
    }
    queries = derived.routed(profile, plan)
    if queries is None:
        fits = [fold.point["agreement"][0]["auroc"] for fold in plan.folds if fold.point.get("agreement")]
        return found | {"calibration": {"auroc": fits or None}, "deferral": None}
    calibration = derived.calibration(queries)
    bins = calibration.pop("bins")
    calibration["reliability"] = {when: bins.loc[when].to_dict("list") for when in ("before", "after")}
    return found | {"calibration": calibration, "deferral": _deferral(derived.deferral(queries))}


def _deferral(found: dict[str, Any]) -> dict[str, Any]:
    n = len(found["curves"]["confidence"])
    curves = {order: np.interp(CURVE, np.linspace(0, 1, n), curve) for order, curve in found["curves"].items()}
    return {"areas": found["areas"], "shares": CURVE.tolist(), "curves": {o: c.tolist() for o, c in curves.items()}}


def pruned_text(profile: Profile, plan: Plan, replayed: Outcomes) -> dict[str, float] | None:
    """The last level's time on the re-routed queries, as profiled by length: {queries, full_ms, pruned_ms, tokens...}.

    None where nothing re-routed was pruned.
    """
    fold, parts = plan.fold_of(replayed.rows), []
    for k, served in enumerate(plan.folds):
        point = Point(**served.point)
        last = len(point.models) - 1
        rows = profile.at(replayed.rows[(fold == k) & (replayed.levels == last)])
        if last == 0 or point.alphas[-1] == 0 or not len(rows):
            continue
        model, small = profile.models[point.models[-1]], point.models[point.source(last)]
        key = PruneKey(small, model.name, point.alphas[-1], point.importance, point.pruning)
        tokens = model.tokens[rows], profile.pruned_tokens(key, rows)
        parts.append(np.stack([*tokens, *(model.latency(t) for t in tokens)]))
    if not parts:
        return None
    full, pruned, full_ms, pruned_ms = np.concatenate(parts, axis=1).mean(axis=1).tolist()
    queries = sum(part.shape[1] for part in parts)
    return {"queries": queries, "tokens": full, "tokens_pruned": pruned, "full_ms": full_ms, "pruned_ms": pruned_ms}
