"""How far a run is: bars on a terminal, now and then a line in a log."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pipeline.run.events import Event

_LOG_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1


def _columns() -> list[ProgressColumn]:
    """Return what a bar shows; on a narrow screen the steps at work give way, and never the times."""
    whole = [Column(no_wrap=True, min_width=width) for width in (9, 5, 10, 7, 4, 7)]
    return [
        TextColumn("{task.description}", table_column=whole[0]),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.percentage:>3.0f} %", table_column=whole[1]),
        TextColumn("{task.fields[count]}", table_column=whole[2]),
        TimeElapsedColumn(table_column=whole[3]),
        TextColumn("left", table_column=whole[4]),
        TimeRemainingColumn(table_column=whole[5]),
        TextColumn(
            "[dim]{task.fields[now]}", table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis")
        ),
    ]


class ProgressDisplay:
    """Shows the events of a run.

    Work is counted in bytes while reading and in row-trees while training, so that the time left is that of the work
    and not of the number of steps.

    Args:
        console: Where to show it.
        reading: Bytes to read; None: there is nothing to read.
    """

    def __init__(self, console: Console, reading: float | None = None) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._what, self._total = "reading", reading
        self._steps = self._rankers = 0
        self._work = 0.0
        self._advanced: dict[str, float] = {}
        self._active: dict[str, None] = {}
        self._began = self._shown = time.monotonic()
        self._bars = Progress(*_columns(), console=console, transient=True, expand=True)
        self._task = self._bars.add_task(self._what, total=reading, count="", now="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            if event.state == "ahead":
                self._begin(event)
            elif event.state == "start":
                self._active[event.step] = None
            elif event.state == "wait":
                self._active = {event.step: None, **self._active}
                self._shown = -inf  # shown at once
            elif event.state == "advance":
                self._advanced[event.step] = self._advanced.get(event.step, 0.0) + event.amount
                self._work += event.amount
            else:
                self._finish(event)
            self._show()

    def _finish(self, event: Event) -> None:
        self._active.pop(event.step, None)
        if event.amount:
            self._steps += 1
            self._work += event.amount - self._advanced.get(event.step, 0.0)

    def _begin(self, ahead: Event) -> None:
        """Count from nothing up to the work to come."""
        self._what, self._total, self._rankers = ahead.step, ahead.amount, ahead.rankers
        self._work, self._steps = 0.0, 0
        self._bars.reset(self._task, total=ahead.amount, description=ahead.step)

    def _show(self) -> None:
        now = ", ".join(list(self._active)[:2])
        count = f"{self._steps}/{self._rankers} rankers" if self._rankers else ""
        self._bars.update(self._task, completed=self._work, count=count, now=now)
        if not self._console.is_terminal and time.monotonic() - self._shown > _LOG_SECONDS:
            self._shown = time.monotonic()
            share = f"{min(self._work / self._total, 1):.0%}" if count and self._total else ""
            spent = f"{self._shown - self._began:6.0f} s"
            line = "  ".join(
                [f"{spent}  {self._what}{':' if count else ''}", *filter(None, [share, count]), now]
            )
            self._console.print(line, highlight=False)


@contextlib.contextmanager
def follow(file: Path, display: ProgressDisplay) -> Iterator[None]:
    """Show the events that are appended to a file while the block runs."""
    stop, began = threading.Event(), time.time()

    def read() -> None:
        place = 0
        while not stop.wait(_POLL_SECONDS):
            place = _show_new(file, place, began, display)

    thread = threading.Thread(target=read, daemon=True)
    with display:
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _show_new(file: Path, place: int, since: float, display: ProgressDisplay) -> int:
    """Show the whole lines behind a place in the file; return the place behind them."""
    names = {field.name for field in fields(Event)}
    with contextlib.suppress(OSError):
        if file.stat().st_size < place:
            place = 0
        with file.open("rb") as stream:
            stream.seek(place)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                place += len(line)
                event = json.loads(line)
                if event["time"] >= since:
                    display(Event(**{name: event[name] for name in names}))
    return place
