"""How series look: a colour and a shape each, for readers who do not tell the colours apart and for paper."""

import cmath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import pi
from typing import Final
from xml.etree.ElementTree import Element

from pipeline.report.svg import add, points

_COLOURS: Final = 8  # classes c0 to c7 of the style sheet; `ink` is the baseline, `control` the random arms
_BUDGET: Final = re.compile(r"(?<!-guard)-[np]?\d+(?:\.\d+)?(?=-|$)")


def _regular(corners: int, radius: float, turn: float = 0.0) -> list[complex]:
    """Return a regular polygon around 0, the first corner at the top but for ``turn``."""
    return [cmath.rect(radius, 2 * pi * i / corners + turn - pi / 2) for i in range(corners)]


_PLUS: Final = [
    point * 1j**quarter for quarter in range(4) for point in (0.38 - 1.1j, 0.38 - 0.38j, 1.1 - 0.38j)
]
_OUTLINES: Final = {
    "square": _regular(4, 1.245, pi / 4),
    "triangle": _regular(3, 1.25),
    "diamond": _regular(4, 1.25),
    "down": _regular(3, 1.25, pi),
    "cross": [point * cmath.rect(1, pi / 4) for point in _PLUS],
    "hexagon": _regular(6, 1.1, pi / 6),
    "plus": _PLUS,
}
_SHAPES: Final = tuple(_OUTLINES)


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
        series = _BUDGET.sub("", arm, count=1) or arm
        place = len(seen) - 2
        seen.setdefault(series, Look(series, f"c{place % _COLOURS}", _SHAPES[place % len(_SHAPES)]))
        found[arm] = seen[series]
    return found


def mark_class(look: Look, *, hollow: bool = False) -> str:
    """Return the classes of a mark; hollow where it stands for something unsure."""
    return f"mark {look.colour}{' hollow' if hollow else ''}"


def mark(parent: Element, look: Look, x: float, y: float, *, size: float = 5.0, hollow: bool = False) -> None:
    """Append the mark of a series, about ``2 * size`` wide."""
    class_ = mark_class(look, hollow=hollow)
    if look.shape == "circle":
        add(parent, "circle", cx=x, cy=y, r=size * 0.95, class_=class_)
    else:
        corners = ((x + point.real * size, y + point.imag * size) for point in _OUTLINES[look.shape])
        add(parent, "polygon", points=points(*corners), class_=class_)
