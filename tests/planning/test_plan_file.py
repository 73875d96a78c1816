"""Plans as files: written, read, and refused in one sentence for whatever they were not made for, or are not whole."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tabi_bench.cascade.point import Point
from tabi_bench.config import ConfigError, read_file
from tabi_bench.experiment import run_session
from tabi_bench.planning.plan_file import check_folds, check_made_for, load_plan, options_of, save_plan
from tabi_bench.records.record import Record
from tabi_bench.summary import where
from tabi_bench.system import FoldPlan, Plan, PlanError

ROOT = Path(__file__).resolve().parents[2]
MADE_FOR = {
    "data": "d1",
    "labels": ["no", "yes"],
    "models": {"a": "m1", "b": "m2"},
    "tokenizers": {"a": "t", "b": "t"},
    "engine": {"name": "eager"},
}
PATH = Path("plan.json")
TABI = read_file("method", "tabi")
ONE = Point.of_one("a").plain()


def plan(**changes) -> Plan:
    folds = [FoldPlan([0, 1], [2, 3], 0.9, ONE, {"score": 0.9}), FoldPlan([2, 3], [0, 1], 0.8, ONE)]
    return replace(Plan("tabi", "sst2", folds, 0, copy.deepcopy(MADE_FOR), asdict(TABI)), **changes)


def folded(*rows: tuple[list, list | None]) -> Plan:
    return plan(folds=[FoldPlan(tuned, serves, 0.9, ONE) for tuned, serves in rows])


# --- reading ----------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    save_plan(plan(), tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan()
    assert json.loads((tmp_path / "plan.json").read_text())["schema_version"] == 2


def edited(tmp_path: Path, *keys, value) -> Path:
    """A plan's file with one value replaced."""
    save_plan(plan(), tmp_path / "plan.json")
    raw = inner = json.loads((tmp_path / "plan.json").read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "plan.json").write_text(json.dumps(raw))
    return tmp_path / "plan.json"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"', '{"method": "tabi"}', '{"folds": [{"cut": 1}]}'])
def test_what_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=r"plan\.json is no plan, or a damaged one"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"[" * 100_000, None])
def test_bytes_and_folders_are_refused_too(tmp_path, raw):
    (tmp_path / "plan.json").mkdir() if raw is None else (tmp_path / "plan.json").write_bytes(raw)
    with pytest.raises(PlanError, match=r"plan\.json is no plan, or a damaged one"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("method",), None),
        (("task",), ["sst2"]),
        (("split_seed",), "0"),
        (("split_seed",), True),
        (("fingerprint",), "all"),
        (("options",), []),
        (("folds",), {}),
        (("folds", 0), []),
        (("folds", 0, "tuned_on"), "0 1"),
        (("folds", 0, "tuned_on"), ["0", "1"]),
        (("folds", 0, "tuned_on"), [0.5]),
        (("folds", 0, "serves"), [2, True]),
        (("folds", 0, "serves"), [2, 2]),
        (("folds", 0, "serves"), 3),
        (("folds", 0, "target"), "0.9"),
        (("folds", 0, "target"), float("nan")),
        (("folds", 0, "target"), float("inf")),
        (("folds", 0, "point"), ["a"]),
        (("folds", 0, "point", "temperatures"), [float("nan")]),
        (("folds", 0, "predicted"), None),
        (("folds", 0, "tau"), 0.5),
        (("schema_version",), "two"),
    ],
    ids=str,
)
def test_a_field_of_another_kind_is_damage(tmp_path, keys, value):
    with pytest.raises(PlanError, match=r"plan\.json is no plan, or a damaged one") as refused:
        load_plan(edited(tmp_path, *keys, value=value))
    assert "\n" not in str(refused.value)


def test_a_newer_plan_is_refused(tmp_path):
    with pytest.raises(PlanError, match="newer version of tabi-bench"):
        load_plan(edited(tmp_path, "schema_version", value=3))


def test_plans_of_the_schema_before_are_read():
    """As committed: one model alone was written as its name."""
    files = sorted((ROOT / "results").rglob("plan.json"))
    plans = [load_plan(file) for file in files]
    old = [json.loads(file.read_text()) for file in files]
    assert {raw.get("schema_version", 1) for raw in old} == {1}
    assert all(plan.folds for plan in plans)


def test_one_model_alone_was_written_as_its_name(tmp_path):
    fold = {"tuned_on": [0], "serves": [1], "target": 0.9, "point": {"model": "a"}, "predicted": {}}
    plan = {"method": "infaas", "task": "sst2", "folds": [fold], "split_seed": 0, "fingerprint": {}, "options": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert load_plan(tmp_path / "plan.json").folds[0].point == Point.of_one("a").plain()


# --- what a plan was made for -----------------------------------------------------------------------------------------


def test_a_plan_that_fits_is_taken_even_when_the_zoo_has_grown():
    now = copy.deepcopy(MADE_FOR)
    now["models"]["c"] = "m3"
    check_made_for(plan(), PATH, now)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("data",), "d2", "other data"),
        (("labels",), ["yes", "no"], "other labels"),
        (("models", "b"), "m9", "models.b was m2, is m9"),
        (("tokenizers", "a"), "t9", "other tokenizers"),
        (("engine", "name"), "graph", "engine.name was eager, is graph"),
    ],
)
def test_a_plan_for_something_else_is_refused_with_the_reason(path, value, reason):
    now = inner = copy.deepcopy(MADE_FOR)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(PlanError, match=reason):
        check_made_for(plan(), PATH, now)


@pytest.mark.parametrize("key", ["data", "models", "tokenizers", "engine"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_plan_that_does_not_say_what_it_was_made_for_is_refused(key, how):
    fingerprint = {k: v for k, v in MADE_FOR.items() if k != key}
    if how == "empty":
        fingerprint[key] = type(MADE_FOR[key])()
    with pytest.raises(PlanError, match=rf"plan\.json does not say what it was made for \({key}\)"):
        check_made_for(plan(fingerprint=fingerprint), PATH, MADE_FOR)
    with pytest.raises(PlanError, match="data, models, tokenizers, engine"):
        check_made_for(plan(fingerprint={}), PATH, MADE_FOR)


@pytest.mark.parametrize("key", ["models", "tokenizers"])
def test_a_model_that_it_uses_must_be_named(key):
    fingerprint = MADE_FOR | {key: {"b": MADE_FOR[key]["b"]}}
    with pytest.raises(PlanError, match="does not say which a it was made for"):
        check_made_for(plan(fingerprint=fingerprint), PATH, MADE_FOR)


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folds", "reason"),
    [
        ([([0, 1], [2, 3]), ([2, 3], [0, 1, 2])], "fold 2, serves 1 rows that it was tuned on"),
        ([([0], [1, 2, 3]), ([1], [0, 2])], "fold 2, serves 1 rows that another fold serves too"),
        ([([0, 1], [2, 3]), ([2, 3], [0])], "serves 3 of 4 validation rows"),
        ([([0, 1], [2, 3])], "serves 2 of 4 validation rows"),
        ([([0, 1], [2, 3]), ([2, 3], [0, 1, 4])], "names row 4, but there are 4 validation rows"),
        ([([0, 1, 9], [2, 3]), ([2, 3], [0, 1])], "names row 9"),
        ([([0, 1], [2, -1]), ([2, 3], [0, 1])], "names row -1"),
        ([([], [2, 3]), ([2, 3], [0, 1])], "fold 1, does not say which rows it was tuned on"),
        ([([0, 1], None)], "fold 1, serves 2 rows that it was tuned on"),
    ],
    ids=str,
)
def test_folds_that_contradict_each_other_or_the_data_are_refused(folds, reason):
    with pytest.raises(PlanError, match=reason):
        check_folds(folded(*folds), PATH, 4)


def test_folds_that_part_the_rows_are_taken():
    check_folds(plan(), PATH, 4)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_are_those_that_the_plan_was_made_with():
    made_with = plan(options=asdict(TABI) | {"alphas": [0.5], "dispatcher": "sigmoid"})
    assert options_of(made_with, PATH, TABI) == replace(TABI, alphas=[0.5], dispatcher="sigmoid")


def test_the_cascade_below_a_control_is_the_plans_too():
    made_with = read_file("method", "oracle", cascade=replace(TABI, alphas=[0.25]))
    assert options_of(plan(options=asdict(made_with)), PATH, read_file("method", "oracle")) == made_with


@pytest.mark.parametrize(
    "damage", [{"alphas": "all"}, {"levels": 9}, {"confidence": "gut"}, {"sigmoid_k": [1]}, {"sigmoid_k": -1.0}]
)
def test_options_that_are_none_are_damage(damage):
    with pytest.raises(PlanError, match="damaged plan"):
        options_of(plan(options=asdict(TABI) | damage), PATH, TABI)


def test_options_that_are_no_more_are_left_out():
    assert options_of(plan(options={"name": "tabi", "race_s": 0.5}), PATH, TABI) == TABI


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(micro, tmp_path):
    """A session's record of Tabi, and the path of its plan."""
    config = micro("task=sst2", "method.alphas=[0.5]", "method.fewer_levels=false", "target.slack=0.1")
    _, tabi = run_session(config)
    return tabi, Path(config.results_dir) / "adhoc" / tabi.run_id / "plan.json"


def test_a_saved_plan_is_served_again_under_the_options_it_was_made_with(micro, served, tmp_path):
    tabi, file = served
    config = micro("task=sst2", f"plan={file}", "target.slack=0.1", f"results_dir={tmp_path}/again")
    _, again = run_session(config)
    assert again.accuracy == tabi.accuracy and again.shares == tabi.shares
    assert again.details["system"]["folds"] == tabi.details["system"]["folds"]
    assert again.config["method"] == again.config["systems"]["tabi"] == tabi.config["method"]
    assert config.method.alphas != [0.5], "what the caller asked for is left as it was"
    _, once_more = run_session(config)
    assert once_more.session_id == again.session_id, "the same plan is the same run"


DAMAGE = {
    "an empty fingerprint": (("fingerprint",), {}, "does not say what it was made for"),
    "a threshold that is no number": (("folds", 0, "point", "taus"), [float("nan")], "damaged"),
    "a negative threshold": (("folds", 0, "point", "taus"), [-0.5], "fold 1: taus"),
    "temperature 0": (("folds", 1, "point", "temperatures"), [1.0, 0.0], "fold 2: temperatures"),
    "thresholds as text": (("folds", 0, "point", "taus"), "high", "fold 1: taus"),
    "unequal lists": (("folds", 0, "point", "weights"), [1.0], "fold 1: weights"),
    "an unknown model": (("folds", 0, "point", "models"), ["micro-1x16", "huge"], "fold 1: models"),
    "rows that do not exist": (("folds", 0, "serves"), [0, 5000], "names row 5000"),
    "rows it was tuned on": (("folds", 0, "tuned_on"), list(range(120)), "rows that it was tuned on"),
    "another method": (("method",), "tabi3", "made for method 'tabi3', not 'tabi'"),
    "another task": (("task",), "rte", "made for task 'rte', not 'sst2'"),
}


@pytest.mark.parametrize(("keys", "value", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_plan_edited_by_hand_is_refused_before_any_work(micro, cache, served, keys, value, reason, monkeypatch):
    _, file = served
    raw = inner = json.loads(file.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(json.dumps(raw))
    monkeypatch.setattr("tabi_bench.profiling.lab.Lab.profile", None)
    with pytest.raises(PlanError, match=reason) as refused:
        run_session(micro("task=sst2", f"plan={file}", "target.slack=0.1"))
    assert "\n" not in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        "tabi method.confidence=entropy",
        "infaas method.slo_ms=5",
        "single method.model=0",
        "cocktail method.smoothed=false",
        "deebert method.max_ramps=1",
        "deebert method.train.epochs=1",
    ],
)
def test_settings_beside_a_plan_are_refused(composed, tmp_path, setting):
    (tmp_path / "plan.json").write_text("")
    method, override = setting.split()
    with pytest.raises(ConfigError, match="would not be read: the plan holds it"):
        composed("task=sst2", f"method={method}", f"plan={tmp_path}/plan.json", override)


def test_how_members_run_is_no_part_of_a_plan(composed, tmp_path):
    (tmp_path / "plan.json").write_text("")
    config = composed("task=sst2", "method=cocktail", f"plan={tmp_path}/plan.json", "method.latency=serial")
    taken = options_of(plan(options=asdict(read_file("method", "cocktail", slo_ms=3.0))), PATH, config.method)
    assert (taken.latency, taken.slo_ms) == ("serial", 3.0)


def test_a_verified_search_records_its_regret_and_says_it(micro):
    config = micro("task=sst2", "search.verify=true", "method.alphas=[0.0,0.5]")
    _, tabi = run_session(config)
    for fold in tabi.details["plan"]:
        assert fold["verified"]["regret_pct"] >= -1e-6
        assert fold["verified"]["passes_share"] == fold["passes"]["run"] / fold["passes"]["exhaustive"] <= 1
    assert "regret against exhaustive search" in where([tabi], config)
    assert isinstance(tabi, Record)
