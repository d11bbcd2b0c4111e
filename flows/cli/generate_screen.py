"""What `ranksieve generate` shows: how far it is, and what it wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress(console: Console, total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the work done since the last call; a terminal shows a bar."""
    bars = Progress(
        TextColumn("generating"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.advance(task, done)


def show_generated(console: Console, out: Path, facts: dict[str, Any]) -> None:
    """Print what :func:`pipeline.synthetic.generate.run` wrote."""
    total = sum(facts["rows"].values())
    shares = ", ".join(f"{label}: {count / total:.1%}" for label, count in enumerate(facts["labels"]))
    splits = ", ".join(
        f"{split} {rows:,} rows of {facts['queries'][split]:,} queries"
        for split, rows in facts["rows"].items()
    )
    for line in (
        f"{facts['preset']} (seed {facts['seed']}, {facts['features']} features): {out}",
        f"  files   {', '.join(facts['files'])}",
        f"  holds   {splits}",
        f"  labels  {shares}",
    ):
        console.print(escape(line), highlight=False, soft_wrap=True)
