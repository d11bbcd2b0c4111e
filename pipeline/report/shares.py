"""The chart "NDCG@k against training rows kept": one mark per arm, one series per strategy."""

from collections.abc import Sequence
from typing import Final

from pipeline.evaluation.verdict import BASELINE
from pipeline.report.axes import Axes, linear, shares, spread
from pipeline.report.formatting import interval, number
from pipeline.report.marks import Look, looks, mark
from pipeline.report.svg import WIDTH, add, figure, line, markup, points, shorten, text
from pipeline.report.view import Row

_LEFT, _TOP, _BOTTOM = 62.0, 34.0, 52.0
_LABEL: Final = 17.0  # height of a label
_SIDE: Final = 11.0  # distance of marks side by side; less where there are very many
_LETTER: Final = 7.0  # width of a letter, generous
_LONGEST: Final = 30


def chart(rows: Sequence[Row], *, cutoff: int) -> str:
    """Draw every arm's NDCG with its interval against its share of the rows; empty when no arm has an NDCG."""
    rows = [row for row in rows if row["ndcg"] is not None]
    if not rows:
        return ""
    base = next((row for row in rows if row["arm"] == BASELINE), None)
    marked = [row for row in rows if row is not base] or rows
    style = looks(row["arm"] for row in rows)
    series: dict[str, list[Row]] = {}
    for row in marked:
        series.setdefault(style[row["arm"]].series, []).append(row)
    axes = _axes(rows, marked, list(series), cutoff)
    kept = [axes.x(row["rows_fraction"]) for row in marked]
    gap = min(_SIDE, 0.35 * (axes.x.end - axes.x.start) / len(marked))
    places = spread(kept, gap, axes.x.start + 8, axes.x.end - 8)
    place = dict(zip((row["arm"] for row in marked), places, strict=True))
    if base is not None:
        _level(axes, base)
    for members in series.values():
        members.sort(key=lambda row: place[row["arm"]])
        _series(axes, members, style[members[0]["arm"]], place)
    ends = {name: members[-1] for name, members in series.items()}
    if base is not None:
        ends.setdefault(BASELINE, base)
    _labels(axes, ends, base, style, place)
    return markup(axes.svg)


def tip(row: Row, cutoff: int) -> str:
    """Return an arm's figures in one line."""
    return (
        f"{row['arm']}: NDCG@{cutoff} {number(row['ndcg'])} "
        f"({interval(row['low'], row['high'], '.4f')}), {row['rows']:,} rows ({row['rows_fraction']:.1%})"
    )


def _axes(rows: Sequence[Row], marked: Sequence[Row], series: Sequence[str], cutoff: int) -> Axes:
    """Draw the frame, with room for a label of every series at the right."""
    lowest, highest = min(rows, key=lambda r: r["ndcg"]), max(rows, key=lambda r: r["ndcg"])
    bottom = _TOP + max(330.0, (len(series) + 1) * _LABEL)
    ends = f"Highest: {tip(highest, cutoff)}. Lowest: {tip(lowest, cutoff)}."
    about = f"{len(rows)} arms. {ends} The table has all figures."
    title = f"NDCG@{cutoff} against training rows kept"
    svg = figure("shares", bottom + _BOTTOM, title=title, about=about)
    longest = max(len(shorten(name, _LONGEST)) for name in [*series, "all 0.0000"])
    x = shares([row["rows_fraction"] for row in marked], _LEFT, WIDTH - longest * _LETTER - 50)
    values = [row[key] for row in rows for key in ("low", "ndcg", "high") if row[key] is not None]
    axes = Axes(svg, x, linear(values, bottom, _TOP))
    digits = 2 if all(abs(value * 100 - round(value * 100)) < 1e-6 for value in axes.y.ticks()) else 4
    axes.left(f"mean NDCG@{cutoff} on test", lambda value: f"{value:.{digits}f}")
    spacing = " (logarithmic)" if x.log else ""
    axes.bottom(lambda value: f"{value * 100:.6g} %", title=f"share of the training rows kept{spacing}")
    return axes


def _level(axes: Axes, base: Row) -> None:
    """Draw the level of `all` across the chart, with its interval as a band."""
    x, y = axes.x, axes.y
    if base["low"] is not None and base["high"] is not None:
        top, width = y(base["high"]), x.end - x.start
        add(axes.svg, "rect", x=x.start, y=top, width=width, height=y(base["low"]) - top, class_="band")
    line(axes.svg, x.start, y(base["ndcg"]), x.end, y(base["ndcg"]), "reference")


def _series(axes: Axes, members: Sequence[Row], look: Look, place: dict[str, float]) -> None:
    """Draw the marks of one series, from left to right, and the line through them."""
    spots = [(place[row["arm"]], axes.y(row["ndcg"])) for row in members]
    if len(members) > 1:
        add(axes.svg, "polyline", points=points(*spots), class_=f"trend {look.colour}")
    for row, (x, y) in zip(members, spots, strict=True):
        group = add(axes.svg, "g")
        add(group, "title", tip(row, row["cutoff"]))
        if row["low"] is not None and row["high"] is not None:
            line(group, x, axes.y(row["low"]), x, axes.y(row["high"]), f"bar {look.colour}")
        if row["recommended"]:
            add(group, "circle", cx=x, cy=y, r=11, class_="ring")
        mark(group, look, x, y)


def _labels(
    axes: Axes, ends: dict[str, Row], base: Row | None, style: dict[str, Look], place: dict[str, float]
) -> None:
    """Name every series at the right, as near as possible to the height of its last mark."""
    svg, x, y = axes.svg, axes.x, axes.y
    heights = spread([y(row["ndcg"]) for row in ends.values()], _LABEL, _TOP, y.start)
    left = x.end + 26
    for (name, row), height in zip(ends.items(), heights, strict=True):
        look, level = style[row["arm"]], y(row["ndcg"])
        start = x.end if row is base else place[row["arm"]] + 8
        if start > x.start + 0.6 * (x.end - x.start):
            leader = points((start, level), (max(start, x.end), level), (left - 8, height))
            add(svg, "polyline", points=leader, class_=f"leader {look.colour}")
        if row is base:
            line(svg, left - 6, height, left + 6, height, "reference")
            text(svg, f"{name} {number(row['ndcg'])}", left + 13, height, "label strong")
        else:
            mark(svg, look, left, height)
            text(svg, shorten(name, _LONGEST), left + 13, height, "label")
