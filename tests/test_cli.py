"""The command line as its users type it: choices, typos, sweeps, and what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tabi_bench import cli, registry
from tabi_bench.config import GROUPS, ConfigError, conf_dir, read_file
from tabi_bench.experiment import run_session
from tabi_bench.system import PlanError
from tests.processes import command_line, ended, start

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(tmp_path):
    """Runs a command line in a process of its own: its exit code, and what it printed."""

    def done(*arguments: str) -> SimpleNamespace:
        out, err = tmp_path / "out", tmp_path / "err"
        code = ended(start(command_line, *arguments, says=out, errors=err), seconds=120)
        return SimpleNamespace(returncode=code, stdout=out.read_text(), stderr=err.read_text())

    return done


@pytest.mark.parametrize(
    ("flag", "texts"),
    [
        ("--help", ["Groups (group=choice", "three_level", "systems.cocktail.smoothed=false", "--help-all"]),
        ("--help-all", ["Groups (group=choice", "three_level", "search:", "margin_se: 0.5"]),
    ],
)
def test_help_explains_the_groups_without_importing_torch(flag, texts):
    code = (
        f"import sys; sys.argv = ['run.py', '{flag}']\n"
        "from tabi_bench import cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert all(text in done.stdout for text in texts)
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("task=mnlii", "unknown task 'mnlii'; there are: clinc, cola, custom, massive, mnli"),
        ("method=tabi,taby", "unknown method 'taby'; there are: "),
        ("zoo=huge", "unknown zoo 'huge'; there are: "),
        ("source=web", "unknown source 'web'; there are: "),
        ("method.alphaz=[0]", "unknown setting method.alphaz; method=tabi has: levels, "),
        ("scenario.min_queries=many", "Value 'many' of type 'str' could not be converted to Integer"),
        ("target.value=90", "target.value=90.0: a fraction in (0, 1]"),
        ("metod=tabi", "unknown setting metod; there are: task, source"),
        ("target=0.95", "target=0.95: write target.kind=absolute target.value=0.95"),
        ("seed=-1", "seed=-1: at least 0"),
        ("engine.device=cuda:x", "engine.device='cuda:x': choose auto, cpu or cuda:N"),
        ("scenario.min_queries=1000000000000", "scenario.min_queries=1000000000000: at most 10000000"),
        ("compare=[infaas,taby]", "compare names an unknown method 'taby'"),
        ("~task", "a session needs a task: task=NAME chooses one"),
        ("foo", "'foo' is no setting; write key=value"),
        ("task=null", "unknown task 'null'; there are: "),
        ("method=[tabi]", "unknown method '[tabi]'; there are: "),
        ("task.files.train=données.csv", "cannot be read as it stands; put texts with other characters"),
        ("method.alphas=inf", "method.alphas=inf: a finite number is needed"),
        ("results_dir=", "results_dir='': name a folder"),
        ("engine.threads=10000", "engine.threads=10000: at most 1024"),
        ("target.slack=2", "target.slack=2.0: at most 1"),
        ("task.metric=f1_macro", "task.metric='f1_macro': choose one of accuracy, f1, f1@LABEL, matthews"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(run, argument, says):
    done = run(argument)
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_results_that_cannot_be_written_are_said_in_one_line(run, tmp_path, mode):
    (tmp_path / "file").write_text("")
    done = run(*mode, f"results_dir={tmp_path}/file/results")
    assert done.returncode == 1 and done.stderr.startswith("results_dir: cannot write to ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("task=rte", "task=rte would not be read: tail draws from the records of results_dir"),
        ("seed=1", "seed=1 would not be read"),
    ],
)
def test_a_preset_that_measures_nothing_refuses_settings_of_measuring(run, override, says):
    done = run("experiment=tail", override)
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1


def fail_oddly(*arguments: str) -> None:
    """A session that ends in what nobody foresaw."""
    from tabi_bench import experiment

    experiment.run_session = lambda config: {}["a key that is not there"]
    command_line(*arguments)


def test_what_nobody_foresaw_is_one_line_that_names_the_traceback(tmp_path):
    says = tmp_path / "printed"
    assert ended(start(fail_oddly, f"results_dir={tmp_path}/results", says=says), seconds=120) == 1
    line = says.read_text()
    assert line.startswith(
        "KeyError: 'a key that is not there'. This is a bug, here or in code of your own; please report"
    )
    assert len(line.splitlines()) == 1 and 'return {}["a key' not in line
    assert "in _job" in Path(line.split()[-1]).read_text(encoding="utf-8")


def typed(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """A line typed in a shell, where PYTHON is the interpreter and RUN the launcher."""
    line = command.replace("PYTHON", sys.executable).replace("RUN", str(ROOT / "run.py"))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False, env=variables)


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("PYTHON RUN --help | head -1", {}),
        ("PYTHON RUN --cfg job | head -1", {}),
        ("PYTHON RUN --help", {"PYTHONIOENCODING": "ascii"}),
        ("PYTHON -m tabi_bench --help", {}),
        ("PYTHON RUN --help", {"HOME": "/nonexistent"}),
        ("PYTHON RUN --help >&- && echo done", {}),
        ("PYTHON RUN --help 2>&-", {}),
    ],
)
def test_odd_surroundings_are_no_error(tmp_path, command, environment):
    done = typed(command, tmp_path, **environment)
    assert done.returncode == 0 and done.stdout and done.stderr == ""


def test_a_working_directory_that_is_gone_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    done = typed("rmdir ../gone && PYTHON RUN task=rte", tmp_path / "gone")
    assert done.returncode == 1 and done.stderr == "the working directory is gone; change to one that exists\n"


def test_presets_cannot_be_swept(run):
    done = run("-m", "experiment=main_table,tail")
    assert done.returncode == 1 and "presets cannot be swept" in done.stderr


def test_cfg_job_prints_the_whole_configuration():
    command = [sys.executable, "run.py", "task=clinc", "--cfg", "job"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "name: clinc" in done.stdout and "margin_se: 0.5" in done.stdout


CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((conf_dir() / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(composed, group, choice):
    extra = {("source", "local"): ["source.dir=somewhere"], ("task", "custom"): ["source=local", "source.dir=d"]}
    extra["zoo", "custom"] = ["zoo.paths=[d]"]
    config = composed(f"{group}={choice}", *extra.get((group, choice), []))
    assert getattr(config, group).name == choice


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] != "task"])
def test_the_table_has_a_row_for_every_choice_with_the_settings_of_its_file(group, choice):
    options = read_file(group, choice)
    assert (options.name, options.code) == (choice, registry.TABLE[group][choice].code)
    if group != "engine" or choice == "eager":  # whose code needs what may not be installed
        assert callable(registry.load(options.code))


def test_every_row_of_the_table_has_a_file():
    rows = {(group, name) for group, table in registry.TABLE.items() for name in table}
    assert rows == {pair for pair in CHOICES if pair[0] != "task"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["target.kind=absolute"], "needs target.value"),
        (["target.value=0.9"], "target.value=0.9 is for target.kind=absolute"),
        (["target.kind=paper", "target.slack=0.1"], "target.slack=0.1 is for target.kind=relative"),
        (["target.slack=-0.1"], "target.slack=-0.1: at least 0"),
        (["+metod=tabi"], "unknown setting metod; the configuration has: task, source"),
        (["+method.alpha=1"], "unknown setting method.alpha; method=tabi has: levels"),
        (["method.ensembles=[weighted,vote]"], "method.ensembles='vote': choose one of weighted, large"),
        (["method.ensembles=[]"], "method.ensembles=[]: name at least one"),
        (["method.alphas=[0.5,-1]"], "method.alphas=-1.0: at least 0"),
        (["method.levels=4"], "method.levels=4: choose one of 1, 2, 3"),
        (["method=random", "systems.tabi.confidence=vibes"], "systems.tabi.confidence='vibes'"),
        (["method=infaas", "method.slo_ms=-1"], "method.slo_ms=-1.0: above 0"),
        (["method.dispatcher=sigmoid", "method.sigmoid_k=0"], "method.sigmoid_k=0.0: above 0"),
        (["source.train_rows=0"], "source.train_rows=0: at least 1"),
        (["source.validation_rows=3"], "source.validation_rows=3: at least 4"),
        (["cost.usd_per_hour=-1"], "cost.usd_per_hour=-1.0: at least 0"),
        (["task.split=mismatched"], "task.split='mismatched': task mnli has train, validation_matched"),
        (["compare=[infaas,single]", "plan=plan.json"], "plan is for method=tabi, which compare="),
        (["method=oracle", "systems.tabi.levels=3"], "systems.tabi.levels=3: oracle routes between two models"),
        (["label=../elsewhere"], "label='../elsewhere': a folder below results_dir"),
        (["plan=nowhere/plan.json"], "plan=nowhere/plan.json: no such file"),
        (["source=local"], "source=local needs source.dir"),
        (["scenario.block=0"], "scenario.block=0: at least 1"),
        (["scenario.profile_rounds=0"], "scenario.profile_rounds=0: at least 1"),
        (["search.margin_se=-1"], "search.margin_se=-1.0: at least 0"),
        (["method.confidence=vibes"], "choose one of max, margin, entropy"),
    ],
)
def test_settings_that_cannot_be_used_are_named(composed, overrides, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        composed(*overrides)


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], "relative"),
        (["zoo=paper"], "paper"),
        (["zoo=paper", "target.slack=0.02"], "relative"),
        (["zoo=paper", "zoo.random_weights=true"], "relative"),
        (["zoo=paper", "target.kind=absolute", "target.value=0.9"], "absolute"),
    ],
)
def test_the_papers_models_have_the_papers_targets(composed, overrides, kind):
    assert composed(*overrides).target.kind == kind


def test_a_single_model_that_the_zoo_lacks_is_refused_before_it_is_profiled(micro, cache):
    before = set(cache.glob("outputs/*/outputs.npz"))
    with pytest.raises(PlanError, match=r"model='huge' is no model of this zoo"):
        run_session(micro("task=sst2", "source.validation_rows=90", "method=single", "method.model=huge"))
    assert set(cache.glob("outputs/*/outputs.npz")) == before


def test_the_summary_is_plain_text_in_a_pipe(micro, capsys):
    config = micro("task=sst2")
    cli.print_summary(run_session(config), config)
    printed = capsys.readouterr().out
    assert "sst2 from source generated, zoo tiny, engine eager" in printed
    assert "no evidence about the real task" in printed and "\x1b" not in printed
    lines = [line for line in printed.splitlines() if line.startswith(("system", "INFaaS", "Tabi"))]
    assert "$ / 1M" in lines[0]
    assert len(lines) == 3 and "reference" in lines[1] and "%" in lines[2]
    assert f"Record: {config.results_dir}/adhoc/sst2-tabi-generated-tiny-eager-" in printed
