"""What a run found, for people: a Markdown table and a page for the browser."""

from pipeline.report.html import run

__all__ = ["run"]
