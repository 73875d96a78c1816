"""What pruning does to re-routed queries, one by one and in batches: tables of the pruning scales."""

from __future__ import annotations

from tabi_bench.names import PRUNING_SCALES, TASKS, place
from tabi_bench.report import paper
from tabi_bench.report.cells import Row, Table, make_table, number, percent, word
from tabi_bench.report.reading import Results, Run, Setting, newest, sessions

FEW = 30  # re-routed queries below which nothing of theirs is shown
FULL = "full text"


def _runs(results: Results, setting: Setting, label: str) -> list[Run]:
    """Of the newest session of each task and batch size."""
    of_label = [run for run in results.pick(setting, label) if run.record.method == PRUNING_SCALES and run.ok]
    chosen = newest(sessions(of_label), lambda session: _batch(session[PRUNING_SCALES]))
    return [session[PRUNING_SCALES] for session in chosen]


def _batch(run: Run) -> int:
    return run.record.config["scenario"].get("max_batch", 1)


def _lines(runs: list[Run]) -> list[Row]:
    """A row per variant of each session, full text first; without numbers where too few queries were re-routed."""
    lines = []
    for run in runs:
        folds = run.record.details["system"]["folds"]
        pairs = " / ".join(dict.fromkeys(" > ".join(fold["models"]) for fold in folds))
        for facts in run.record.details["system"]["variants"]:
            control = facts["control"] if facts["alpha"] else FULL
            shown = facts if facts["rerouted"] >= FEW else {"alpha": facts["alpha"], "rerouted": facts["rerouted"]}
            lines.append({"task": run.record.task, "models": pairs, "batch": _batch(run), **shown, "control": control})
    order = [FULL, "importance"]
    return sorted(lines, key=lambda row: (place(TASKS, row["task"]), row["batch"], place(order, row["control"])))


def _table(name: str, title: str, runs: list[Run], notes: list[str]) -> Table | None:
    columns = [word("task", "task"), word("models", "models")]
    columns += [number("batch", "batch", 0)] * (name == "batching")
    columns += [word("control", "words dropped by"), number("alpha", "alpha", 2, measured=False)]
    columns += [number("rerouted", "queries re-routed", 0), percent("words_pruned", "words pruned %")]
    columns += [percent("score", "their score %"), percent("difference", "points vs full text")]
    columns += [number("ms", "their ms", 3), number("faster_pct", "faster %", 1)]
    columns += [number("large_ms", "large model ms", 3), number("large_faster_pct", "large model faster %", 1)]
    return make_table(name, title, _lines(runs), columns, runs, notes)


def pruning(results: Results, setting: Setting) -> Table | None:
    """Pruning scale against words pruned, score and time of the queries that a fixed pair re-routes."""
    note = (
        "One pair at fixed thresholds. Score and time are of the re-routed queries alone, each answered from every "
        "text, with 95 % intervals; faster: than from full text, level 1 included; words: mean share per query. "
        f"Nothing is shown of fewer than {FEW} queries."
    )
    claims = paper.printed("claims").set_index("claim").value
    claimed = [f"The paper: {claim}: {value}." for claim, value in claims.items() if "prun" in claim]
    return _table("pruning", "Word pruning", _runs(results, setting, "pruning"), [note, *claimed])


def batching(results: Results, setting: Setting) -> Table | None:
    """The same in batches."""
    note = "Offline, per re-routed query: the last level in batches, with pruning and tokenising."
    return _table("batching", "Pruned and full text by batch size", _runs(results, setting, "batching"), [note])


TABLES = (pruning, batching)
