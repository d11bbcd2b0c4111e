"""The end of a run on the terminal: the summary table, the verdict, what a search tried, where the files are."""

from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from pipeline.core.paths import RunPaths
from pipeline.core.records import Manifest
from pipeline.evaluation.verdict import verdict
from pipeline.report.markdown import compared, figures, number


def summary_table(root: Path) -> tuple[Table, list[str]]:
    """Return a run's summary table and what it says in plain words."""
    summary = pl.read_parquet(RunPaths(root).summary)
    cutoffs = summary["cutoff"].unique().sort().to_list()
    cutoff = cutoffs[-1]
    rows = figures(summary, cutoff=cutoff).to_dicts()
    title = f"NDCG on the {rows[0]['queries']:,} test queries" if rows else "no test lists"
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    to_all, to_random = compared(rows, to="all"), compared(rows, to="random")
    heads = ["rows", "share", "train s", *(f"@{k}" for k in cutoffs)]
    for head in heads + ["vs all", "p Holm"] * to_all + ["vs random"] * to_random:
        table.add_column(head, justify="right", no_wrap=True)
    at = {(r["arm"], r["cutoff"]): r["ndcg"] for r in summary.filter(pl.col("split") == "test").to_dicts()}
    for row in rows:
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        style = "bold" if row["recommended"] else ("red" if sure and row["delta"] < 0 else "")
        table.add_row(
            ("* " if row["recommended"] else "  ") + row["arm"], f"{row['rows']:,}", f"{row['rows_fraction']:.1%}",
            number(row["train_seconds"], ".1f"), *(number(at[row["arm"], k]) for k in cutoffs),
            *[number(row["delta"], "+z.4f"), number(row["p_holm"], ".3f")] * to_all,
            *[number(row["delta_random"], "+z.4f")] * to_random,
            style=style,
        )  # fmt: skip
    return table, verdict(summary, cutoff=cutoff)


_MOST_TRIED = 15


def search_table(root: Path) -> tuple[Table, str]:
    """Return the arms that a search tried, those that came furthest first, and where the others are."""
    layout = RunPaths(root)
    tried = pl.read_parquet(layout.search)
    rungs = tried.select("rung", "trees").unique().sort("rung").rows()
    order = tried.with_row_index("place").group_by("arm").agg(pl.col("rung", "place", "kept", "rows").last())
    best = order.sort(pl.col("rung"), pl.col("place"), descending=[True, False])
    title = f"Validation NDCG of the {best.height:,} arms tried, after so many trees"
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for head in ("rows", *(f"{trees:,}" for _, trees in rungs)):
        table.add_column(head, justify="right", no_wrap=True)
    at = {(row["arm"], row["rung"]): row["ndcg_vali"] for row in tried.to_dicts()}
    for row in best.head(_MOST_TRIED).to_dicts():
        kept = row["kept"]
        table.add_row(
            ("* " if kept else "  ") + row["arm"], "" if row["rows"] is None else f"{row['rows']:,}",
            *(number(at.get((row["arm"], rung)), ".4f") if (row["arm"], rung) in at else "" for rung, _ in rungs),
            style="bold" if kept else "",
        )  # fmt: skip
    rest = best.height - _MOST_TRIED
    others = f"; {rest:,} more in {layout.search}" if rest > 0 else ""
    return table, f"  * trained with all trees{others}"


def show_search(console: Console, root: Path) -> None:
    """Print what a search tried."""
    table, note = search_table(root)
    console.print()
    console.print(table)
    console.print(note, highlight=False, soft_wrap=True, style="dim")


def _notices(root: Path) -> list[str]:
    """Return what the run's report says a careful user should know."""
    report = Manifest(RunPaths(root).manifest).steps().get("report", {})
    return [str(notice) for notice in report.get("parameters", {}).get("notices", [])]


def show_summary(console: Console, root: Path) -> None:
    """Print a run's table, its verdict and where its files are."""
    table, sentences = summary_table(root)
    console.print()
    console.print(table)
    chosen = any(cell.startswith("* ") for cell in table.columns[0].cells if isinstance(cell, str))
    console.print("  * recommended, chosen on the validation lists\n" if chosen else "", style="dim")
    for sentence in sentences:
        console.print(sentence.replace("`", ""), highlight=False)
    for notice in _notices(root):
        console.print(f"note: {notice}", highlight=False, style="yellow")
    console.print()
    layout = RunPaths(root)
    for what, path in (
        ("prepared sets", "prepared/<arm>/"), ("selections", "selection/<arm>.parquet"), ("models", "models/<arm>.txt"),
        ("summary", layout.summary.name), ("what was done", layout.manifest.name), ("report", layout.report.name),
    ):  # fmt: skip
        console.print(f"  {what:14} {root / path}", highlight=False, soft_wrap=True)
