"""The summary as Markdown: what the flow shows in Prefect's interface."""

from pathlib import Path

import polars as pl

from pipeline.core.paths import RunPaths
from pipeline.evaluation.verdict import verdict
from pipeline.report.formatting import compared, deciding, figures, number, p_value

__all__ = ["compared", "figures", "number", "summary", "table"]


def table(summary: pl.DataFrame, *, cutoff: int) -> str:
    """Return the arms as a Markdown table; without columns of differences that no arm has."""
    rows = figures(summary, cutoff=cutoff).to_dicts()
    to_all, to_random = compared(rows, to="all"), compared(rows, to="random")
    head = ["arm", "rows", "share", "training s", f"NDCG@{cutoff}"]
    head += ["difference to `all`", "p (Holm)"] * to_all + ["to `random`"] * to_random
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        cells = [
            f"**{row['arm']}**" if row["recommended"] else row["arm"], f"{row['rows']:,}",
            f"{row['rows_fraction']:.1%}", number(row["train_seconds"], ".1f"), number(row["ndcg"]),
        ]  # fmt: skip
        cells += [number(row["delta"], "+z.4f"), p_value(row["p_holm"])] * to_all
        cells += [number(row["delta_random"], "+z.4f")] * to_random
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(root: Path) -> str:
    """Return what a run found: sentences, then the table.

    Args:
        root: The run's directory.
    """
    frame = pl.read_parquet(RunPaths(root).summary)
    cutoff = deciding(frame)
    sentences = verdict(frame, cutoff=cutoff)
    return "\n\n".join([f"# {root.name}", " ".join(sentences), table(frame, cutoff=cutoff)])
