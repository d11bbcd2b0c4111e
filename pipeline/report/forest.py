"""The chart of differences to `all`: a dot and its interval per arm, in panel order."""

from collections.abc import Sequence
from statistics import median
from typing import Final

from pipeline.evaluation.paired import ALPHA
from pipeline.report import axes
from pipeline.report.axes import Scale
from pipeline.report.formatting import Row, interval, number, p_value, significant
from pipeline.report.svg import Look, escape, figure, line, looks, mark, mark_class, shorten, tag, text

_WIDTH: Final = 900.0
_ROW: Final = 23.0
_TOP: Final = 46.0
_LETTER: Final = 7.2
_LONGEST: Final = 34
_FAR: Final = 5.0  # an arm this many times the median arm's distance from zero does not set the scale


def chart(rows: Sequence[Row], *, cutoff: int) -> str:
    """Draw every arm's difference to `all` with its interval.

    A few arms that lost everything would press all others into a line: the scale leaves them out, and an
    arrow points to them.

    Args:
        rows: SUMMARY's rows of one split and cutoff, in panel order.
        cutoff: That cutoff.

    Returns:
        An SVG element; empty when no arm has a difference.
    """
    rows = [row for row in rows if row["delta"] is not None]
    if not rows:
        return ""
    style = looks(row["arm"] for row in rows)
    left = 24 + _LETTER * max(len(shorten(row["arm"], _LONGEST)) for row in rows)
    low, high = _domain(rows)
    x = axes.linear([low, 0.0, high], left + 24, _WIDTH - 290)
    bottom = _TOP + _ROW * len(rows)
    middle = [_TOP + _ROW * (place + 0.5) for place in range(len(rows))]
    parts = [_chosen(y) for row, y in zip(rows, middle, strict=True) if row["recommended"]]
    parts += _axes(x, bottom)
    parts += [_arm(row, style[row["arm"]], x, y) for row, y in zip(rows, middle, strict=True)]
    certain = sum(significant(row, ALPHA) for row in rows)
    return figure(
        "forest", _WIDTH, bottom + 34, parts,
        title=f"Difference of NDCG@{cutoff} to `all` per arm",
        about=f"{len(rows)} arms, {certain} of them significantly different. The table has all figures.",
    )  # fmt: skip


def off_scale(rows: Sequence[Row]) -> bool:
    """Tell whether the scale leaves an arm out."""
    rows = [row for row in rows if row["delta"] is not None]
    if not rows:
        return False
    low, high = _domain(rows)
    return any(not low <= row["delta"] <= high for row in rows)


def _ends(row: Row) -> tuple[float, float, float]:
    """Return an arm's interval and difference; without an interval, the difference alone."""
    delta: float = row["delta"]
    return tuple(delta if row[key] is None else row[key] for key in ("delta_low", "delta", "delta_high"))  # type: ignore[return-value]


def _domain(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the scale: those of all intervals, except of arms far off."""
    reach = [max(abs(end) for end in _ends(row)) for row in rows]
    limit = _FAR * median(reach)
    near = [end for row, far in zip(rows, reach, strict=True) if far <= limit for end in _ends(row)]
    return min(0.0, *near), max(0.0, *near)


def _chosen(y: float) -> str:
    """Lay a colour under the recommended arm's row."""
    return tag("rect", x=2.0, y=y - _ROW / 2 + 1, width=_WIDTH - 4, height=_ROW - 2, rx=4, class_="chosen")


def _axes(x: Scale, bottom: float) -> list[str]:
    zero, right = x(0.0), _WIDTH - 8
    parts = [
        text("← worse", zero - 8, 12, anchor="end", class_="axis"),
        text("better →", zero + 8, 12, class_="axis"),
        text("difference (95 % interval)", right - 72, 30, anchor="end", class_="axis"),
        text("p (Holm)", right, 30, anchor="end", class_="axis"),
    ]
    for value in x.ticks(7):
        parts.append(line(x(value), _TOP - 4, x(value), bottom, "grid"))
        parts.append(
            text(
                "0" if value == 0 else number(value, "+.4g"),
                x(value),
                bottom + 14,
                anchor="middle",
                class_="tick",
            )
        )
    parts.append(line(zero, _TOP - 4, zero, bottom, "zero"))
    return parts


def _arm(row: Row, look: Look, x: Scale, y: float) -> str:
    """Draw one arm: name, interval, mark, figures."""
    certain = significant(row, ALPHA)
    low, delta, high = _ends(row)
    weight = "strong" if certain else "faint"
    parts = [tag("title", escape(f"{row['arm']}: {number(delta, '+z.4f')}"))]
    parts.append(text(shorten(row["arm"], _LONGEST), 10, y, class_=f"label {weight}"))
    if x.holds(delta):
        parts.append(
            line(x(x.clip(low)), y, x(x.clip(high)), y, f"bar {look.colour}{'' if certain else ' thin'}")
        )
        if row["recommended"]:
            parts.append(tag("circle", cx=x(delta), cy=y, r=10.0, class_="ring"))
        parts.append(mark(look, x(delta), y, hollow=not certain))
    else:
        parts.append(_arrow(look, x, y, left=delta < x.low, hollow=not certain))
    right = _WIDTH - 8
    figures = f"{number(delta, '+z.3f')} ({interval(row['delta_low'], row['delta_high'], '+z.3f')})"
    parts.append(text(figures, right - 72, y, anchor="end", class_=f"label {weight}"))
    parts.append(text(p_value(row["p_holm"]), right, y, anchor="end", class_=f"label {weight}"))
    return tag("g", *parts)


def _arrow(look: Look, x: Scale, y: float, *, left: bool, hollow: bool) -> str:
    """Point to an arm beyond the scale's end."""
    tip, side = (x.start - 12, 1) if left else (x.end + 12, -1)
    back = tip + side * 11
    points = f"{tip:.2f},{y:.2f} {back:.2f},{y - 6:.2f} {back:.2f},{y + 6:.2f}"
    shaft = line(tip + side * 6, y, tip + side * 34, y, f"bar {look.colour}")
    return shaft + tag("polygon", points=points, class_=mark_class(look, hollow=hollow))
