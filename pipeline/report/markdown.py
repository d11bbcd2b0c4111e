"""The summary as Markdown: what the flow shows in Prefect's interface."""

from pathlib import Path

import polars as pl

from pipeline.layout import RunLayout
from pipeline.report.wording import deciding, figures, number, p_value
from pipeline.verdict import verdict

__all__ = ["figures", "number", "summary", "table"]


def table(summary: pl.DataFrame, *, cutoff: int) -> str:
    """Return the arms as a Markdown table."""
    head = [
        "arm",
        "rows",
        "share",
        "training s",
        f"NDCG@{cutoff}",
        "difference to `all`",
        "p (Holm)",
        "to `random`",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += [
        f"| {'**' + row['arm'] + '**' if row['recommended'] else row['arm']} | {row['rows']:,} "
        f"| {row['rows_fraction']:.1%} | {number(row['train_seconds'], '.1f')} | {number(row['ndcg'])} "
        f"| {number(row['delta'], '+z.4f')} | {p_value(row['p_holm'])} "
        f"| {number(row['delta_random'], '+z.4f')} |"
        for row in figures(summary, cutoff=cutoff).to_dicts()
    ]
    return "\n".join(lines)


def summary(root: Path) -> str:
    """Return what a run found: sentences, then the table.

    Args:
        root: The run's directory.
    """
    frame = pl.read_parquet(RunLayout(root).summary)
    cutoff = deciding(frame)
    sentences = verdict(frame, cutoff=cutoff)
    return "\n\n".join([f"# {root.name}", " ".join(sentences), table(frame, cutoff=cutoff)])
