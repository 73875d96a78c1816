"""An exported plan answers as its session's replay says, wherever its models lie; what does not match is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tabi_bench
from tabi_bench import PlanError, load, run_session
from tabi_bench.cascade.replay import replay_point
from tabi_bench.export import _sources, export
from tabi_bench.planning.plan_file import load_plan
from tests.engines.micro_models import write_model

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def exported(micro, tmp_path):
    """The folder of an export from a session on the micro zoo."""

    def build(*overrides: str, method: str = "tabi", models: bool = False):
        records = run_session(micro(f"method={method}", "compare=[infaas,tabi]", *overrides))
        run = next(r for r in records if r.method == method)
        folder = tmp_path / f"export-{method}"
        export(tmp_path / "results" / "adhoc" / run.run_id, folder, models)
        return folder

    return build


def test_predictions_have_names_and_are_those_of_the_replay(exported, micro, monkeypatch):
    profiles = []
    from tabi_bench import export as module

    measure = module.measure_profile
    monkeypatch.setattr(module, "measure_profile", lambda session: profiles.append(measure(session)) or profiles[-1])
    folder = exported("systems.tabi.fewer_levels=false")
    classify = load(folder)
    texts = profiles[0].lab.task.texts("validation")[:40]
    replayed = replay_point(classify.system.point, profiles[0], np.arange(40))
    predictions = classify(texts)
    names = list(profiles[0].lab.task.config.labels)
    assert [p.label for p in predictions] == [names[int(label)] for label in replayed.labels]
    assert [p.level - 1 for p in predictions] == replayed.levels.tolist()
    assert all(1 / len(names) <= p.confidence <= 1 for p in predictions)
    assert len({p.level for p in predictions}) == 2  # else half of this test is idle
    assert [p.label for p in classify(texts, batch=7)] == [p.label for p in predictions]
    assert classify(texts[0]) == predictions[0]


def test_plan_is_one_point_for_all_rows_and_alone_at_the_top(exported):
    folder = exported()
    plan = load_plan(folder / "plan.json")
    assert [p.name for p in folder.glob("*.json")] == ["plan.json"]
    assert len(plan.folds) == 1 and plan.folds[0].serves is None
    assert plan.folds[0].tuned_on == list(range(len(plan.folds[0].tuned_on)))
    assert "no report split" in plan.deployment["note"]


@pytest.mark.slow
def test_example_runs_with_copied_models(exported, tmp_path):
    folder = exported(models=True)
    moved = folder.rename(tmp_path / "elsewhere")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, moved / "example.py"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Prediction(label=") == 3


def test_one_model_alone_has_a_calibrated_confidence(exported):
    classify = load(exported(method="infaas"))
    first = classify([("some text",) * len(classify.columns)])[0]
    assert first.level == 1 and 0 < first.confidence <= 1
    assert classify.system.point.temperatures != [1.0]


def test_int8_beside_float32_can_be_taken_along(exported):
    folder = exported(
        "engine=onnx",
        "engine.variants=true",
        "compare=[infaas,single]",
        "method.model='-2'",
        method="single",
        models=True,
    )
    classify = load(folder)
    (name,) = classify.system.point.models
    source = load_plan(folder / "plan.json").deployment["models"][name]
    assert name.endswith("-int8") and source["int8"] and classify.engine.loads[name]
    assert classify([("some text",) * len(classify.columns)])[0].label


def test_a_model_in_float32_and_int8_is_copied_once(tmp_path):
    whole = write_model(tmp_path / "from", "bert")
    half = dataclasses.replace(whole, name=f"{whole.name}-int8", int8=True)
    sources = _sources([half, whole], tmp_path / "to")
    (copied,) = (tmp_path / "to" / "models").iterdir()
    assert [source["beside"] for source in sources.values()] == [f"models/{copied.name}"] * 2
    assert [source["int8"] for source in sources.values()] == [True, False] and (copied / "config.json").is_file()
    assert set(_sources([whole], None)[whole.name]) == {"label_order", "scale", "max_length", "int8", "folder"}


def test_scores_stand_in_place_of_labels(exported):
    classify = load(exported("task=stsb", "systems.tabi.fewer_levels=false"))
    prediction = classify(("a man sings", "a man is singing"))
    assert prediction.label is None and isinstance(prediction.score, float)


def test_a_session_s_plan_is_refused(micro, tmp_path):
    records = run_session(micro("method=tabi"))
    with pytest.raises(PlanError, match=r"tabi_bench\.export"):
        load(tmp_path / "results" / "adhoc" / records[1].run_id / "plan.json")


def test_other_models_and_wrong_queries_are_refused(exported):
    folder = exported(models=True)
    with pytest.raises(PlanError, match="asks"):
        load(folder, models={"nobody": folder})
    name = load_plan(folder / "plan.json").folds[0].point["models"][0]
    with pytest.raises(PlanError, match="nowhere"):
        load(folder, models={name: folder / "nowhere"})
    classify = load(folder)
    with pytest.raises(ValueError, match="query 1: this plan reads"):
        classify([("a",) * len(classify.columns), ("a", "b", "c")])
    config = folder / "models" / name / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "relu"}))
    with pytest.raises(PlanError, match="the contents differ"):
        load(folder)


@pytest.mark.slow
def test_a_plan_made_on_a_gpu_says_so_where_there_is_none(exported, monkeypatch):
    folder = exported()
    plan = json.loads((folder / "plan.json").read_text())
    plan["fingerprint"]["engine"]["device"] = "cuda"
    (folder / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PlanError, match="tuned on a GPU"):
        load(folder)
    assert load(folder, device="cpu")("one text" if len(plan["deployment"]["columns"]) == 1 else ("a", "b")).label


def test_export_refuses_what_is_no_cascade(micro, tmp_path):
    records = run_session(micro("method=cocktail", "target.slack=0.4"))
    run = next(r for r in records if r.method == "cocktail")
    with pytest.raises(PlanError, match="only cascades"):
        export(tmp_path / "results" / "adhoc" / run.run_id, tmp_path / "out")


def test_importing_the_package_imports_nothing_heavy():
    code = "import tabi_bench, sys; print('torch' in sys.modules, dir(tabi_bench).count('load'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "1"]
    with pytest.raises(AttributeError):
        _ = tabi_bench.nothing
