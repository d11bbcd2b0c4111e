"""From values to places on a drawing: scales, their ticks, a plot's frame, and places that keep their distance."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final
from xml.etree.ElementTree import Element

from pipeline.report.svg import line, text

_LOG_FROM: Final = 4.0  # a ratio of largest to smallest from which doubling is worth a step of its own
_SAME: Final = 1e-9  # values nearer than this are one value: their distance is rounding


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale from ``low..high`` to the places ``start..end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; values outside keep their proportion, beyond the ends."""
        low, high, at = (
            map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, count: int = 6) -> list[float]:
        """Return round values on the scale, ``count`` or a few more or less."""
        return _log_ticks(self.low, self.high, count) if self.log else _ticks(self.low, self.high, count)


def linear(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a linear scale that holds all values with some air; one value alone gets room around it."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) if high - low > _SAME else 0.1 * abs(high) or 0.1
    return Scale(low - air, high + air, start, end)


def shares(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a scale for shares above 0, at most 1: logarithmic when they span a factor of 4 or more."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        air = (high / low) ** 0.07
        return Scale(low / air, high * air, start, end, log=True)
    air = 0.08 * (high - low) if high - low > _SAME else 0.1 * high or 0.1
    # A share is at most 1; a little more keeps a mark there off the edge.
    return Scale(max(low - air, 0.0), min(high + air, max(1.015, high)), start, end)


def step_of(span: float, count: int) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that takes at most ``count`` steps."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return power * next((k for k in (1, 2, 2.5, 5) if span / (k * power) <= count * (1 + 1e-9)), 10)


def _ticks(low: float, high: float, count: int) -> list[float]:
    step = step_of(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [round(d * 10.0**p, 12) for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(ticks) >= count - 2:
            break
    return ticks


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart until each is ``gap`` from the next (less where they do not fit), least in squares.

    They stay in ``low..high`` and in their order. With p_i - i * gap in place of p_i, "at least gap apart"
    becomes "not falling": isotonic regression, here by the max-min formula (Robertson, Wright and Dykstra,
    *Order Restricted Statistical Inference*, 1988), which for some dozens of labels needs no library.
    """
    if not places:
        return []
    count = len(places)
    gap = min(gap, (high - low) / max(count - 1, 1))
    order = sorted(range(count), key=lambda i: places[i])
    total = [0.0, *accumulate(places[i] - rank * gap for rank, i in enumerate(order))]
    top = high - (count - 1) * gap
    moved = [0.0] * count
    for rank, i in enumerate(order):
        level = max(
            min((total[end] - total[start]) / (end - start) for end in range(rank + 1, count + 1))
            for start in range(rank + 1)
        )
        moved[i] = min(max(level, low), top) + rank * gap
    return moved


@dataclass(frozen=True)
class Axes:
    """The frame of a plot: its scales on a drawing; ``y`` runs from the bottom, its start, to the top."""

    svg: Element
    x: Scale
    y: Scale

    def left(self, title: str, label: Callable[[float], str], *, count: int = 6) -> None:
        """Draw the vertical scale: its title, a grid line and a value per tick that has a label."""
        text(self.svg, title, 8, self.y.end - 16, "axis")
        for value in self.y.ticks(count):
            if label(value):
                height = self.y(value)
                line(self.svg, self.x.start, height, self.x.end, height, "grid")
                text(self.svg, label(value), self.x.start - 8, height, "tick", anchor="end")

    def bottom(
        self, label: Callable[[float], str], *, title: str = "", count: int = 6, grid: bool = False
    ) -> None:
        """Draw the horizontal scale: a value per tick with a short mark or a grid line, and its title."""
        bottom = self.y.start
        for value in self.x.ticks(count):
            place = self.x(value)
            ends, class_ = ((self.y.end - 4, bottom), "grid") if grid else ((bottom, bottom + 5), "axis-line")
            line(self.svg, place, ends[0], place, ends[1], class_)
            text(self.svg, label(value), place, bottom + 14, "tick", anchor="middle")
        if not grid:
            line(self.svg, self.x.start, bottom, self.x.end, bottom, "axis-line")
        if title:
            middle = (self.x.start + self.x.end) / 2
            text(self.svg, title, middle, bottom + 36, "axis", anchor="middle")

    def zero(self) -> None:
        """Draw the vertical line of no difference."""
        line(self.svg, self.x(0.0), self.y.end - 4, self.x(0.0), self.y.start, "zero")
