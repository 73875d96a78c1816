"""The notebooks: pairs in step, outputs stripped, and they run on the committed records."""

from __future__ import annotations

import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("reproduce_tables", "hyperparameters", "your_own_models")
TASKS = ("sst2-", "stsb-", "clinc-")  # two labels, scores, many labels: all ten take three times as long


@pytest.fixture
def committed(tmp_path) -> Path:
    """The committed records of some tasks."""

    def others(folder: str, names: list[str]) -> list[str]:
        runs = [name for name in names if Path(folder, name, "record.json").is_file()]
        return ["report", *(name for name in runs if not name.startswith(TASKS))]

    return Path(shutil.copytree(ROOT / "results" / "h200-encoders", tmp_path / "results", ignore=others))


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.*")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_in_step_and_hold_no_outputs(name):
    script, notebook = (jupytext.read(NOTEBOOKS / f"{name}{end}") for end in (".py", ".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in half.cells] for half in (script, notebook)]
    assert cells[0] == cells[1], "edit the .py, then: make notebooks"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip the outputs: make notebooks"
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    "name", [n if n == "hyperparameters" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_notebooks_run(name, committed, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", str(committed))
    monkeypatch.setenv("WORK", str(tmp_path / "work"))
    monkeypatch.setenv("TABI_BENCH_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}  # as a notebook server starts it
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert [output for output in outputs if output.get("name") == "stderr"] == []
