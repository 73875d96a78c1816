"""The command line as its users type it: choices, typos, sweeps, and what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tabi_bench import cli, registry
from tabi_bench.config import BASES, ConfigError, conf_dir, read_file
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


def test_help_explains_the_groups_without_importing_torch():
    code = (
        "import sys; sys.argv = ['run.py', '--help']\n"
        "from tabi_bench import cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Groups (group=choice" in done.stdout and "search:" in done.stdout
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("task=mnlii", "unknown task 'mnlii'; there are: clinc, cola, custom, massive, mnli"),
        ("method=tabi,taby", "unknown method 'taby'; there are: "),
        ("zoo=huge", "unknown zoo 'huge'; there are: "),
        ("source=web", "unknown source 'web'; there are: "),
        ("method.alphaz=[0]", "Key 'alphaz' not in 'CascadeConfig'"),
        ("scenario.min_queries=many", "Value 'many' of type 'str' could not be converted to Integer"),
        ("target.value=90", "target.value=90.0: a fraction in (0, 1]"),
        ("compare=[infaas,taby]", "compare names an unknown method 'taby'"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(run, argument, says):
    done = run(argument)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_results_that_cannot_be_written_are_said_in_one_line(run, tmp_path, mode):
    (tmp_path / "file").write_text("")
    done = run(*mode, f"results_dir={tmp_path}/file/results")
    assert done.returncode == 1 and done.stderr.startswith("results_dir: cannot write to ")
    assert len(done.stderr.splitlines()) == 1


def test_presets_cannot_be_swept(run):
    done = run("-m", "experiment=main_table,tail")
    assert done.returncode == 1 and "presets cannot be swept" in done.stderr


def test_cfg_job_prints_the_whole_configuration():
    command = [sys.executable, "run.py", "task=clinc", "--cfg", "job"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "name: clinc" in done.stdout and "margin_se: 0.5" in done.stdout


GROUPS = [(g, f.stem) for g in (*BASES, "experiment") for f in sorted((conf_dir() / g).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "choice"), [pair for pair in GROUPS if pair[0] != "experiment"])
def test_every_choice_composes(composed, group, choice):
    extra = {("source", "local"): ["source.dir=somewhere"], ("task", "custom"): ["source=local", "source.dir=d"]}
    config = composed(f"{group}={choice}", *extra.get((group, choice), []))
    assert getattr(config, group).name == choice


@pytest.mark.parametrize("method", [f.stem for f in sorted((conf_dir() / "method").glob("*.yaml"))])
def test_every_method_is_registered_with_the_options_of_its_file(method):
    assert read_file("method", method).name == method
    assert registry.lookup(registry.SYSTEMS, method, "method") is not None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["target.kind=absolute"], "needs target.value"),
        (["target.value=0.9"], "target.value=0.9 is for target.kind=absolute"),
        (["target.kind=paper", "target.slack=0.1"], "target.slack=0.1 is for target.kind=relative"),
        (["target.slack=-0.1"], "target.slack=-0.1: at least 0"),
        (["+metod=tabi"], "unknown setting metod; there has: task, source"),
        (["+method.alpha=1"], "unknown setting method.alpha; method has: name, levels"),
        (["method.ensembles=[weighted,vote]"], "method.ensembles='vote': choose one of weighted, large"),
        (["method.ensembles=[]"], "method.ensembles=[]: name at least one"),
        (["method.alphas=[0.5,-1]"], "method.alphas=-1.0: at least 0"),
        (["method.levels=4"], "method.levels=4: choose one of 1, 2, 3"),
        (["method=random", "method.tabi.confidence=vibes"], "method.confidence='vibes'"),
        (["method=infaas", "method.slo_ms=-1"], "method.slo_ms=-1.0: at least 0"),
        (["method.dispatcher=sigmoid", "method.sigmoid_k=0"], "method.sigmoid_k=0.0: above 0"),
        (["source.train_rows=0"], "source.train_rows=0: at least 1"),
        (["source.validation_rows=3"], "source.validation_rows=3: at least 4"),
        (["cost.usd_per_hour=-1"], "cost.usd_per_hour=-1.0: at least 0"),
        (["task.split=mismatched"], "task.split='mismatched': task mnli has train, validation_matched"),
        (["compare=[infaas,single]", "plan=plan.json"], "plan is for method=tabi, which compare="),
        (["method=oracle", "method.tabi.levels=3"], "method.tabi.levels=3: the oracle routes between two models"),
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
    with pytest.raises(PlanError, match=r"method\.model='huge' is no model of this zoo"):
        run_session(micro("task=sst2", "source.validation_rows=90", "method=single", "method.model=huge"))
    assert set(cache.glob("outputs/*/outputs.npz")) == before


def test_the_summary_is_plain_text_in_a_pipe(micro, capsys):
    config = micro("task=sst2")
    cli.print_summary(run_session(config), config)
    printed = capsys.readouterr().out
    assert "sst2 from source generated, zoo tiny, engine eager" in printed
    assert "no evidence about the real task" in printed and "\x1b" not in printed
    lines = [line for line in printed.splitlines() if line.startswith(("system", "infaas", "tabi"))]
    assert "$ / 1M" in lines[0]
    assert len(lines) == 3 and "reference" in lines[1] and "%" in lines[2]
    assert f"Record: {config.results_dir}/adhoc/sst2-tabi-generated-tiny-eager-" in printed
