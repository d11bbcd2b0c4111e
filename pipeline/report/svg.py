"""Small parts of a drawing: escaped markup, the marks of a series, and one figure with its alternative text.

Colours are CSS classes, so that a drawing follows the reader's light or dark page; every series has a shape
of its own as well, for readers who do not tell the colours apart and for paper.
"""

import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

COLOURS: Final = 8
"""Classes ``c0`` to ``c7`` of the style sheet; ``ink`` is the baseline, ``control`` the random arms."""

_SHAPES: Final = ("square", "triangle", "diamond", "down", "cross", "hexagon", "plus")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_PERCENT: Final = re.compile(r"(?<!-guard)-[np]?\d+(?:\.\d+)?(?=-|$)")


def escape(value: object) -> str:
    """Return text that is safe in an element and in an attribute; what no page can show becomes U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)))


def tag(name: str, *children: str, **attributes: object) -> str:
    """Return one element.

    Args:
        name: Its name.
        children: Markup, already escaped.
        attributes: Attributes; ``_`` stands for ``-``, a last ``_`` is dropped (``class_``), None is left
            out, numbers are rounded to a hundredth.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}>{''.join(children)}</{name}>" if children else f"<{name}{pairs}/>"


def text(content: str, x: float, y: float, *, anchor: str = "start", class_: str | None = None) -> str:
    """Return a line of text whose middle is at height ``y``."""
    return tag("text", escape(content), x=x, y=y + 4.5, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def figure(name: str, width: float, height: float, body: Iterable[str], *, title: str, about: str) -> str:
    """Return a drawing that a screen reader can announce.

    Args:
        name: Unique in the page.
        width: Units; a unit is about a pixel on a wide screen.
        height: Units.
        body: Markup.
        title: What it shows.
        about: What it says, for readers who do not see it.
    """
    return tag(
        "svg",
        tag("title", escape(title), id=f"{name}-title"),
        tag("desc", escape(about), id=f"{name}-about"),
        *body,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_labelledby=f"{name}-title {name}-about",
    )


def shorten(name: str, limit: int) -> str:
    """Cut the middle out of a name that is longer than ``limit`` characters."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


@dataclass(frozen=True)
class Look:
    """How a series is drawn: its name, its colour class and its shape."""

    series: str
    colour: str
    shape: str


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Give every arm the look of its series: its name without the budget, such as ``mixed-guard75``.

    Baseline and control look the same in every report; the others differ in colour and shape, in panel order.
    """
    seen = {"all": Look("all", "ink", "circle"), "random": Look("random", "control", "circle")}
    found: dict[str, Look] = {}
    for arm in arms:
        series = _PERCENT.sub("", arm, count=1) or arm
        number = len(seen) - 2
        seen.setdefault(series, Look(series, f"c{number % COLOURS}", _SHAPES[number % len(_SHAPES)]))
        found[arm] = seen[series]
    return found


def mark_class(look: Look, *, hollow: bool = False) -> str:
    """Return the classes of a mark; hollow where it stands for something unsure."""
    return f"mark {look.colour}{' hollow' if hollow else ''}"


def mark(look: Look, x: float, y: float, *, size: float = 5.0, hollow: bool = False) -> str:
    """Return the mark of a series, about ``2 * size`` wide."""
    class_ = mark_class(look, hollow=hollow)
    if look.shape == "circle":
        return tag("circle", cx=x, cy=y, r=size * 0.95, class_=class_)
    points = " ".join(f"{_value(x + dx * size)},{_value(y + dy * size)}" for dx, dy in _OUTLINES[look.shape])
    return tag("polygon", points=points, class_=class_)


def _outline(corners: int, radius: float, turn: float) -> list[tuple[float, float]]:
    steps = [2 * math.pi * (i / corners) + turn for i in range(corners)]
    return [(radius * math.sin(step), -radius * math.cos(step)) for step in steps]


_ARM: Final = 0.38  # half the width of a plus sign's bar
_PLUS: Final = [
    (sx * x, sy * y)
    for sx, sy, corner in (
        (1, -1, ((_ARM, 1.1), (_ARM, _ARM), (1.1, _ARM))),
        (1, 1, ((1.1, _ARM), (_ARM, _ARM), (_ARM, 1.1))),
        (-1, 1, ((_ARM, 1.1), (_ARM, _ARM), (1.1, _ARM))),
        (-1, -1, ((1.1, _ARM), (_ARM, _ARM), (_ARM, 1.1))),
    )
    for x, y in corner
]
_OUTLINES: Final = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": _outline(3, 1.25, 0.0),
    "down": _outline(3, 1.25, math.pi),
    "diamond": _outline(4, 1.25, 0.0),
    "hexagon": _outline(6, 1.1, math.pi / 6),
    "plus": _PLUS,
    "cross": [((x - y) * math.sqrt(0.5), (x + y) * math.sqrt(0.5)) for x, y in _PLUS],
}


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 2) + 0.0:g}"
    return escape(value)
