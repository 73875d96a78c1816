"""The pages: which settings have a section, what stands first, names with markup, the same files every time."""

from __future__ import annotations

import hashlib
import json
import logging

import pandas as pd
import pytest
from report_samples import record, write

from tabi_bench.report.drawing import compact
from tabi_bench.report.fields import FIELDS
from tabi_bench.report.reading import read
from tabi_bench.report.site import rebuild, settings


def test_a_setting_whose_sessions_stand_in_another_ones_table_has_no_empty_section(results, tmp_path_factory):
    def slugs() -> list[str]:
        out = tmp_path_factory.mktemp("out")
        return [group.slug for group in settings(read(results), out, [], only=["main", "engines"])]

    before = slugs()
    for engine in ("eager", "fused"):
        runs = [record(m, f"e-{engine}", label="engines", engine=engine) for m in ("infaas", "tabi")]
        write(results, *runs, profile=False)
    assert slugs() == before
    groups = settings(read(results), tmp_path_factory.mktemp("out"), [], only=["engines"])
    assert any("fused" in str(entry.table.text()) for group in groups for entry in group.entries)


def test_the_main_result_comes_first_in_words_and_as_a_table(results):
    rebuild(results)
    page = (results / "report" / "index.html").read_text()
    lead = "Tabi takes 40 to 40 % (mean 40 %) less time per query than INFaaS"
    assert lead in page and lead in (results / "report" / "report.md").read_text()
    assert page.index(lead) < page.index('id="the-main-result"') < page.index('id="generated-tiny-eager-float32-some"')
    assert "(figures" not in page and 'src="data:image/svg+xml;base64,' in page
    assert page.index("9 records, the latest first") > page.index('id="every"')


@pytest.mark.slow
def test_every_record_stands_in_one_flat_table_with_a_dictionary(results):
    rebuild(results)
    flat = pd.read_csv(results / "report" / "records.csv")
    same = pd.read_parquet(results / "report" / "records.parquet")
    assert list(flat) == list(same) == list(FIELDS) and len(flat) == len(same) == 9
    assert flat.set_index("run_id").mean_ms["sst2-tabi-a"] == 6.0
    dictionary = (results / "report" / "records.md").read_text()
    assert all(f"| `{name}` | " in dictionary for name in FIELDS)


@pytest.mark.slow
def test_the_same_files_every_time(results, tmp_path):
    def digests(out) -> dict[str, str]:
        files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".pdf"]
        return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    rebuild(results, tmp_path / "one")
    rebuild(results, tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


MARKUP = "<b>$x^2$ & a_b|*c*</b>"


def test_names_with_markup_are_shown_as_they_are(tmp_path):
    failed = {
        "status": "failed",
        "error": f"{MARKUP}\nmore",
        "accuracy": {},
        "latency_ms": {},
        "shares": [],
        "reference": {},
        "cost": {},
        "target": {},
    }
    write(tmp_path, *(record(m, "a", task=MARKUP, run_id=m, zoo=MARKUP) for m in ("infaas", "tabi")))
    write(tmp_path, record("cocktail", "a", task=MARKUP, run_id="c", zoo=MARKUP, **failed))
    rebuild(tmp_path)
    report = tmp_path / "report"
    page, text = (report / "index.html").read_text(), (report / "report.md").read_text()
    assert "<b>$" not in page and "&lt;b&gt;$x^2$ &amp; a_b|*c*&lt;/b&gt;" in page
    assert "<b>" not in text and "&lt;b>\\$x^2\\$ &amp; a_b\\|\\*c\\*&lt;/b>" in text
    latex = next(report.rglob("main.tex")).read_text()
    assert r"\textless{}b\textgreater{}\$x\textasciicircum{}2\$ \& a\_b\textbar{}*c*" in latex
    svg = next(report.rglob("main.svg")).read_text()
    assert "&lt;b&gt;$x^2$ &amp; a_b|*c*&lt;/b&gt;" in svg, "no mathematics in a figure's labels"


def test_a_compact_picture_keeps_its_text():
    svg = b"""<?xml version="1.0"?>\n<svg width="5.25pt">\n <style>*{a}</style>\n <g id="text_1">
  <text style="font-size: 6px" x="1.23456" transform="rotate(-0 1 2)">driver 580.159.04</text>\n </g>\n</svg>"""
    expected = '<svg width="5.2pt">\n<style>*{a}.s0{font-size: 6px}</style>\n<g>\n'
    expected += '<text class="s0" x="1.2">driver 580.159.04</text>\n</g>\n</svg>'
    assert compact(svg).decode() == expected


def test_drawing_says_nothing(results, caplog):
    caplog.set_level(logging.INFO)
    rebuild(results, only=["main"])
    assert not caplog.records


@pytest.mark.parametrize(
    "name", ["record.json", *(pytest.param(n, marks=pytest.mark.slow) for n in ("trace.parquet", "plan.json"))]
)
def test_a_damaged_file_is_named_and_everything_else_goes_on(results, name):
    whole = {path.name for path in rebuild(results)}
    (results / "main_table" / "sst2-tabi-a" / name).write_bytes(b"PAR1 damaged")
    assert {path.name for path in rebuild(results)} >= whole - {
        "threshold.svg",
        "threshold.pdf",
        "threshold.csv",
        "deferral.svg",
        "deferral.pdf",
        "deferral.csv",
    }
    page = (results / "report" / "index.html").read_text()
    assert f"unreadable: main_table/sst2-tabi-a/{name}" in page
    assert "unreadable: main\\_table" not in page


def test_a_damaged_profile_and_a_plan_of_other_models_are_named(results):
    next((results / "main_table" / "profiles").glob("a.npz")).write_bytes(b"PK damaged")
    path = results / "main_table" / "rte-tabi-b" / "plan.json"
    path.write_text(path.read_text().replace('"small"', '"unheard of"'))
    rebuild(results)
    page = (results / "report" / "index.html").read_text()
    assert "unreadable: main_table/profiles/a.npz" in page and "unreadable: main_table/rte-tabi-b/plan.json" in page


@pytest.mark.parametrize("value", ["", "many", [], {}])
def test_details_that_nobody_can_draw_are_named_and_everything_else_goes_on(results, value):
    held = {"models": 2, "load_s": 1.0, "weights_mb": value}
    write(results, *(record(m, "a", details={"footprint": held}) for m in ("infaas", "cocktail", "tabi")))
    whole = {path.name for path in rebuild(results)}
    assert {"main.md", "main.svg"} <= whole and "footprint.md" not in whole
    page = (results / "report" / "index.html").read_text()
    assert "unreadable: generated-tiny-eager-float32-some/footprint: TypeError" in page


@pytest.mark.parametrize("key, value", [("search", {"margin_se": ""}), ("seed", "one"), ("seed", 10**300)])
def test_a_record_whose_settings_are_no_numbers_is_named(results, key, value):
    odd = record("tabi", "a")
    odd.config[key] = value
    write(results, odd)
    rebuild(results)
    assert "unreadable: main_table/sst2-tabi-a/record.json: " in (results / "report" / "index.html").read_text()


@pytest.mark.parametrize("changes", [{"outcome": []}, {"accuracy": {"metric": -1}}, {"provenance": {"time": 7}}])
def test_a_record_whose_names_are_no_text_is_named(results, changes):
    path = results / "main_table" / "sst2-tabi-a" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    actual = read(results)
    assert len(actual.runs) == 8 and "sst2-tabi-a/record.json: TypeError: " in actual.problems[0]
    assert "is no text" in actual.problems[0]


@pytest.mark.parametrize("content", ["[]", '{"run_id": 1}', "{", "null"])
def test_what_is_no_record_is_named(results, content):
    folder = results / "main_table" / "odd"
    folder.mkdir()
    (folder / "record.json").write_text(content)
    actual = read(results)
    assert len(actual.runs) == 9 and "unreadable: main_table/odd/record.json" in actual.problems[0]


@pytest.mark.parametrize("field, value", [("status", 0), ("task", None), ("shares", {}), ("latency_ms", [1]),
                                          ("provenance", {"versions": True})])  # fmt: skip
def test_a_record_whose_fields_are_of_another_kind_is_named(results, field, value):
    path = results / "main_table" / "sst2-tabi-a" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    actual = read(results)
    assert (
        len(actual.runs) == 8
        and f"record.json: ValueError: /main_table/sst2-tabi-a/record.json is no record: {field}" in actual.problems[0]
    )


def test_a_record_with_words_for_numbers_is_named(results):
    record("tabi", "odd", latency_ms={"mean": "fast"}).save(results / "main_table" / "odd")
    actual = read(results)
    assert len(actual.runs) == 9 and "could not convert" in actual.problems[0]
