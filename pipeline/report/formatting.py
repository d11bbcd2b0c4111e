"""Figures as people read them: one way to write a number, wherever it stands."""

from typing import Final

MISSING: Final = "\u2013"
MINUS: Final = "\u2212"


def number(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a missing one is a dash, a negative one has a real minus sign."""
    return MISSING if value is None else format(value, form).replace("-", MINUS)


def p_value(value: float | None) -> str:
    """Format a p-value to three decimals, a smaller one as "<0.001"."""
    return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")


def interval(low: float | None, high: float | None, form: str = "+z.4f") -> str:
    """Format an interval's two ends."""
    return MISSING if low is None or high is None else f"{number(low, form)} to {number(high, form)}"


def difference(value: float) -> str:
    """Format a tick of a scale of differences: signed, but for zero."""
    return "0" if value == 0 else number(value, "+.4g")
