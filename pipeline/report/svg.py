"""Drawings for the page: elements, and one figure with its alternative text.

Colours are CSS classes, so that a drawing follows the reader's light or dark page.
"""

from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH: Final = 900.0
"""Units across every drawing; a unit is about a pixel on a wide screen."""


def figure(name: str, height: float, *, title: str, about: str) -> Element:
    """Return an empty drawing, ``name`` unique in the page; a screen reader says ``title`` and ``about``."""
    svg = Element("svg", viewBox=f"0 0 {_value(WIDTH)} {_value(height)}", role="img")
    svg.set("aria-labelledby", f"{name}-title {name}-about")
    add(svg, "title", title, id=f"{name}-title")
    add(svg, "desc", about, id=f"{name}-about")
    return svg


def markup(svg: Element) -> str:
    """Return a drawing's markup, everything in it escaped."""
    return tostring(svg, encoding="unicode")


def add(parent: Element, kind: str, content: str | None = None, **attributes: str | float) -> Element:
    """Append an element; in names ``_`` stands for ``-`` and a last ``_`` is dropped (``class_``)."""
    pairs = {name.rstrip("_").replace("_", "-"): _value(value) for name, value in attributes.items()}
    element = SubElement(parent, kind, pairs)
    element.text = content
    return element


def text(parent: Element, content: str, x: float, y: float, class_: str, *, anchor: str = "start") -> None:
    """Append a line of text whose middle is at height ``y``."""
    add(parent, "text", content, x=x, y=y + 4.5, text_anchor=anchor, class_=class_)


def line(parent: Element, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
    """Append a straight line."""
    add(parent, "line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def points(*places: tuple[float, float]) -> str:
    """Return the ``points`` of a polyline or polygon."""
    return " ".join(f"{_value(x)},{_value(y)}" for x, y in places)


def shorten(name: str, limit: int) -> str:
    """Cut the middle out of a name that is longer than ``limit`` characters."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def _value(value: str | float) -> str:
    """Round a number to a hundredth."""
    return value if isinstance(value, str) else f"{round(value, 2) + 0.0:.10g}"
