"""Tables that read profiles and plans: models, break-even, calibration. Predicted, not served."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd

from tabi_bench import names
from tabi_bench.evaluation.metrics import predictions_from, score
from tabi_bench.profiling.profile import Profile
from tabi_bench.report import derived, paper
from tabi_bench.report.cells import Row, Table, make_table, number, percent, word
from tabi_bench.report.reading import Results, Run, Session, Setting, first, newest, sessions
from tabi_bench.report.side_by_side import SCORE, TASK

Profiled = list[tuple[Session, Profile]]
IN_SAMPLE = (
    "Predicted from the profile, in-sample, full text, plain rule: what there is to be found, not what was served."
)


def profiled(results: Results, setting: Setting) -> Profiled:
    """Per task the session that derived tables read, with its profile: with Tabi, the strictest margin."""
    best: dict[str, tuple] = {}
    for session in newest(sessions(results.pick(setting, "main_table", "all_systems", "adhoc", "models"))):
        run = first(session)
        profile = run.profile
        rank = (names.TABI in session and session[names.TABI].ok, run.margin_se or 0.0)
        if profile is not None and (run.record.task not in best or rank > best[run.record.task][0]):
            best[run.record.task] = (rank, session, profile)
    return [(session, profile) for _, session, profile in best.values()]


def routed(results: Results, session: Session, profile: Profile, method: str = names.TABI) -> pd.DataFrame | None:
    """`derived.routed` under a system's plan; None without it, for scores, and where plan and profile do not fit."""
    run = session.get(method)
    if run is None or run.plan is None:
        return None
    return results.problems.attempt(run.folder / "plan.json", partial(derived.routed, profile, run.plan))


def read_by(parts: Iterable[tuple]) -> list[Run]:
    """The runs behind what is derived from profiles: of sessions that stand first in `parts`."""
    return [run for session, *_ in parts for run in session.values() if run.ok]


def models(results: Results, setting: Setting) -> Table | None:
    """Every model of the ladder: parameters, layers, profiled mean latency, score; which are on the Pareto front."""
    chosen, lines = profiled(results, setting), []
    printed = paper.printed("models").set_index(paper.printed("models").model.str.lower())
    for session, profile in chosen:
        session_id = first(session).record.session_id
        of_task = [_model(profile, name, printed) | {"session_id": session_id} for name in profile.models]
        best = -np.inf
        for cells in sorted(of_task, key=lambda cells: (cells["mean_ms"], -cells["score"])):
            cells["front"] = "yes" if cells["score"] > best else None
            best = max(best, cells["score"])
        lines += of_task
    columns = [TASK, word("model", "model"), number("params_millions", "params M", 1), number("layers", "layers", 0)]
    columns += [number("mean_ms", "mean ms", 3), SCORE, word("front", "on the front")]
    columns += [number("paper_params_millions", "paper: params M", 0), number("paper_latency_ms", "paper: ms", 0)]
    columns += [number("paper_accuracy_pct", "paper: score %", 1)]
    note = (
        "Profiled, not served: full text, one query at a time, mean over the validation split. On the front: no other "
        "model is as fast and scores as high."
    )
    return make_table("models", "The ladder of models", lines, columns, read_by(chosen), [note])


def _model(profile: Profile, name: str, printed: pd.DataFrame) -> Row:
    model = profile.models[name]
    theirs = printed.loc[name.lower()] if name.lower() in printed.index else {}
    return {
        "task": profile.task,
        "model": name,
        "params_millions": model.params / 1e6,
        "layers": model.layers,
        "mean_ms": model.mean_ms,
        "score": score(profile.metric, profile.labels, predictions_from(model.logits)),
        **{f"paper_{key}": theirs.get(key) for key in ("params_millions", "latency_ms", "accuracy_pct")},
    }


def break_even(results: Results, setting: Setting) -> Table | None:
    """Target against the least predicted latency of one model and of two levels."""
    chosen = profiled(results, setting)
    if not chosen:
        return None
    parts = [derived.break_even(p).assign(task=p.task, session_id=first(s).record.session_id) for s, p in chosen]
    data = pd.concat(parts, ignore_index=True)
    data["reduction_pct"] = 100 * (1 - data.cascade_ms / data.single_ms)
    columns = [TASK, percent("slack", "below the best model, points", 2), percent("target", "target %")]
    columns += [number("single_ms", "one model ms", 3), word("single", "which")]
    columns += [number("cascade_ms", "two levels ms", 3)]
    columns += [word("cascade", "their models"), number("reduction_pct", "two levels vs one %", 1)]
    notes = [IN_SAMPLE, *(_pays(task, of_task) for task, of_task in data.groupby("task", sort=False))]
    return make_table("break_even", "Break-even", data.to_dict("records"), columns, read_by(chosen), notes)


def _pays(task: str, data: pd.DataFrame) -> str:
    """Where the cascade stops paying, in words."""
    if data.cascade_ms.isna().all():
        return f"{task}: no two-level cascade from a stored profile."
    paying = data[data.reduction_pct > 0]
    if paying.empty:
        return f"{task}: the cascade pays at no target above {100 * data.target.min():.1f} %."
    where = "the best model's own score" if paying.slack.min() == 0 else f"{100 * paying.target.max():.1f} %"
    return f"{task}: the cascade pays at targets up to {where}."


def calibration(results: Results, setting: Setting) -> Table | None:
    """Calibration error of level 1 before and after temperature scaling, on queries that it was not fitted on."""
    chosen, lines = profiled(results, setting), []
    for session, profile in chosen:
        plan = session[names.TABI].plan if names.TABI in session else None
        if plan is not None:
            points = [fold.point for fold in plan.folds]
            cells: Row = {"task": profile.task, "session_id": first(session).record.session_id}
            cells["model"] = ", ".join(dict.fromkeys(point["models"][0] for point in points))
            queries, alone = routed(results, session, profile), routed(results, session, profile, names.INFAAS)
            if queries is not None and alone is not None and (queries.levels > 1).any():
                alone_ms = alone.small_ms.mean()
                cells["of_reduction"] = derived.of_oracle_reduction(queries, profile.metric, alone_ms)
            lines.append(cells | _calibration(points, queries))
    columns = [TASK, word("model", "level 1"), word("temperature", "T by fold")]
    columns += [percent("ece_before", "ECE before %", 2), percent("ece_after", "ECE after %", 2)]
    columns += [number("auroc", "AUROC", 3), percent("of_oracle", "of the oracle's gain %")]
    columns += [percent("of_reduction", "of its reduction %", 0), number("n", "queries", 0)]
    note = (
        "15 bins of equal width. AUROC: how well confidence ranks right above wrong answers; for scores, agreement "
        "with the large model on tune (below 0.6, routing is near random). Of the oracle's gain: of the area that "
        "re-routing by labels adds to re-routing at random, under accuracy against the share re-routed. Of its "
        "reduction: of what re-routing by labels would save against INFaaS at Tabi's own score, replayed."
    )
    return make_table("calibration", "Calibration of level 1", lines, columns, read_by(chosen), [note])


def _calibration(points: list[Row], queries: pd.DataFrame | None) -> Row:
    if queries is not None:
        measured = {key: value for key, value in derived.calibration(queries).items() if key != "bins"}
        measured["of_oracle"] = derived.of_oracle(queries) if (queries.levels > 1).all() else None
        return measured | {"temperature": " / ".join(f"{point['temperatures'][0]:.2f}" for point in points)}
    fits = [point["agreement"][0]["auroc"] for point in points if point.get("agreement")]
    return {"auroc": float(np.mean(fits)) if fits else None}


BUILDERS = (models, break_even, calibration)
