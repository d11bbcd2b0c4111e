"""The summary as Markdown: what the flow shows in Prefect's interface."""

from pathlib import Path

import polars as pl

from pipeline.core.paths import RunPaths
from pipeline.report.view import SummaryView, summary_view


def summary(root: Path) -> str:
    """Return what the run in ``root`` found: sentences, then the table."""
    view = summary_view(pl.read_parquet(RunPaths(root).summary))
    return "\n\n".join([f"# {root.name}", " ".join(view.sentences), table(view)])


def table(view: SummaryView) -> str:
    """Return the arms as a Markdown table, the recommended one in bold."""
    names = ("arm", "rows", "share", "train s", f"@{view.cutoff}", "vs all", "p Holm", "vs random")
    columns = [column for name in names if (column := view.column(name))]
    lines = [[column.title for column in columns], ["---" if column.left else "---:" for column in columns]]
    for place, arm in enumerate(view.arms):
        name, *cells = (column.cells[place] for column in columns)
        lines.append([f"**{name}**" if arm.recommended else name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
