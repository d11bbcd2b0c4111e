"""The summary as Markdown: what the flow shows in Prefect's interface."""

from pathlib import Path

import polars as pl

from pipeline.verdict import verdict
from pipeline.layout import RunLayout


def figures(summary: pl.DataFrame, *, cutoff: int, split: str = "test") -> pl.DataFrame:
    """Return SUMMARY's rows of one split and cutoff, in panel order."""
    return summary.filter(pl.col("split") == split, pl.col("cutoff") == cutoff)


def number(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a missing one is a dash."""
    return "–" if value is None else format(value, form)


def table(summary: pl.DataFrame, *, cutoff: int) -> str:
    """Return the arms as a Markdown table."""
    head = ["arm", "rows", "share", "training s", f"NDCG@{cutoff}", "difference to `all`", "p (Holm)", "to `random`"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += [
        f"| {'**' + row['arm'] + '**' if row['recommended'] else row['arm']} | {row['rows']:,} "
        f"| {row['rows_fraction']:.1%} | {number(row['train_seconds'], '.1f')} | {number(row['ndcg'])} "
        f"| {number(row['delta'], '+.4f')} | {number(row['p_holm'], '.3f')} | {number(row['delta_random'], '+.4f')} |"
        for row in figures(summary, cutoff=cutoff).to_dicts()
    ]
    return "\n".join(lines)


def summary(root: Path) -> str:
    """Return what a run found: sentences, then the table.

    Args:
        root: The run's directory.
    """
    frame = pl.read_parquet(RunLayout(root).summary)
    cutoff = int(frame["cutoff"].max() or 10)  # type: ignore[arg-type]
    sentences = verdict(frame, cutoff=cutoff)
    return "\n\n".join([f"# {root.name}", " ".join(sentences), table(frame, cutoff=cutoff)])
