"""What `ranksieve export` and `ranksieve generate` show: how far they are, and what they wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import progress
from rich.console import Console

from flows.cli.table import print_line
from pipeline.core.records import Facts


@contextmanager
def counting(console: Console, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the work done since the last call; a terminal shows it, as a bar of a total."""
    left: list[progress.ProgressColumn] = [progress.SpinnerColumn()]
    right: list[progress.ProgressColumn] = []
    if total is not None:
        percent = progress.TextColumn("{task.percentage:>3.0f} %")
        left = [progress.TextColumn("generating"), progress.BarColumn(bar_width=30), percent]
        right = [progress.TextColumn("left"), progress.TimeRemainingColumn()]
    count = progress.TextColumn("{task.completed:,.0f} {task.description}")
    columns = [*left, count, progress.TimeElapsedColumn(), *right]
    with progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.advance(task, done)


def show_export(console: Console, out: Path, facts: Facts) -> None:
    """Print what :func:`pipeline.export.formats.run` wrote."""
    rows = ", ".join(f"{split} {count:,} rows" for split, count in facts["rows"].items())
    print_line(console, f"{facts['arm']} as {facts['format']}: {out}", whole=True)
    print_line(console, f"  files  {', '.join(facts['files'])}", whole=True)
    print_line(console, f"  holds  {rows}", whole=True)
    for notice in facts["notices"]:
        print_line(console, f"notice: {notice}", whole=True)


def show_generated(console: Console, out: Path, facts: Facts) -> None:
    """Print what :func:`pipeline.synthetic.generate.run` wrote."""
    total, queries = sum(facts["rows"].values()), facts["queries"]
    labels = ", ".join(f"{label}: {count / total:.1%}" for label, count in enumerate(facts["labels"]))
    splits = (f"{name} {rows:,} rows of {queries[name]:,} queries" for name, rows in facts["rows"].items())
    shape = f"{facts['preset']} (seed {facts['seed']}, {facts['features']} features)"
    print_line(console, f"{shape}: {out}", whole=True)
    print_line(console, f"  files   {', '.join(facts['files'])}", whole=True)
    print_line(console, f"  holds   {', '.join(splits)}", whole=True)
    print_line(console, f"  labels  {labels}", whole=True)
