"""Tables between markers: current in this repository, and how they are rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabi_bench.report.readme import main, rewritten

ROOT = Path(__file__).resolve().parents[2]
END = "<!-- /table -->\n"


@pytest.mark.parametrize("name", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_tables_in_the_documentation_are_current(name):
    text = (ROOT / name).read_text()
    assert rewritten(text, ROOT) == text, "run `python -m tabi_bench.report.readme`"


def test_the_text_around_stays_and_a_second_time_changes_nothing(results):
    text = f"before\n<!-- table: main . | task, system, mean ms -->\nold\n{END}"
    text += f"between\n<!-- table: tail . -->\n{END}after\n"
    once = rewritten(text, results)
    assert "| sst2 | Tabi | 6.000 |" in once and "old" not in once and "paper: ms" not in once
    assert all(f"\n{word}\n" in f"\n{once}" for word in ("before", "between", "after"))
    assert once.count("commit abc1234567") == 2, "each table keeps its line of provenance"
    assert rewritten(once, results) == once


def test_what_is_not_shown_has_no_footnote(results):
    page = rewritten(f"<!-- table: main . | task, system, score % -->\n{END}", results)
    assert "Score: accuracy" in page and "Margin SE" not in page and "Plain rule" not in page
    assert "Margin SE" in rewritten(f"<!-- table: main . -->\n{END}", results)


def test_a_folder_without_records_says_so(tmp_path):
    text = f"<!-- table: main results/none -->\n{END}"
    assert "*No records in results/none yet.*\n<!-- /table -->" in rewritten(text, tmp_path)


def test_the_headline_holds_one_row_per_task_and_each_engines_reduction(results):
    page = rewritten(f"<!-- table: headline . -->\n{END}", results)
    lines = [line for line in page.splitlines() if line.startswith("| sst2 |")]
    assert len(lines) == 1
    alone = rewritten(f"<!-- table: main . | task, system, vs INFaaS % -->\n{END}", results)
    reduction = next(line for line in alone.splitlines() if line.startswith("| sst2 | Tabi |")).split("|")[3]
    assert reduction.strip() in lines[0] and reduction.strip() != "–"


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (f"<!-- table: mian . -->\n{END}", "headline, claims, ladder, shapes, main, all_systems"),
        (f"<!-- table: main -->\n{END}", "results folder"),
        (f"<!-- table: main . | colour -->\n{END}", "no column colour"),
        ("<!-- table: main . -->\n", "not closed"),
        (f"<!-- table: main . -->\n<!-- table: tail . -->\n{END}", "not closed"),
    ],
)
def test_a_wrong_marker_is_refused_by_name(results, marker, message):
    with pytest.raises(ValueError, match=message):
        rewritten(marker, results)


def test_the_command_writes_the_file(results, monkeypatch, capsys):
    monkeypatch.chdir(results)
    page = results / "page.md"
    page.write_text(f"<!-- table: main . -->\n{END}")
    main(["page.md"])
    assert "| sst2 |" in page.read_text() and "page.md: tables rewritten" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"absent\.md"):
        main(["absent.md"])
