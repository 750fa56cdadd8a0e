"""Pictures of a run: bars with ranges, and curves of growth."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator, StrMethodFormatter

from .figures import Growth, Point, Series, number

OURS, THEIRS, NOTHING = "#0b6e99", "#b8b8b8", "#dddddd"
WALL, CPU, DIRECT = "#0b6e99", "#d9730d", "#999999"
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lxdtap",  # the same data make the same file
}


def bars(series: Sequence[Series], path: Path) -> None:
    """A panel for each, in two columns; a bar is a median, its whisker the range of the rounds."""
    shown = [each for each in series if each.values]
    columns = [column for column in _columns(shown) if column]
    height = max(sum(map(_height, column)) for column in columns)
    with plt.style.context("default"), mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(5.5 * len(columns), 0.24 * height), layout="constrained")
        for part, column in zip(
            figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True
        ):
            heights = {"height_ratios": [*map(_height, column)]}
            panels = part.subplots(len(column), 1, gridspec_kw=heights, squeeze=False)
            for axes, each in zip(panels[:, 0], column, strict=True):
                _bars(axes, each)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _height(series: Series) -> int:
    """In bars: its own, a title and a scale."""
    return len(series.values) + 2


def _columns(series: Sequence[Series]) -> tuple[list[Series], list[Series]]:
    """Both about as high, in order."""
    half, left, right = sum(map(_height, series)) / 2, list[Series](), list[Series]()
    for each in series:
        fits = not right and sum(map(_height, left)) + _height(each) / 2 <= half
        (left if fits else right).append(each)
    return left, right


def _bars(axes: Axes, series: Series) -> None:
    names = list(series.values)[::-1]
    middles = [statistics.median(series.values[name]) for name in names]
    below = [middle - min(series.values[name]) for name, middle in zip(names, middles, strict=True)]
    above = [max(series.values[name]) - middle for name, middle in zip(names, middles, strict=True)]
    colours = [_colour(name, series) for name in names]
    whiskers = {"lw": 0.8, "ecolor": "#444444"}
    axes.barh(names, middles, xerr=[below, above], color=colours, error_kw=whiskers)
    if series.logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(middles) / 3)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for at, (middle, more) in enumerate(zip(middles, above, strict=True)):
        axes.annotate(
            number(middle),
            (middle + more, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.margins(x=0.12)
    axes.set_title(f"{series.what} ({series.unit})", loc="left", fontsize=8, fontweight="bold")
    axes.tick_params(left=False)


def _colour(name: str, series: Series) -> str:
    if name == series.baseline:
        return NOTHING
    return OURS if name.startswith(("lxdtap", "with")) else THEIRS


def curves(growths: Sequence[Growth], path: Path) -> None:
    """A panel for each: what one more costs, by wall and by the work of lxdtap's processes."""
    with plt.style.context("default"), mpl.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(7.5, 5.6), layout="constrained")
        for axes, growth in zip(panels.flat, growths, strict=False):
            _curves(axes, growth)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _curves(axes: Axes, growth: Growth) -> None:
    markers = iter("os^v")
    for name, points in growth.curves.items():
        marker = next(markers)
        several = f"{name}, " if len(growth.curves) > 1 else ""
        _line(axes, points, lambda point: point.wall, f"{several}time", WALL, marker)
        _line(axes, points, lambda point: point.cpu, f"{several}CPU", CPU, marker)
        _line(axes, points, lambda point: point.direct, "time without lxdtap", DIRECT, marker)
    points = [point for curve in growth.curves.values() for point in curve]
    if any(point.at == 0 for point in points):
        axes.set_xscale("symlog", linthresh=1 << 10)
    else:
        axes.set_xscale("log")
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    axes.set_ylim(lowest / 3, highest * 6)  # so that a flat cost looks flat; the legend is above
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(growth.along)
    axes.set_ylabel(f"µs for each {growth.each}")
    axes.grid(alpha=0.25, lw=0.5)
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")


def _line(
    axes: Axes,
    points: Sequence[Point],
    cost: Callable[[Point], float | None],
    label: str,
    colour: str,
    marker: str,
) -> None:
    costs = [(point.at, cost(point)) for point in points]
    found = [(at, each * 1e6) for at, each in costs if each is not None]
    if found:
        across, up = zip(*found, strict=True)
        axes.plot(across, up, marker=marker, ms=3, lw=1, color=colour, label=label)
