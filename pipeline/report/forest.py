"""The chart of differences to `all`: a dot and its interval per arm, in panel order."""

from collections.abc import Sequence
from statistics import median
from typing import Final

from pipeline.report.axes import Axes, Scale, linear
from pipeline.report.formatting import difference, interval, number, p_value
from pipeline.report.marks import Look, looks, mark, mark_class
from pipeline.report.svg import WIDTH, add, figure, line, markup, points, shorten, text
from pipeline.report.view import Row, significant

_RIGHT: Final = WIDTH - 8
_ROW: Final = 23.0
_TOP: Final = 46.0
_LETTER: Final = 7.2
_LONGEST: Final = 34
_FAR: Final = 5.0  # an arm this many times the median arm's distance from zero does not set the scale


def chart(rows: Sequence[Row], *, cutoff: int) -> str:
    """Draw every arm's difference to `all` with its interval.

    A few arms that lost everything would press all others into a line: the scale leaves them out, and an
    arrow points to them. When no arm has a difference, the drawing is empty text.
    """
    rows = [row for row in rows if row["delta"] is not None]
    if not rows:
        return ""
    bottom = _TOP + _ROW * len(rows)
    sure = sum(significant(row) for row in rows)
    title = f"Difference of NDCG@{cutoff} to `all` per arm"
    about = f"{len(rows)} arms, {sure} of them significantly different. The table has all figures."
    svg = figure("forest", bottom + 34, title=title, about=about)
    names = 24 + _LETTER * max(len(shorten(row["arm"], _LONGEST)) for row in rows)
    low, high = _domain(rows)
    x = linear([low, 0.0, high], names + 24, WIDTH - 290)
    axes = Axes(svg, x, Scale(len(rows), 0.0, bottom, _TOP))
    for place, row in enumerate(rows):
        if row["recommended"]:
            top = axes.y(place) + 1
            add(svg, "rect", x=2, y=top, width=WIDTH - 4, height=_ROW - 2, rx=4, class_="chosen")
    zero = x(0.0)
    text(svg, "← worse", zero - 8, 12, "axis", anchor="end")
    text(svg, "better →", zero + 8, 12, "axis")
    text(svg, "difference (95 % interval)", _RIGHT - 72, 30, "axis", anchor="end")
    text(svg, "p (Holm)", _RIGHT, 30, "axis", anchor="end")
    axes.bottom(difference, count=7, grid=True)
    axes.zero()
    style = looks(row["arm"] for row in rows)
    for place, row in enumerate(rows):
        _arm(axes, row, style[row["arm"]], axes.y(place + 0.5))
    return markup(svg)


def off_scale(rows: Sequence[Row]) -> bool:
    """Return whether the scale leaves an arm out."""
    compared = [row for row in rows if row["delta"] is not None]
    low, high = _domain(compared) if compared else (0.0, 0.0)
    return any(not low <= row["delta"] <= high for row in compared)


def _ends(row: Row) -> tuple[float, float]:
    """Return the ends of an arm's interval; without an interval, the difference twice."""
    low, high = (row["delta"] if row[key] is None else row[key] for key in ("delta_low", "delta_high"))
    return low, high


def _domain(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the scale: those of all intervals and zero, except of arms far off."""
    spans = [(*_ends(row), row["delta"]) for row in rows]
    reach = [max(map(abs, span)) for span in spans]
    limit = _FAR * median(reach)
    near = [value for span, far in zip(spans, reach, strict=True) if far <= limit for value in span]
    return min(0.0, *near), max(0.0, *near)


def _arm(axes: Axes, row: Row, look: Look, y: float) -> None:
    """Draw one arm: name, interval, mark, figures."""
    x, delta, sure = axes.x, row["delta"], significant(row)
    low, high = _ends(row)
    class_ = f"label {'strong' if sure else 'faint'}"
    group = add(axes.svg, "g")
    add(group, "title", f"{row['arm']}: {number(delta, '+z.4f')}")
    text(group, shorten(row["arm"], _LONGEST), 10, y, class_)
    if x.low <= delta <= x.high:
        bar = f"bar {look.colour}{'' if sure else ' thin'}"
        line(group, x(max(low, x.low)), y, x(min(high, x.high)), y, bar)
        if row["recommended"]:
            add(group, "circle", cx=x(delta), cy=y, r=10, class_="ring")
        mark(group, look, x(delta), y, hollow=not sure)
    else:  # an arrow that points beyond the scale's end
        tip, inward = (x.start - 12, 1) if delta < x.low else (x.end + 12, -1)
        line(group, tip + inward * 6, y, tip + inward * 34, y, f"bar {look.colour}")
        back = tip + inward * 11
        head = points((tip, y), (back, y - 6), (back, y + 6))
        add(group, "polygon", points=head, class_=mark_class(look, hollow=not sure))
    ends = interval(row["delta_low"], row["delta_high"], "+z.3f")
    text(group, f"{number(delta, '+z.3f')} ({ends})", _RIGHT - 72, y, class_, anchor="end")
    text(group, p_value(row["p_holm"]), _RIGHT, y, class_, anchor="end")
