"""What a person sees of a job as it goes: progress with counts and time left."""

import threading
import time
from math import inf
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.run.job import Job
from pipeline.run.plan import Ahead, Event

_QUIET_SECONDS = 15.0


class Watch:
    """Shows a job's progress: bars on a terminal, now and then a line in a log.

    Work is counted in bytes while reading and in row-trees while training, so that the time left is that of
    the work and not of the number of steps.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._what = "reading"
        self._steps = self._of_steps = 0
        self._training: float | None = None
        self._work = 0.0
        self._advanced: dict[str, float] = {}
        self._active: dict[str, None] = {}
        self._began = self._said = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[count]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bars.add_task("reading", total=None, count="", now="")

    def of(self, job: Job) -> None:
        """Say whose steps are watched."""
        self._job = job
        total = sum(file.stat().st_size for file in job.source.files) if job.has_source else None
        self._bars.update(self._task, total=total)

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
        """Take one event; called from the threads that run steps."""
        with self._lock:
            if event.ahead is not None:
                self._begin(event.ahead)
            elif event.state == "start":
                self._active[event.step] = None
            elif event.state == "wait":
                self._active = {event.step: None, **self._active}
                self._said = -inf  # told at once
            elif event.state == "advance":
                self._advance(event.step, event.done)
            else:
                self._active.pop(event.step, None)
                self._finish(event)
            self._show()

    def _advance(self, step: str, work: float) -> None:
        self._advanced[step] = self._advanced.get(step, 0.0) + work
        self._work += work

    def _finish(self, event: Event) -> None:
        if event.step == "ingest" and self._job is not None:
            self._begin(self._job.ahead())
        elif event.done:
            self._steps += 1
            self._work += event.done - self._advanced.get(event.step, 0.0)

    def _begin(self, ahead: Ahead) -> None:
        """Count from nothing up to the trainings to come."""
        self._training, self._of_steps = ahead.work, ahead.rankers
        self._what, self._work, self._steps = ahead.what, 0.0, 0
        self._bars.reset(self._task, total=ahead.work, description=ahead.what)

    def _show(self) -> None:
        now = ", ".join(list(self._active)[:2])
        count = f"{self._steps}/{self._of_steps} rankers" if self._of_steps else ""
        self._bars.update(self._task, completed=self._work, count=count, now=now)
        if not self._console.is_terminal and time.monotonic() - self._said > _QUIET_SECONDS:
            self._said = time.monotonic()
            share = f"{min(self._work / self._training, 1):.0%}, " if self._training else ""
            spent = self._said - self._began
            said = f"{self._what}: {share}{count}" if count else self._what
            self._console.print(f"{spent:6.0f} s  {said}  {now}", highlight=False)
