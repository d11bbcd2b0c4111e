"""The chart "NDCG@k against training rows kept": one mark per arm, one series per strategy."""

from collections.abc import Sequence
from typing import Final

from pipeline.evaluation.verdict import BASELINE
from pipeline.report import axes
from pipeline.report.axes import Scale, spread
from pipeline.report.formatting import Row, interval, number
from pipeline.report.svg import Look, escape, figure, line, looks, mark, shorten, tag, text

_WIDTH: Final = 900.0
_LEFT, _TOP, _BOTTOM = 62.0, 34.0, 52.0
_LABEL: Final = 17.0  # height of a label
_SIDE: Final = 11.0  # distance of marks side by side; less where there are very many
_LETTER: Final = 7.0  # width of a letter, generous
_LONGEST: Final = 30


def chart(rows: Sequence[Row], *, cutoff: int) -> str:
    """Draw every arm's NDCG with its interval against its share of the training rows.

    Args:
        rows: SUMMARY's rows of one split and cutoff, in panel order.
        cutoff: That cutoff.

    Returns:
        An SVG element; empty when no arm has an NDCG.
    """
    rows = [row for row in rows if row["ndcg"] is not None]
    if not rows:
        return ""
    base = next((row for row in rows if row["arm"] == BASELINE), None)
    marked = [row for row in rows if row is not base] or rows
    style = looks(row["arm"] for row in rows)
    series: dict[str, list[Row]] = {}
    for row in marked:
        series.setdefault(style[row["arm"]].series, []).append(row)
    longest = max(len(shorten(name, _LONGEST)) for name in [*series, "all 0.0000"])
    right = _WIDTH - longest * _LETTER - 50
    bottom = _TOP + max(330.0, (len(series) + 1) * _LABEL)
    y = axes.linear(
        [row[key] for row in rows for key in ("low", "ndcg", "high") if row[key] is not None], bottom, _TOP
    )
    x = axes.shares([row["rows_fraction"] for row in marked], _LEFT, right)
    gap = min(_SIDE, 0.35 * (right - _LEFT) / len(marked))
    places = spread([x(row["rows_fraction"]) for row in marked], gap, _LEFT + 8, right - 8)
    place = {row["arm"]: at for row, at in zip(marked, places, strict=True)}
    parts = [*_axes(x, y, cutoff)]
    if base is not None:
        parts += _reference(base, x, y)
    for members in series.values():
        parts += _series(members, style, place, y)
    parts += _labels(series, base, style, place, x, y)
    return figure(
        "shares", _WIDTH, bottom + _BOTTOM, parts,
        title=f"NDCG@{cutoff} against training rows kept", about=_about(rows, cutoff),
    )  # fmt: skip


def tip(row: Row, cutoff: int) -> str:
    """Return an arm's figures in one line."""
    return (
        f"{row['arm']}: NDCG@{cutoff} {number(row['ndcg'])} "
        f"({interval(row['low'], row['high'], '.4f')}), {row['rows']:,} rows ({row['rows_fraction']:.1%})"
    )


def _about(rows: Sequence[Row], cutoff: int) -> str:
    lowest, highest = min(rows, key=lambda r: r["ndcg"]), max(rows, key=lambda r: r["ndcg"])
    return (
        f"{len(rows)} arms. Highest: {tip(highest, cutoff)}. Lowest: {tip(lowest, cutoff)}. "
        "The table has all figures."
    )


def _axes(x: Scale, y: Scale, cutoff: int) -> list[str]:
    parts = [text(f"mean NDCG@{cutoff} on test", 8, 12, class_="axis")]
    ticks = y.ticks()
    digits = 2 if all(abs(v * 100 - round(v * 100)) < 1e-6 for v in ticks) else 4
    for value in ticks:
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(text(f"{value:.{digits}f}", x.start - 8, y(value), anchor="end", class_="tick"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis-line"))
    for value in x.ticks():
        parts.append(line(x(value), y.start, x(value), y.start + 5, "axis-line"))
        parts.append(text(f"{value * 100:.6g} %", x(value), y.start + 15, anchor="middle", class_="tick"))
    spacing = " (logarithmic)" if x.log else ""
    middle = (x.start + x.end) / 2
    parts.append(
        text(
            f"share of the training rows kept{spacing}", middle, y.start + 37, anchor="middle", class_="axis"
        )
    )
    return parts


def _reference(base: Row, x: Scale, y: Scale) -> list[str]:
    """Draw the level of `all` across the chart, with its interval as a band."""
    band = ""
    if base["low"] is not None and base["high"] is not None:
        top, height = y(base["high"]), y(base["low"]) - y(base["high"])
        band = tag("rect", x=x.start, y=top, width=x.end - x.start, height=height, class_="band")
    level = y(base["ndcg"])
    return [band, line(x.start, level, x.end, level, "reference")]


def _series(members: Sequence[Row], style: dict[str, Look], place: dict[str, float], y: Scale) -> list[str]:
    look = style[members[0]["arm"]]
    ordered = sorted(members, key=lambda row: place[row["arm"]])
    path = " ".join(f"{place[row['arm']]:.2f},{y(row['ndcg']):.2f}" for row in ordered)
    parts = [tag("polyline", points=path, class_=f"trend {look.colour}")] if len(members) > 1 else []
    for row in ordered:
        at = place[row["arm"]]
        group = []
        if row["low"] is not None and row["high"] is not None:
            group.append(line(at, y(row["low"]), at, y(row["high"]), f"bar {look.colour}"))
        if row["recommended"]:
            group.append(tag("circle", cx=at, cy=y(row["ndcg"]), r=11.0, class_="ring"))
        group.append(mark(look, at, y(row["ndcg"])))
        cutoff = int(row["cutoff"])
        parts.append(tag("g", tag("title", escape(tip(row, cutoff))), *group))
    return parts


def _labels(
    series: dict[str, list[Row]],
    base: Row | None,
    style: dict[str, Look],
    place: dict[str, float],
    x: Scale,
    y: Scale,
) -> list[str]:
    """Name every series at the right, as near as possible to the height of its last mark."""
    ends = {name: max(members, key=lambda row: place[row["arm"]]) for name, members in series.items()}
    if base is not None and BASELINE not in ends:
        ends[BASELINE] = base
    heights = spread([y(row["ndcg"]) for row in ends.values()], _LABEL, _TOP, y.start)
    left, parts = x.end + 26, []
    for (name, row), height in zip(ends.items(), heights, strict=True):
        look, level = style[row["arm"]], y(row["ndcg"])
        start = x.end if row is base else place[row["arm"]] + 8
        if start > x.start + 0.6 * (x.end - x.start):
            parts.append(
                tag("polyline", points=f"{start:.2f},{level:.2f} {max(start, x.end):.2f},{level:.2f} "
                    f"{left - 8:.2f},{height:.2f}", class_=f"leader {look.colour}")
            )  # fmt: skip
        if row is base:
            parts.append(line(left - 6, height, left + 6, height, "reference"))
            parts.append(text(f"{name} {number(row['ndcg'])}", left + 13, height, class_="label strong"))
        else:
            parts.append(mark(look, left, height))
            parts.append(text(shorten(name, _LONGEST), left + 13, height, class_="label"))
    return parts
