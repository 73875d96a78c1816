"""What goes wrong in a session: kills, odd texts, targets out of reach, damaged caches, unwritable folders."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabi_bench.experiment import run_session
from tabi_bench.records.record import Record
from tabi_bench.system import PlanError
from tests.processes import SMALL, command_line, ended, start, wait_until


def child(cache: Path, results: Path, *overrides: str, says: Path | None = None) -> BaseProcess:
    """The same session in a process of its own, to be killed."""
    places = [f"results_dir={results}", f"cache_dir={cache}"]
    return start(command_line, *SMALL, *places, *overrides, says=says)


def test_kill_9_in_the_middle_then_the_next_run_finishes(micro, cache, tmp_path):
    overrides = ("task=rte", "scenario.min_queries=200000")  # serves for minutes, unless killed
    process = child(cache, tmp_path / "results", *overrides)
    wait_until(lambda: list((cache / "outputs").glob("*/manifest.json")), process)
    time.sleep(1.0)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    assert not list((tmp_path / "results").rglob("record.json"))
    done = run_session(micro("task=rte"))
    assert [record.status for record in done] == ["ok", "ok"]


def test_ctrl_c_while_serving_leaves_no_record_and_says_so_in_one_line(cache, tmp_path):
    says = tmp_path / "said"
    process = child(cache, tmp_path / "results", "task=rte", "scenario.min_queries=200000", says=says)
    wait_until(lambda: says.is_file() and "serving" in says.read_text(), process)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130 and "Traceback" not in says.read_text()
    assert says.read_text().splitlines()[-1].startswith("interrupted; the same command goes on")
    assert not list((tmp_path / "results").rglob("record.json"))


def test_two_sessions_at_once_share_a_cache(cache, tmp_path):
    pinned = ["task=sst2", "seed=5", "method=single", "method.model=micro-2x32"]  # the clock has no say
    both = [child(cache, tmp_path / f"results{k}", *pinned) for k in range(2)]
    assert [ended(process) for process in both] == [0, 0]
    sessions = [
        {r.method: r for r in map(Record.load, (tmp_path / f"results{k}").rglob("record.json"))} for k in range(2)
    ]
    assert [{name: r.status for name, r in one.items()} for one in sessions] == [{"infaas": "ok", "single": "ok"}] * 2
    assert sessions[0]["single"].accuracy == sessions[1]["single"].accuracy


@pytest.mark.slow
def test_damaged_outputs_are_noticed_and_run_again(micro, cache, caplog):
    overrides = ("task=sst2", "source.validation_rows=110")  # rows of its own, for the models of other tests
    others = set(cache.glob("outputs/*/outputs.npz"))
    run_session(micro(*overrides))
    files = sorted(set(cache.glob("outputs/*/outputs.npz")) - others)
    before = [dict(np.load(file)) for file in files]
    for file in files:
        file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)
    again = run_session(micro(*overrides, "overwrite=true"))
    assert caplog.text.count("is damaged: outputs.npz does not match its hash") == len(files) > 0
    assert [r.status for r in again] == ["ok", "ok"]
    for file, arrays in zip(files, before, strict=True):
        assert np.load(file).files == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(np.load(file)[name], values, err_msg=name)


def test_a_target_out_of_reach_names_the_best_score_and_its_model(micro):
    with pytest.raises(PlanError, match=r"no model reaches the target 1\.0000; the best on tune is micro-"):
        run_session(micro("task=sst2", "target.kind=absolute", "target.value=1.0"))


def test_a_failed_session_leaves_records_that_say_so_and_the_next_one_works(micro):
    config = micro("task=sst2", "target.kind=absolute", "target.value=1.0")
    with pytest.raises(PlanError):
        run_session(config)
    records = [Record.load(path) for path in Path(config.results_dir).rglob("record.json")]
    assert {r.method for r in records} == {"infaas", "tabi"}
    assert all(r.status == "failed" and "no model reaches the target" in r.error for r in records)
    assert all(r.status == "ok" for r in run_session(micro("task=sst2")))


def test_a_results_folder_that_cannot_be_written_is_said_before_any_work(composed, tmp_path):
    (tmp_path / "file").write_text("")
    config = composed("task=sst2", f"results_dir={tmp_path}/file/results", f"cache_dir={tmp_path}/cache")
    with pytest.raises(OSError, match=r"cannot write to .*set another results_dir"):
        run_session(config)
    assert not (tmp_path / "cache").exists()


ODD = ["", " ", "word " * 10_000, "naïve café — 東京 ☕ ¿qué?", "\u200b", "don't", "a b c"]


def test_odd_texts_are_served_and_truncation_is_counted(micro, tmp_path):
    words = {0: "awful dull boring mess", 1: "superb moving bright joy"}
    rows = [{"text": f"{words[k % 2]} number {k}", "label": "no" if k % 2 == 0 else "yes"} for k in range(200)]
    odd = [{"text": text, "label": ("no", "yes")[k % 2]} for k, text in enumerate(ODD)]
    pd.DataFrame(rows).to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    pd.DataFrame(rows[:60] + odd).to_json(tmp_path / "validation.jsonl", orient="records", lines=True)
    config = micro(
        "task=custom",
        "source=local",
        "task.texts=[text]",
        f"task.files.train={tmp_path}/train.jsonl",
        f"task.files.validation={tmp_path}/validation.jsonl",
        "method.alphas=[0.0,0.5]",
    )
    infaas, tabi = run_session(config)
    for record in (infaas, tabi):
        assert record.status == "ok" and record.details["truncated"] == 1
        assert record.details["replay"]["unexplained"] == 0
        trace = pd.read_parquet(Path(config.results_dir) / "adhoc" / record.run_id / "trace.parquet")
        assert set(trace.row) == set(range(60 + len(ODD)))


def test_a_saved_plan_is_served_again_and_refused_for_other_data(micro, tmp_path):
    config = micro("task=sst2")
    _, tabi = run_session(config)
    plan = Path(config.results_dir) / "adhoc" / tabi.run_id / "plan.json"
    _, again = run_session(micro("task=sst2", f"plan={plan}", f"results_dir={tmp_path}/again"))
    assert again.accuracy == tabi.accuracy and again.shares == tabi.shares
    with pytest.raises(PlanError, match="made for other data"):
        run_session(micro("task=sst2", f"plan={plan}", "source.validation_rows=100"))
    with pytest.raises(PlanError, match="made for task 'sst2', not 'rte'"):
        run_session(micro("task=rte", f"plan={plan}"))
    raw = json.loads(plan.read_text())
    for fold in raw["folds"]:
        fold["point"] |= {"taus": [2.0] * len(fold["point"]["taus"])}
    plan.write_text(json.dumps(raw))
    _, changed = run_session(micro("task=sst2", f"plan={plan}", f"results_dir={tmp_path}/again"))
    assert changed.run_id != again.run_id  # another plan in the same file is another run
    plan.write_text("{")
    with pytest.raises(PlanError, match="is no plan, or a damaged one"):
        run_session(micro("task=sst2", f"plan={plan}"))
