"""The report for a browser."""

from pathlib import Path
from typing import Any

import polars as pl


def run(summary: Path, metrics: Path, out: Path, *, dataset: dict[str, Any], config: dict[str, Any], notices: list[str]) -> dict[str, Any]:
    """Write ``report.html``."""
    out.write_text(pl.read_parquet(summary)._repr_html_(), encoding="utf-8")
    return {}
