"""Tables and figures one at a time, and notebooks on folders that lack most presets."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from report_samples import record, write

from tabi_bench.report import tables
from tabi_bench.report.browse import NAMES, Note, Report
from tabi_bench.report.cells import Table
from tabi_bench.report.drawing import TWO_COLUMNS, Drawing, _columns

ROOT = Path(__file__).resolve().parents[2]


def test_a_figure_and_its_table(results):
    note, drawing, table = Report(results).entries("main")
    assert isinstance(note, Note) and "engine eager" in note
    assert isinstance(drawing, Drawing) and drawing._repr_png_().startswith(b"\x89PNG")
    assert isinstance(table, Table) and "<td>0.5</td>" in table._repr_html_()


def test_a_bar_of_stages_per_system_at_the_same_height_in_every_panel(results):
    _, drawing = Report(results).entries("latency")
    assert list(drawing.data.columns)[5:] == ["tokenise", "level1", "harness"], "in their order in time"
    first, second = drawing.draw().axes[:2]
    assert [text.get_text() for text in first.get_yticklabels()] == ["INFaaS", "Cocktail", "Tabi"]
    assert [text.get_text() for text in second.texts] == ["none"], "rte has no Cocktail"
    assert first.patches[0].get_width() == 0.75 and first.patches[3].get_width() == 9.0


def test_only_what_is_asked_for_is_built(results, monkeypatch):
    def main(*_):
        raise AssertionError("the main table was not asked for")

    monkeypatch.setitem(tables.BUILDERS, "main", main)
    assert [type(entry) for entry in Report(results).entries("models")] == [Note, Drawing, Table]


def test_what_was_not_measured_is_said(results):
    assert Report(results).entries("pruning") == [Note("*Not measured: these results hold nothing for `pruning`.*")]


def test_every_setting_is_named(results):
    write(results, *(record(m, "g", engine="graph", label="main_table", run_id=f"g-{m}") for m in ("infaas", "tabi")))
    notes = [entry for entry in Report(results).entries("main") if isinstance(entry, Note)]
    assert len(notes) == 2 and "engine eager" in notes[0] and "engine graph" in notes[1]


def test_an_unknown_name_is_refused(results):
    with pytest.raises(ValueError, match="no table or figure mian"):
        Report(results).entries("mian")


def test_contents(results):
    data = Report(results).contents().data
    assert data[["preset", "tasks", "systems", "records"]].to_numpy().tolist() == [
        ["main_table", "sst2, rte, cola", "INFaaS, Cocktail, Tabi", 9]
    ]


@pytest.mark.parametrize("name", ["reproduce_tables", "hyperparameters"])
def test_notebooks_on_a_single_record(name, tmp_path, monkeypatch, capsys):
    write(tmp_path, record("infaas", "a", label="adhoc"), profile=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RESULTS", str(tmp_path))
    runpy.run_path(str(ROOT / "notebooks" / f"{name}.py"))
    assert "Not measured" in capsys.readouterr().out


def test_every_name_can_be_shown(results):
    assert all(Report(results).entries(*NAMES))


def test_a_legend_takes_as_few_lines_as_fit():
    assert _columns(["infaas", "cocktail", "tabi"], TWO_COLUMNS) == 3
    assert _columns(["system"] * 11, TWO_COLUMNS) == 6, "two lines, of about equal length"
    assert _columns(["a name far too long for any column of a legend" * 2], 3.35) == 1


def test_no_legend_entry_for_a_paper_without_the_task(tmp_path):
    write(tmp_path, *(record(m, "a", task="tickets", run_id=m) for m in ("infaas", "tabi")))
    _, drawing, _ = Report(tmp_path).entries("main")
    assert [text.get_text() for text in drawing.draw().legends[0].get_texts()] == ["INFaaS", "Tabi"]
