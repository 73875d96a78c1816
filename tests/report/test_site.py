"""The pages: which settings have a section."""

from report_samples import record, write

from tabi_bench.report.reading import read
from tabi_bench.report.site import sections


def test_a_setting_whose_sessions_stand_in_another_ones_table_has_no_empty_section(results):
    before = [section.slug for section in sections(read(results), only=["main", "engines"])]
    for engine in ("eager", "fused"):
        runs = [record(m, f"e-{engine}", label="engines", engine=engine) for m in ("infaas", "tabi")]
        write(results, *runs, profile=False)
    after = sections(read(results), only=["main", "engines"])
    assert [section.slug for section in after] == before
    assert any("fused" in str(section.tables["engines"].text()) for section in after if "engines" in section.tables)
