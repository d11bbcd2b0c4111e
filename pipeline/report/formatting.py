"""Figures as people read them: one way to write a number, wherever it stands."""

from collections.abc import Iterable
from typing import Any, Literal

import polars as pl

Row = dict[str, Any]

MISSING = "\u2013"
MINUS = "\u2212"


def figures(summary: pl.DataFrame, *, cutoff: int, split: str = "test") -> pl.DataFrame:
    """Return SUMMARY's rows of one split and cutoff, in panel order."""
    return summary.filter(pl.col("split") == split, pl.col("cutoff") == cutoff)


def compared(rows: Iterable[Row], *, to: Literal["all", "random"]) -> bool:
    """Tell whether an arm has a difference to `all`, or to `random`, so that there are figures to show."""
    return any(row["delta" if to == "all" else "delta_random"] is not None for row in rows)


def deciding(summary: pl.DataFrame, *, otherwise: int = 10) -> int:
    """Return the cutoff that decides: the largest in the table."""
    cutoff = summary["cutoff"].max()
    return int(cutoff) if isinstance(cutoff, int) else otherwise


def number(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a missing one is a dash, a negative one has a real minus sign."""
    return MISSING if value is None else format(value, form).replace("-", MINUS)


def p_value(value: float | None) -> str:
    """Format a p-value to three decimals; below that only that it is below."""
    return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")


def interval(low: float | None, high: float | None, form: str = "+z.4f") -> str:
    """Format an interval's two ends."""
    return MISSING if low is None or high is None else f"{number(low, form)} to {number(high, form)}"


def significant(row: Row, alpha: float) -> bool:
    """Tell whether an arm's difference to `all` has a Holm-adjusted p below ``alpha``."""
    return row["p_holm"] is not None and row["p_holm"] < alpha
