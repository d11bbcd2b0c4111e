"""A table on the terminal whose rows never wrap: columns that do not fit are named below it instead."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from pipeline.report.view import Column

_GAP: Final = 2


def print_table(
    console: Console,
    columns: Sequence[Column],
    *,
    title: str,
    styles: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print columns side by side under a title, each row in its style.

    Without room for all, the columns named in ``keep`` stay longest, in that order, and then the others; the
    first column always stays, folded when it alone is wider than the screen.
    """
    shown = _fitting(columns, keep, console.width)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(shown):
        justify: JustifyMethod = "left" if column.left else "right"
        table.add_column(Text(column.name), justify=justify, no_wrap=place > 0, overflow="fold")
    for place in range(len(columns[0].cells)):
        cells = (Text(column.cells[place]) for column in shown)
        table.add_row(*cells, style=styles[place] if styles else None)
    print_line(console, title, style="bold", whole=True)
    console.print(table)
    if left_out := [column.name for column in columns if column not in shown]:
        print_line(console, f"not shown at this width: {listed(left_out)}", style="dim")


def print_line(console: Console, text: str, *, style: str | None = None, whole: bool = False) -> None:
    """Print text as it is, wrapped at words; ``whole``: on one line, so that a path can be copied."""
    console.print(Text(text), style=style, soft_wrap=whole)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Join the first names and count the rest."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _fitting(columns: Sequence[Column], keep: Sequence[str], room: int) -> list[Column]:
    """Return the columns that fit side by side, in order: the first one, then each that still has room."""
    first, *rest = columns
    rank = {name: place for place, name in enumerate(keep)}
    room -= _width(first)
    chosen = {first.name}
    for column in sorted(rest, key=lambda column: rank.get(column.name, len(rank))):
        if _width(column) + _GAP <= room:
            room -= _width(column) + _GAP
            chosen.add(column.name)
    return [column for column in columns if column.name in chosen]


def _width(column: Column) -> int:
    return max(map(cell_len, (column.name, *column.cells)))
