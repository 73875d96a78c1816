"""How figures look and are kept: widths, colours, panels, provenance; PDF, PNG and the CSV of what was drawn."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches
COLUMNS = 5  # panels beside each other at most
STYLE = {
    **seaborn.axes_style("ticks"),
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6.5,
    "font.family": "DejaVu Sans",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 220,
}
_BLIND = seaborn.color_palette("colorblind").as_hex()
# Told apart by marker and line as well as by colour, so that a print in grey can be read.
LOOKS: dict[str, tuple[str, str, str]] = {
    "infaas": (_BLIND[7], "s", "--"),
    "single": (_BLIND[5], "p", "--"),
    "cocktail": (_BLIND[1], "^", "-."),
    "tabi": (_BLIND[0], "o", "-"),
    "tabi3": (_BLIND[2], "D", "-"),
    "deebert": (_BLIND[4], "v", ":"),
    "random": (_BLIND[6], "X", ":"),
    "oracle": (_BLIND[3], "*", "--"),
}
_MARKERS, _LINES = "oD^vsXp*hPd", ("-", "--", "-.")
# As many markers and colours as share no divisor: no pair comes twice before the 110th.
SPARE = [(_BLIND[k % 10], _MARKERS[k % 11], _LINES[k % 3]) for k in range(110)]


def look(name: str, place: int = 0) -> tuple[str, str, str]:
    """Colour, marker and line of a system (or of the `place`-th other thing)."""
    return LOOKS.get(name.split(" (")[0], SPARE[place % len(SPARE)])


@dataclass(frozen=True)
class Drawing:
    """A figure: what is drawn (data, as in the CSV), how (draw), and where the numbers come from."""

    name: str
    title: str
    data: pd.DataFrame
    draw: Callable[[], Figure]
    provenance: str

    def save(self, folder: Path) -> list[Path]:
        """Writes <name>.pdf, .png and .csv into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}{end}" for end in (".pdf", ".png", ".csv")]
        with self._drawn() as figure:
            figure.savefig(paths[0], metadata={"CreationDate": None, "ModDate": None})
            figure.savefig(paths[1])
        self.data.assign(provenance=self.provenance).to_csv(paths[2], index=False, lineterminator="\n")
        return paths

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = io.BytesIO()
        with self._drawn() as figure:
            figure.savefig(picture, format="png", dpi=150)
        return picture.getvalue()

    @contextmanager
    def _drawn(self) -> Iterator[Figure]:
        """The figure with its provenance below; the style holds until it is saved."""
        with matplotlib.rc_context(STYLE):
            figure = self.draw()
            source = "\n".join(textwrap.wrap(self.provenance, int(27 * figure.get_figwidth())))
            figure.supxlabel(source, fontsize=5, color="0.35", x=0.01, ha="left", ma="left", linespacing=1.3)
            yield figure


def panels(titles: Sequence[str], rows: int = 1, height: float = 1.45) -> tuple[Figure, np.ndarray]:
    """A figure with `rows` panels for each title, at most COLUMNS titles side by side; axes (rows, titles)."""
    columns = min(len(titles), COLUMNS)
    bands = -(-len(titles) // columns)
    width = ONE_COLUMN if columns <= 2 else TWO_COLUMNS
    height *= 1.3 if len(titles) == rows == 1 else 1.0  # a single panel is as wide as two
    figure = Figure(figsize=(width, bands * rows * height + 0.55), layout="constrained")
    grid = figure.subplots(bands * rows, columns, squeeze=False)
    chosen = np.empty((rows, len(titles)), object)
    for place, title in enumerate(titles):
        band, column = divmod(place, columns)
        chosen[:, place] = grid[band * rows : (band + 1) * rows, column]
        chosen[0, place].set_title(title)
    for axes in grid.flat:
        if not any(axes is one for one in chosen.flat):
            axes.set_axis_off()
    return figure, chosen


def label_axes(axes: np.ndarray, x: str, ys: Sequence[str]) -> None:
    """Labels: x below the last panel of each title, y left of each first panel of a line."""
    columns = min(axes.shape[1], COLUMNS)
    for place in range(axes.shape[1]):
        axes[-1, place].set_xlabel(x)
        if place % columns == 0:
            for one, y in zip(axes[:, place], ys, strict=True):
                one.set_ylabel(y)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels, each name once, read from left to right in lines of about equal length."""
    found: dict[str, Any] = {}
    for one in axes:
        handles, names = one.get_legend_handles_labels()
        for handle, name in zip(handles, names, strict=True):
            found.setdefault(name, handle)
    if not found:
        return
    columns = _columns(list(found), figure.get_figwidth())
    # matplotlib fills a legend column by column
    order = [name for start in range(columns) for name in list(found)[start::columns]]
    figure.legend([found[name] for name in order], order, loc="outside upper center", ncols=columns)


def _columns(names: list[str], inches: float) -> int:
    """The columns of a legend: as few lines as fit into the width, then as few columns as those lines need."""
    for columns in range(len(names), 1, -1):
        longest = [max(map(len, names[start::columns])) for start in range(columns)]
        if sum(4 * length + 31 for length in longest) <= 72 * inches:  # points: a letter; handle and gaps
            lines = -(-len(names) // columns)
            return -(-len(names) // lines)
    return 1


def intervals(
    axes: Axes, data: pd.DataFrame, rows: list[str], hues: list[str], value: str, factor: float = 1.0
) -> None:
    """A dot with its interval per row and hue, dodged. data: columns row, hue, <value>, <value>_low, <value>_high."""
    step = 0.7 / max(len(hues), 1)
    for k, hue in enumerate(hues):
        mine = data[(data.hue == hue) & data[value].notna()]
        if mine.empty:
            continue
        y = np.array([rows.index(row) for row in mine.row]) + (k - (len(hues) - 1) / 2) * step
        x = factor * mine[value].astype(float).to_numpy()
        low, high = (
            factor * mine[f"{value}_{end}"].astype(float).fillna(mine[value]).to_numpy() for end in ("low", "high")
        )
        color, marker, _ = look(hue, k)
        reach = np.maximum([x - low, high - x], 0)
        axes.errorbar(x, y, xerr=reach, fmt=marker, color=color, elinewidth=0.8, label=hue)
    axes.axvline(0, color="0.4", linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="0.92", linewidth=0.5, zorder=0)
