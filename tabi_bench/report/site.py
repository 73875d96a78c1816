"""Everything that a results folder can tell, written out: tables, figures, one Markdown file and one web page."""

from __future__ import annotations

import base64
import html
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tabi_bench.cache import write_atomically
from tabi_bench.report import figures, shapes, tables
from tabi_bench.report.cells import Table
from tabi_bench.report.drawing import STYLE, Drawing
from tabi_bench.report.ladder import ladder
from tabi_bench.report.reading import Results, Setting, read

log = logging.getLogger(__name__)


@dataclass
class Section:
    """What one setting (source, zoo, engine, dtype, device) has to show."""

    setting: Setting
    slug: str
    tables: dict[str, Table]
    drawings: dict[str, Drawing]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*self.tables, *self.drawings]))


def rebuild(root: Path | str, out: Path | str | None = None, only: Collection[str] = ()) -> list[Path]:
    """Writes every table (Markdown, CSV, LaTeX) and figure (PDF, PNG, CSV) of the records below `root`, and the pages.

    out: default `<root>/report`. only: names of tables and figures; the pages, which hold all of them, then stay as
    they are. Returns the files. Raises FileNotFoundError without records, ValueError where nothing fits `only`.
    """
    results = read(root)
    out = Path(out).expanduser() if out else results.root / "report"
    found = sections(results, only)
    if not found:
        wanted = ", ".join(only) or "anything"
        raise ValueError(
            f"the records below {root} hold nothing for {wanted}; sessions with Tabi, its profile and a plan of two "
            "levels or more do"
        )
    written = [path for section in found for path in _write(section, out)]
    if not only:
        last = [table for table in (ladder(results.root), tables.printed()) if table is not None]
        written += [path for table in last for path in _table_files(table, out)]
        pages = {"report.md": _markdown(results, found, last), "index.html": _page(results, found, last, out)}
        for name, text in pages.items():
            write_atomically(out / name, text)
        written += [out / name for name in pages]
    return written


def write_shapes(root: Path | str, out: Path | str | None = None, only: Collection[str] = ()) -> list[Path]:
    """The tables of the paper's shapes from the bench's files in `root`, into `out` (default: beside those files)."""
    out = Path(out or root).expanduser()
    kept = [table for name, found in shapes.build(root).items() for table in found if not only or name in only]
    if not kept:
        raise ValueError(f"nothing for {', '.join(only)}; there are {', '.join(shapes.NAMES)}")
    return [path for table in kept for path in _table_files(table, out)]


def sections(results: Results, only: Collection[str] = ()) -> list[Section]:
    """One per setting that has something to show; slugs that would collide are numbered."""
    found: list[Section] = []
    for setting in results.settings():
        mine = tables.Tables(results, setting)
        built, drawn = mine.build(only), figures.build(results, setting, mine, only)
        alike = sum(section.setting.slug == setting.slug for section in found)
        section = Section(setting, setting.slug + (f"-{alike + 1}" if alike else ""), built, drawn)
        if section.names:
            found.append(section)
    return found


def _write(section: Section, out: Path) -> list[Path]:
    folder = out / section.slug
    written = [path for table in section.tables.values() for path in _table_files(table, folder / "tables")]
    for drawing in tqdm(section.drawings.values(), desc=section.slug, unit="figure", disable=None, leave=False):
        written += drawing.save(folder / "figures")
    return written


def _table_files(table: Table, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    forms = {".md": table.markdown(), ".csv": table.csv(), ".tex": table.latex()}
    for end, text in forms.items():
        (folder / f"{table.name}{end}").write_text(text)
    return [folder / f"{table.name}{end}" for end in forms]


# --- one Markdown file ------------------------------------------------------------------------------------------------


def _markdown(results: Results, found: list[Section], last: list[Table]) -> str:
    parts = ["# Report", *(f"Unreadable: {problem}" for problem in results.problems)]
    for section in found:
        parts.append(f"## {section.setting}")
        for name in section.names:
            if name in section.drawings:
                drawing = section.drawings[name]
                parts.append(f"![{drawing.title}]({section.slug}/figures/{name}.png)")
            if name in section.tables:
                parts.append(section.tables[name].markdown().strip())
    return "\n\n".join([*parts, *(f"## {table.title}\n\n{table.markdown()}" for table in last)])


# --- one web page -----------------------------------------------------------------------------------------------------

CSS = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1180px;
  padding: 1rem 1.5rem 4rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2.5rem; border-bottom: 2px solid #ddd; padding-bottom: .3rem }
h3 { font-size: 1rem; margin: 2rem 0 .5rem } nav ul { columns: 16rem; padding-left: 1.2rem; margin: .2rem 0 }
.scroll { overflow-x: auto } img { max-width: 100%; height: auto; display: block; margin: .5rem 0 }
table { border-collapse: separate; border-spacing: 0; font-size: .8rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee }
th { border-bottom: 1px solid #888; background: #fafafa }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0 }
td:first-child { background: #fff }
.note, .source { font-size: .8rem; color: #555; margin: .3rem 0 } .problem { color: #a00 }
@media print { h3 { break-after: avoid } img { max-width: 17cm } }
"""


def _page(results: Results, found: list[Section], last: list[Table], out: Path) -> str:
    body = ["<h1>tabi-bench: tables and figures</h1>"]
    body += [f'<p class="problem">Unreadable: {html.escape(problem)}</p>' for problem in results.problems]
    body += ["<nav>", *(_contents(section) for section in found), "</nav>"]
    for section in found:
        body.append(f'<h2 id="{section.slug}">{html.escape(str(section.setting))}</h2>')
        body += [_entry(section, name, out) for name in section.names]
    for table in last:
        body += [f'<h2 id="{table.name}">{html.escape(table.title)}</h2>', table.html()]
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{view}<style>{CSS}</style>'
    title = "<title>tabi-bench: tables and figures</title>"
    return f"<!doctype html><html lang='en'><head>{head}{title}</head><body>" + "\n".join(body) + "</body></html>\n"


def _title(section: Section, name: str) -> str:
    return (section.tables.get(name) or section.drawings[name]).title


def _contents(section: Section) -> str:
    links = "".join(
        f'<li><a href="#{section.slug}-{name}">{html.escape(_title(section, name))}</a></li>' for name in section.names
    )
    return f'<p class="note"><a href="#{section.slug}">{html.escape(str(section.setting))}</a></p><ul>{links}</ul>'


def _image(title: str, png: bytes) -> str:
    """The picture; a page too narrow for it to be read scrolls it."""
    inches = int.from_bytes(png[16:20], "big") / STYLE["savefig.dpi"]  # the width stands in the file's header
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img style="min-width: {90 * inches:.0f}px" alt="{html.escape(title)}" src="{source}">'
    return f'<div class="scroll">{image}</div>'


def _entry(section: Section, name: str, out: Path) -> str:
    parts = [f'<h3 id="{section.slug}-{name}">{html.escape(_title(section, name))}</h3>']
    if name in section.drawings:
        drawing = section.drawings[name]
        parts.append(_image(drawing.title, (out / section.slug / "figures" / f"{name}.png").read_bytes()))
        if name not in section.tables or section.tables[name].title != drawing.title:
            parts.append(f'<p class="note">Figure: {html.escape(drawing.title)}.</p>')
    if name in section.tables:
        parts.append(section.tables[name].html())
    return "\n".join(parts)
