"""SUMMARY as people read it: columns and formatted figures, of which each renderer shows what it has room for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.core.records import Facts
from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.verdict import verdict
from pipeline.report.formatting import interval, number, p_value

Row = Facts
"""A row of SUMMARY."""


@dataclass(frozen=True)
class Column:
    """Formatted cells under a head: ``name`` where room is short (it is unique), else ``title``."""

    name: str
    cells: tuple[str, ...]
    title: str = ""
    left: bool = False


@dataclass(frozen=True)
class ArmFlags:
    """What a renderer may stress in an arm's row."""

    recommended: bool
    significant: bool  # against `all`, Holm-adjusted
    worse: bool  # significantly


@dataclass(frozen=True)
class SummaryView:
    """The arms' figures on one split, ready to print; differences that no arm has are left out."""

    title: str
    cutoff: int
    columns: tuple[Column, ...]
    arms: tuple[ArmFlags, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]

    def column(self, name: str) -> Column | None:
        """Return a column; None when there are no such figures."""
        return next((column for column in self.columns if column.name == name), None)


def summary_view(summary: pl.DataFrame, *, split: str = "test") -> SummaryView:
    """Return the table of one split, the verdict's sentences, and what the table's marks mean."""
    cutoff = deciding_cutoff(summary)
    rows = figures(summary, cutoff=cutoff, split=split)
    arms = []
    for row in rows:
        sure = significant(row)
        arms.append(ArmFlags(bool(row["recommended"]), sure, worse=sure and (row["delta"] or 0) < 0))
    chosen = any(arm.recommended for arm in arms)
    return SummaryView(
        title=f"NDCG on the {rows[0]['queries']:,} {split} queries" if rows else f"no {split} lists",
        cutoff=cutoff,
        columns=tuple(_columns(rows, summary, split)),
        arms=tuple(arms),
        sentences=tuple(verdict(summary, cutoff=cutoff)),
        notes=("* recommended, chosen on the validation lists",) if chosen else (),
    )


def figures(summary: pl.DataFrame, *, cutoff: int, split: str = "test") -> list[Row]:
    """Return SUMMARY's rows of one split and cutoff, in panel order."""
    return summary.filter(split=split, cutoff=cutoff).to_dicts()


def deciding_cutoff(summary: pl.DataFrame) -> int:
    """Return the cutoff that decides: the largest in the table, or 10 when it is empty."""
    return max(summary["cutoff"].to_list(), default=10)


def significant(row: Row) -> bool:
    """Return whether an arm's difference to `all` has a Holm-adjusted p below :data:`ALPHA`."""
    return row["p_holm"] is not None and row["p_holm"] < ALPHA


def _columns(rows: Sequence[Row], summary: pl.DataFrame, split: str) -> list[Column]:
    def column(name: str, cell: Callable[[Row], str], title: str = "", *, left: bool = False) -> Column:
        return Column(name, tuple(cell(row) for row in rows), title or name, left)

    ndcg = {(arm, k): v for arm, k, v in summary.filter(split=split)["arm", "cutoff", "ndcg"].iter_rows()}
    columns = [
        column("arm", lambda row: row["arm"], left=True),
        column("rows", lambda row: f"{row['rows']:,}"),
        column("share", lambda row: f"{row['rows_fraction']:.1%}"),
        column("negatives", lambda row: f"{row['negatives_fraction']:.1%}", "negatives kept"),
        column("train s", lambda row: number(row["train_seconds"], ",.1f"), "training s"),
    ]
    columns += [
        Column(f"@{k}", tuple(number(ndcg.get((row["arm"], k))) for row in rows), f"NDCG @{k}")
        for k in summary["cutoff"].unique().sort()
    ]
    if any(row["delta"] is not None for row in rows):
        columns += [
            column("vs all", lambda row: number(row["delta"], "+z.4f"), "to all"),
            column("interval", lambda row: interval(row["delta_low"], row["delta_high"]), "95 % interval"),
            column("p Holm", lambda row: p_value(row["p_holm"]), "Holm\u00a0p"),
            column("p", lambda row: p_value(row["p"]), "plain p"),
        ]
    if any(row["delta_random"] is not None for row in rows):
        columns += [
            column("vs random", lambda row: number(row["delta_random"], "+z.4f"), "to random"),
            column("p random", lambda row: p_value(row["p_random"]), "plain p"),
        ]
    return columns
