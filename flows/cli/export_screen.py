"""What `ranksieve export` shows: how far it is, and what it wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.core.records import Facts


def show_export(console: Console, out: Path, facts: Facts) -> None:
    """Print what :func:`pipeline.export.formats.run` wrote."""
    rows = ", ".join(f"{split} {count:,} rows" for split, count in facts["rows"].items())
    for line in (
        f"{facts['arm']} as {facts['format']}: {out}",
        f"  files  {', '.join(facts['files'])}",
        f"  holds  {rows}",
        *(f"notice: {notice}" for notice in facts["notices"]),
    ):
        console.print(escape(line), highlight=False, soft_wrap=True)


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the work done since the last call; a terminal shows the count."""
    bars = Progress(
        SpinnerColumn(), TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bars:
        task = bars.add_task(what, total=None)
        yield lambda done: bars.advance(task, done)
