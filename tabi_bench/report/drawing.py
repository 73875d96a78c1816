"""How figures look and are kept: widths, colours, panels, provenance; SVG, PDF and the CSV of what was drawn."""

from __future__ import annotations

import io
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabi_bench import names

ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches
COLUMNS = 5  # panels beside each other at most
STYLE = str(Path(__file__).with_name("paper.mplstyle"))
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}}
_BLIND = seaborn.color_palette("colorblind").as_hex()
# Told apart by marker and line as well as by colour, so that a print in grey can be read.
LOOKS: dict[str, tuple[str, str, str]] = {
    names.printed(names.INFAAS): (_BLIND[7], "s", "--"),
    names.printed(names.SINGLE): (_BLIND[5], "p", "--"),
    names.printed(names.COCKTAIL): (_BLIND[1], "^", "-."),
    names.printed(names.TABI): (_BLIND[0], "o", "-"),
    names.printed(names.TABI3): (_BLIND[2], "D", "-"),
    names.printed(names.DEEBERT): (_BLIND[4], "v", ":"),
    names.printed(names.RANDOM): (_BLIND[6], "X", ":"),
    names.printed(names.ORACLE): (_BLIND[3], "*", "--"),
}
_MARKERS, _LINES = "oD^vsXp*hPd", ("-", "--", "-.")
# As many markers and colours as share no divisor: no pair comes twice before the 110th.
SPARE = [(_BLIND[k % 10], _MARKERS[k % 11], _LINES[k % 3]) for k in range(110)]


def look(label: str, position: int = 0) -> tuple[str, str, str]:
    """Colour, marker and line of a system by its printed name (or of another thing, by its position)."""
    return LOOKS.get(label.split(" (")[0], SPARE[position % len(SPARE)])


@dataclass(frozen=True)
class Drawing:
    """A figure: what is drawn (data, as in the CSV), how (draw), where the numbers come from, and what is missing."""

    name: str
    title: str
    data: pd.DataFrame
    draw: Callable[[], Figure]
    provenance: str
    note: str = ""

    def save(self, folder: Path) -> list[Path]:
        """Writes <name>.svg, .pdf and .csv into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}.{end}" for end in ("svg", "pdf", "csv")]
        for path in paths[:2]:
            path.write_bytes(self._bytes(path.suffix[1:]))
        data = self.data.assign(provenance=self.provenance)
        data.to_csv(paths[2], index=False, lineterminator="\n", float_format="%.7g")
        return paths

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self._bytes("png", dpi=150)

    def _bytes(self, kind: str, **options: Any) -> bytes:
        """The figure with its note and provenance below it."""
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # a line for every glyph table otherwise
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        picture = io.BytesIO()
        with matplotlib.style.context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name may hold any character
            figure = self.draw()
            width = int(27 * figure.get_figwidth())
            source = "\n".join(line for part in (self.note, self.provenance) for line in textwrap.wrap(part, width))
            figure.supxlabel(source, fontsize=5, color="0.35", x=0.01, ha="left", ma="left", linespacing=1.3)
            figure.savefig(picture, format=kind, metadata=UNDATED.get(kind), **options)
        return compact(picture.getvalue()) if kind == "svg" else picture.getvalue()


def compact(svg: bytes) -> bytes:
    """The same picture in less than half the bytes: tenths of a point, every style once, as a class."""
    styles: dict[str, str] = {}

    def shorter(tag: re.Match) -> str:
        text = re.sub(r' id="\w+_[\d.]+"| transform="rotate\(-0 [^"]*\)"', "", tag[0])
        text = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", re.sub(r"\s+", " ", text))
        return re.sub(r' style="([^"]*)"', lambda m: f' class="{styles.setdefault(m[1], f"s{len(styles)}")}"', text)

    text = re.sub(r"<\?xml.*?(?=<svg)|<metadata>.*?</metadata>", "", svg.decode(), flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", shorter, re.sub(r">\s+<", ">\n<", text))
    rules = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    return text.replace("</style>", f"{rules}</style>", 1).encode()


def _panels(count: int, rows: int, height: float) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (count, rows): columns of `rows` panels, at most COLUMNS of them side by side."""
    columns = min(count, COLUMNS)
    bands = -(-count // columns)
    width = ONE_COLUMN if columns <= 2 else TWO_COLUMNS
    height *= 1.3 if count == rows == 1 else 1.0  # a single panel is as wide as two
    figure = Figure(figsize=(width, bands * rows * height + 0.55), layout="constrained")
    grid = figure.subplots(bands * rows, columns, squeeze=False)
    axes = grid.reshape(bands, rows, columns).swapaxes(1, 2).reshape(-1, rows)
    for spare in axes[count:].flat:
        spare.set_axis_off()
    return figure, axes[:count]


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels, each name once, read from left to right in lines of about equal length."""
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if not handles:
        return
    columns = _columns(list(handles), figure.get_figwidth())
    # matplotlib fills a legend column by column
    order = [name for start in range(columns) for name in list(handles)[start::columns]]
    figure.legend([handles[name] for name in order], order, loc="outside upper center", ncols=columns)


def _columns(labels: list[str], inches: float) -> int:
    """The columns of a legend: as few lines as fit into the width, then as few columns as those lines need."""
    for columns in range(len(labels), 1, -1):
        longest = [max(map(len, labels[start::columns])) for start in range(columns)]
        if sum(4 * length + 31 for length in longest) <= 72 * inches:  # points: a letter; handle and gaps
            lines = -(-len(labels) // columns)
            return -(-len(labels) // lines)
    return 1


def whiskers(data: pd.DataFrame, value: str, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and (2, n) reaches of their intervals, nothing where there is none. data: <value>, _low, _high."""
    x = factor * data[value].astype(float).to_numpy()
    low, high = (
        factor * data[f"{value}_{end}"].astype(float).fillna(data[value]).to_numpy() for end in ("low", "high")
    )
    return x, np.nan_to_num(np.maximum([x - low, high - x], 0))


def intervals(axes: Axes, data: pd.DataFrame, rows: list[str], hues: list[str], value: str) -> None:
    """A dot with its interval per row and hue, dodged. data: columns row, hue, <value>, <value>_low, <value>_high."""
    step = 0.7 / max(len(hues), 1)
    for k, hue in enumerate(hues):
        of_hue = data[(data.hue == hue) & data[value].notna()]
        if of_hue.empty:
            continue
        y = np.array([rows.index(row) for row in of_hue.row]) + (k - (len(hues) - 1) / 2) * step
        x, reach = whiskers(of_hue, value)
        color, marker, _ = look(hue, k)
        axes.errorbar(x, y, xerr=reach, fmt=marker, color=color, elinewidth=0.8, label=hue)
    axes.axvline(0, color="0.4", linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="0.92", linewidth=0.5, zorder=0)


Plot = Callable[[np.ndarray, pd.DataFrame, str], None]  # on the axes of a task: its rows


def by_task(name: str, title: str, drawn: pd.DataFrame, plot: Plot, labels: tuple, **kept: Any) -> Drawing:
    """A figure with one panel (or a column of them) per task. labels: x, every y; kept: height, provenance, note."""
    x, *ys = labels
    height = kept.pop("height", 1.45)

    def draw() -> Figure:
        tasks = list(dict.fromkeys(drawn.task))
        figure, axes = _panels(len(tasks), len(ys), height)
        for position, (task, column) in enumerate(zip(tasks, axes, strict=True)):
            column[0].set_title(task)
            plot(column, drawn[drawn.task == task], task)
            column[-1].set_xlabel(x)
            for one, y in zip(column, ys, strict=True):
                one.set_ylabel(y if position % COLUMNS == 0 else "")
        legend(figure, axes.T.flat)
        return figure

    return Drawing(name, title, drawn, draw, **kept)
