"""How the recommended arm's gain or loss is spread over the queries: won, tied and lost, and by how much."""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.evaluation.verdict import BASELINE
from pipeline.report.axes import Scale, step_of
from pipeline.report.formatting import number
from pipeline.report.svg import escape, figure, line, tag, text

Floats = npt.NDArray[np.float64]

TIE: Final = 1e-9
"""Differences of NDCG up to this are rounding, not a change of order."""

_WIDTH: Final = 900.0
_LEFT, _RIGHT = 62.0, 880.0
_BINS: Final = 12  # most bins on each side of zero


def differences(metrics: pl.DataFrame, *, arm: str, cutoff: int, split: str = "test") -> Floats:
    """Return the NDCG of ``arm`` minus that of `all` per query with a relevant document, ascending.

    Args:
        metrics: METRICS.
        arm: The arm.
        cutoff: The cutoff.
        split: The split.
    """
    rows = metrics.filter(pl.col("split") == split, pl.col("cutoff") == cutoff)
    keys = ["fold", "qid"]
    mine = rows.filter(pl.col("arm") == arm).select(*keys, "ndcg")
    base = rows.filter(pl.col("arm") == BASELINE).select(*keys, base="ndcg")
    change = mine.join(base, on=keys).select(pl.col("ndcg") - pl.col("base")).to_series().drop_nulls()
    return np.sort(change.cast(pl.Float64).to_numpy())


def counts(change: Floats) -> tuple[int, int, int]:
    """Return how many queries were lost, tied and won."""
    lost, won = int((change < -TIE).sum()), int((change > TIE).sum())
    return lost, len(change) - lost - won, won


def bins(change: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Count the queries that changed, in equal bins of a round width that meet at zero.

    Returns:
        The bins' edges and the number of queries in each; both empty when nothing changed.
    """
    changed = change[np.abs(change) > TIE]
    if not len(changed):
        return np.empty(0), np.empty(0, dtype=np.int64)
    step = step_of(float(np.abs(changed).max()), _BINS)
    below = int(np.ceil(-min(float(changed.min()), 0.0) / step - 1e-9))
    above = int(np.ceil(max(float(changed.max()), 0.0) / step - 1e-9))
    place = np.sign(changed) * np.ceil(np.abs(changed) / step - 1e-9)  # ..., -2, -1, 1, 2, ...
    number = np.where(place < 0, place + below, place + below - 1).astype(np.int64)
    tally = np.bincount(np.clip(number, 0, below + above - 1), minlength=below + above)
    return np.arange(-below, above + 1, dtype=np.float64) * step, tally.astype(np.int64)


def chart(change: Floats, *, arm: str, cutoff: int) -> str:
    """Draw the shares of lost, tied and won queries, and how large the changes are.

    Args:
        change: What :func:`differences` gives.
        arm: The arm, for the title.
        cutoff: The cutoff, for the title.

    Returns:
        An SVG element; empty without queries.
    """
    if not len(change):
        return ""
    edges, tally = bins(change)
    lost, tied, won = counts(change)
    body = _split(lost, tied, won) + (_histogram(edges, tally, cutoff) if len(tally) else [])
    return figure(
        "wins", _WIDTH, 330 if len(tally) else 66, body,
        title=f"Per-query difference of NDCG@{cutoff}, {arm} minus {BASELINE}",
        about=f"Of {len(change):,} queries {won:,} are better, {tied:,} are the same and {lost:,} are worse.",
    )  # fmt: skip


def _split(lost: int, tied: int, won: int) -> list[str]:
    """Draw one bar, divided into the three outcomes, with the counts above it."""
    total, width = lost + tied + won, _RIGHT - _LEFT
    start, parts = _LEFT, []
    for count, class_ in ((lost, "lost"), (tied, "tied"), (won, "won")):
        parts.append(tag("rect", x=start, y=26.0, width=width * count / total, height=20.0, class_=class_))
        start += width * count / total
    labels = (
        (lost, "lost", _LEFT, "start"),
        (tied, "tied", (_LEFT + _RIGHT) / 2, "middle"),
        (won, "won", _RIGHT, "end"),
    )
    parts += [
        text(
            f"{count:,} {word} ({count / total:.0%})",
            x,
            12,
            anchor=anchor,
            class_=f"label strong {word}-text",
        )
        for count, word, x, anchor in labels
    ]
    return parts


def _histogram(edges: Floats, tally: npt.NDArray[np.int64], cutoff: int) -> list[str]:
    step = float(edges[1] - edges[0])
    x = Scale(float(edges[0]) - 0.3 * step, float(edges[-1]) + 0.3 * step, _LEFT, _RIGHT)
    y = Scale(0.0, float(tally.max()) * 1.08, 280.0, 76.0)
    parts = [text("queries that changed", 8, 64, class_="axis")]
    for value in y.ticks(4):
        if value == int(value):
            parts.append(line(x.start, y(value), x.end, y(value), "grid"))
            parts.append(text(f"{int(value):,}", x.start - 8, y(value), anchor="end", class_="tick"))
    for left, count in zip(edges[:-1].tolist(), tally.tolist(), strict=True):
        right, class_ = left + step, "won" if left > -step / 2 else "lost"
        place, width = x(left) + 1, x(right) - x(left) - 2
        about = f"{number(left, '+.4g')} to {number(right, '+.4g')}: {count:,} queries"
        bar = tag(
            "rect",
            tag("title", escape(about)),
            x=place,
            y=y(count),
            width=width,
            height=280.0 - y(count),
            class_=class_,
        )
        parts.append(bar)
    parts += [
        text("0" if value == 0 else number(value, "+.4g"), x(value), 294, anchor="middle", class_="tick")
        for value in x.ticks(9)
    ]
    parts.append(line(x.start, 280, x.end, 280, "axis-line"))
    parts.append(line(x(0.0), 70, x(0.0), 285, "zero"))
    middle = (x.start + x.end) / 2
    parts.append(
        text(f"difference of the query's NDCG@{cutoff}", middle, 316, anchor="middle", class_="axis")
    )
    return parts
