"""How the recommended arm's gain or loss is spread over the queries: won, tied and lost, and by how much."""

from typing import Final
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.evaluation.verdict import BASELINE
from pipeline.report.axes import Axes, Scale, step_of
from pipeline.report.formatting import difference, number
from pipeline.report.svg import add, figure, markup, text

Floats = npt.NDArray[np.float64]

TIE: Final = 1e-9
"""Differences of NDCG up to this are rounding, not a change of order."""

_LEFT, _RIGHT = 62.0, 880.0
_BINS: Final = 12  # most bins on each side of zero


def differences(metrics: pl.DataFrame, *, arm: str, cutoff: int, split: str = "test") -> Floats:
    """Return the NDCG of ``arm`` minus that of `all` per query with a relevant document, ascending."""
    rows = metrics.filter(split=split, cutoff=cutoff)
    both = rows.filter(arm=arm).join(rows.filter(arm=BASELINE), on=["fold", "qid"], suffix="_all")
    change = both.select(pl.col("ndcg") - pl.col("ndcg_all")).to_series().drop_nulls()
    return np.sort(change.cast(pl.Float64).to_numpy())


def counts(change: Floats) -> tuple[int, int, int]:
    """Return how many queries were lost, tied and won."""
    lost, won = int((change < -TIE).sum()), int((change > TIE).sum())
    return lost, len(change) - lost - won, won


def bins(change: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return edges and counts of the queries that changed, in bins of a round width that meet at zero."""
    changed = change[np.abs(change) > TIE]
    if not len(changed):
        return np.empty(0), np.empty(0, dtype=np.int64)
    step = step_of(float(np.abs(changed).max()), _BINS)
    away = np.maximum(np.ceil(np.abs(changed) / step - 1e-9), 1)
    place = (np.sign(changed) * away).astype(np.int64)  # ..., -2, -1, 1, 2, ...
    below, above = max(-int(place.min()), 0), max(int(place.max()), 0)
    tally = np.bincount(place + below - (place > 0), minlength=below + above)
    return np.arange(-below, above + 1, dtype=np.float64) * step, tally.astype(np.int64)


def chart(change: Floats, *, arm: str, cutoff: int) -> str:
    """Draw the shares of lost, tied and won queries, and how large the changes are; empty without queries."""
    if not len(change):
        return ""
    edges, tally = bins(change)
    lost, tied, won = counts(change)
    title = f"Per-query difference of NDCG@{cutoff}, {arm} minus {BASELINE}"
    about = f"Of {len(change):,} queries {won:,} are better, {tied:,} are the same and {lost:,} are worse."
    svg = figure("wins", 330 if len(tally) else 66, title=title, about=about)
    _outcomes(svg, lost, tied, won)
    if len(tally):
        _histogram(svg, edges, tally, cutoff)
    return markup(svg)


def _outcomes(svg: Element, lost: int, tied: int, won: int) -> None:
    """Draw one bar, divided into the three outcomes, with the counts above it."""
    total, start, middle = lost + tied + won, _LEFT, (_LEFT + _RIGHT) / 2
    places = {"lost": (lost, _LEFT, "start"), "tied": (tied, middle, "middle"), "won": (won, _RIGHT, "end")}
    for word, (count, x, anchor) in places.items():
        width = (_RIGHT - _LEFT) * count / total
        add(svg, "rect", x=start, y=26, width=width, height=20, class_=word)
        label = f"{count:,} {word} ({count / total:.0%})"
        text(svg, label, x, 12, f"label strong {word}-text", anchor=anchor)
        start += width


def _histogram(svg: Element, edges: Floats, tally: npt.NDArray[np.int64], cutoff: int) -> None:
    step = float(edges[1] - edges[0])
    x = Scale(float(edges[0]) - 0.3 * step, float(edges[-1]) + 0.3 * step, _LEFT, _RIGHT)
    axes = Axes(svg, x, Scale(0.0, float(tally.max()) * 1.08, 280.0, 76.0))
    axes.left("queries that changed", lambda value: f"{value:,.0f}" if value == int(value) else "", count=4)
    for left, count in zip(edges[:-1].tolist(), tally.tolist(), strict=True):
        right, top = left + step, axes.y(count)
        class_ = "won" if left > -step / 2 else "lost"
        width = x(right) - x(left) - 2
        bar = add(svg, "rect", x=x(left) + 1, y=top, width=width, height=axes.y.start - top, class_=class_)
        add(bar, "title", f"{number(left, '+.4g')} to {number(right, '+.4g')}: {count:,} queries")
    axes.bottom(difference, title=f"difference of the query's NDCG@{cutoff}", count=9)
    axes.zero()
