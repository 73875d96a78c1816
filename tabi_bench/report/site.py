"""Everything that a results folder can tell, written out: tables, figures, all records, one Markdown file, one page."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from tabi_bench.cache import write_atomically
from tabi_bench.names import printed
from tabi_bench.progress import progress
from tabi_bench.report import fields, figures, from_records
from tabi_bench.report.cells import Table, markdown, number, percent, provenance, word
from tabi_bench.report.claims import claims
from tabi_bench.report.drawing import Drawing
from tabi_bench.report.from_files import ladder
from tabi_bench.report.reading import Results, read
from tabi_bench.report.tables import Tables


@dataclass(frozen=True)
class Entry:
    """A figure, a table, or both under one heading; `behind`: what to click for a long table."""

    id: str
    title: str
    table: Table | None = None
    behind: str = ""
    alt: str = ""  # of the figure: its title
    path: str = ""  # relative to the pages
    picture: str = ""  # its contents
    width: int = 0  # pixels at least: a page too narrow for it to be read scrolls it


@dataclass(frozen=True)
class Group:
    """What one setting (source, zoo, engine, dtype, device) has to show, or what stands over all of them."""

    slug: str
    title: str
    entries: list[Entry]
    warnings: list[str] = field(default_factory=list)  # of the data and models behind it


def rebuild(root: Path | str, out: Path | str | None = None, only: Collection[str] = ()) -> list[Path]:
    """Writes every table (Markdown, CSV, LaTeX) and figure (SVG, PDF, CSV) of the records below `root`, and the pages.

    out: default `<root>/report`. only: names of tables and figures; the pages, which hold all of them, then stay as
    they are. Returns the files. Raises FileNotFoundError without records, ValueError where nothing fits `only`.
    """
    results = read(root)
    out = Path(out).expanduser() if out else results.root / "report"
    written: list[Path] = []
    groups = settings(results, out, written, only)
    if not groups:
        wanted = ", ".join(only) or "anything"
        raise ValueError(
            f"the records below {root} hold nothing for {wanted}; sessions with Tabi, its profile and a plan of two "
            "levels or more do"
        )
    if only:
        return written
    groups.sort(key=lambda group: -sum(len(entry.table.data) for entry in group.entries if entry.table))
    before, after = [from_records.headline(results), claims(results)], [ladder(results.root)]
    written += [path for table in (*before, *after) if table for path in table.save(out)]
    written += fields.write(results.runs, out)
    main, last = ([Entry(table.name, table.title, table) for table in part if table] for part in (before, after))
    if main:
        groups.insert(0, Group("the-main-result", "The main result", main))
    groups.append(Group("beside-it", "Beside it", [*last, _every_record(results)]))
    words = from_records.in_words(results)
    template = Environment(loader=PackageLoader("tabi_bench.report", "."), autoescape=True).get_template("page.html.j2")
    page = template.render(groups=groups, words=words, problems=results.problems)
    for name, content in {"report.md": _markdown(results, groups, words), "index.html": page}.items():
        write_atomically(out / name, content + "\n")
        written.append(out / name)
    return written


def settings(results: Results, out: Path, written: list[Path], only: Collection[str] = ()) -> list[Group]:
    """One group per setting that has something to show, its files written; slugs that would collide are numbered."""
    groups: list[Group] = []
    for setting in results.settings():
        tables = Tables(results, setting)
        built, drawn = tables.build(only), figures.build(tables, only)
        alike = sum(re.sub(r"--\d+$", "", group.slug) == setting.slug for group in groups)
        slug = setting.slug + (f"--{alike + 1}" if alike else "")
        names = dict.fromkeys([*built, *drawn])
        for table in built.values():
            written += table.save(out / slug / "tables")
        entries = []
        for name in progress(names, desc=slug, unit="figure"):
            drawing, title = drawn.get(name), (built.get(name) or drawn[name]).title
            files = tables.attempt(name, partial(drawing.save, out / slug / "figures")) if drawing else None
            picture = _picture(files[0], drawing, out) if files and drawing else {}
            written += files or []
            entries.append(Entry(f"{slug}-{name}", title, built.get(name), **picture))
        of_setting = [run.record for run in results.runs if run.setting == setting]
        warnings = sorted({f"{record.task}: {warning}" for record in of_setting for warning in record.warnings})
        groups += [Group(slug, str(setting), entries, warnings)] if entries else []
    return groups


def _picture(path: Path, drawing: Drawing, out: Path) -> dict[str, Any]:
    """What an entry holds of the figure that was saved at `path`."""
    svg = path.read_bytes()
    points = float(re.findall(rb'width="([\d.]+)pt"', svg)[0])
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    where = path.relative_to(out).as_posix()
    return {"alt": drawing.title, "path": where, "picture": source, "width": int(1.25 * points)}


def _every_record(results: Results) -> Entry:
    """A line per record, the latest first: also those of earlier sessions, which no other table shows."""
    data = fields.frame(results.runs).sort_values(["time", "run_id"], ascending=[False, True], ignore_index=True)
    data["system"] = data.method.map(printed)
    columns = [word("time", "measured"), word("label", "preset"), word("task", "task"), word("system", "system")]
    columns += [word("engine", "engine"), number("seed", "seed", 0, measured=False), word("status", "status")]
    columns += [percent("score", "score %"), number("mean_ms", "mean ms", 3), number("reduction_pct", "less %", 1)]
    columns.append(word("session_id", "session"))
    note = "All fields of every record: records.csv and records.parquet; records.md says what they mean."
    table = Table("every", "Every record", data.astype(object), columns, provenance(results.runs), [note])
    return Entry("every", table.title, table, behind=f"{len(data)} records, the latest first")


def _markdown(results: Results, groups: list[Group], words: list[str]) -> str:
    parts = ["# Report", *map(markdown, words), *map(markdown, results.problems)]
    for group in groups:
        parts.append(f"## {markdown(group.title)}")
        parts += ["\n".join(f"- {markdown(warning)}" for warning in group.warnings)] if group.warnings else []
        for entry in group.entries:
            parts += [f"![{entry.alt}]({entry.path})"] if entry.path else []
            parts += [entry.table.markdown().strip()] if entry.table and not entry.behind else []
    return "\n\n".join([*parts, "Every record: [records.csv](records.csv), [what its columns mean](records.md)."])
