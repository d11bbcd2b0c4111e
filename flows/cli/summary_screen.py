"""The end of a run on the terminal: the summary, the verdict, what a search tried, where the files are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console

from flows.cli.table import print_line, print_table
from pipeline.core.paths import RunPaths
from pipeline.core.records import read_record
from pipeline.report.formatting import number
from pipeline.report.view import Column, SummaryView, summary_view

_MOST_TRIED: Final = 15


def show_summary(console: Console, root: Path) -> None:
    """Print a run's table, its verdict and where its files are."""
    run = RunPaths(root)
    view = summary_view(pl.read_parquet(run.summary))
    console.print()
    print_summary(console, view)
    console.print()
    print_sentences(console, view.sentences)
    for notice in _notices(root):
        print_line(console, f"note: {notice}", style="yellow")
    console.print()
    places = {
        "prepared sets": root / "prepared" / "<arm>",
        "selections": root / "selection" / "<arm>.parquet",
        "models": root / "models" / "<arm>.txt",
        "summary": run.summary,
        "what was done": run.manifest,
        "report": run.report,
    }
    for what, path in places.items():
        print_line(console, f"  {what:14} {path}", whole=True)


def print_summary(console: Console, view: SummaryView) -> None:
    """Print the table of a summary and what its marks mean."""
    if not view.arms:
        print_line(console, view.title)
        return
    deciding, *others = (column.name for column in reversed(view.columns) if column.name.startswith("@"))
    keep = ["arm", "share", deciding, "vs all", "p Holm", "vs random", *others, "train s", "rows"]
    shown = [column for column in view.columns if column.name in keep]
    columns = _starred(shown, [arm.recommended for arm in view.arms])
    styles = ["bold" if arm.recommended else "red" if arm.worse else "" for arm in view.arms]
    print_table(console, columns, title=view.title, styles=styles, keep=keep)
    for note in view.notes:
        print_line(console, f"  {note}", style="dim")


def print_sentences(console: Console, sentences: Sequence[str]) -> None:
    """Print a verdict, a sentence a line."""
    for sentence in sentences:
        print_line(console, sentence.replace("`", ""))


def show_search(console: Console, root: Path) -> None:
    """Print the arms that a search tried, those that came furthest first, and where the others are."""
    run = RunPaths(root)
    tried = pl.read_parquet(run.search)
    rungs = tried.select("rung", "trees").unique().sort("rung").rows()
    order = tried.with_row_index("place").group_by("arm").agg(pl.col("rung", "place", "kept", "rows").last())
    best = order.sort(pl.col("rung"), pl.col("place"), descending=[True, False])
    arms = best.head(_MOST_TRIED).to_dicts()
    ndcg = {(row["arm"], row["rung"]): number(row["ndcg_vali"]) for row in tried.to_dicts()}
    columns = [
        Column("arm", tuple(arm["arm"] for arm in arms), left=True),
        Column("rows", tuple("" if arm["rows"] is None else f"{arm['rows']:,}" for arm in arms)),
    ]
    columns += [
        Column(f"{trees:,}", tuple(ndcg.get((arm["arm"], rung), "") for arm in arms)) for rung, trees in rungs
    ]
    kept = [arm["kept"] for arm in arms]
    title = f"Validation NDCG of the {best.height:,} arms tried, after so many trees"
    keep = ["arm", *(f"{trees:,}" for _, trees in reversed(rungs))]
    styles = ["bold" if star else "" for star in kept]
    console.print()
    print_table(console, _starred(columns, kept), title=title, styles=styles, keep=keep)
    rest = best.height - _MOST_TRIED
    others = f"; {rest:,} more in {run.search}" if rest > 0 else ""
    print_line(console, f"  * trained with all trees{others}", style="dim", whole=True)


def _starred(columns: Sequence[Column], stars: Sequence[bool]) -> list[Column]:
    """Mark rows in the first column, so that nothing is said by colour alone."""
    first, *rest = columns
    cells = (("* " if star else "  ") + cell for star, cell in zip(stars, first.cells, strict=True))
    return [replace(first, cells=tuple(cells)), *rest]


def _notices(root: Path) -> list[str]:
    """Return what the run's report says a careful user should know."""
    report = read_record(root, "report")
    return [str(notice) for notice in report.parameters.get("notices", [])] if report else []
