"""Fan-out, failures and Ctrl-C, written once for both ways to run stages: in threads here, or as Prefect's tasks."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol, Self, TypeVar

from pipeline.core.errors import TrainingError
from pipeline.ranker import processes
from pipeline.run.events import Progress

MAX_SLOTS: Final = 4
"""Stages at a time, at most. Trainings side by side use the processors best: a small one does not fill two. Beyond
a few, memory counts for more."""
_POLL_SECONDS: Final = 0.5  # an unlimited wait may sleep through Ctrl-C
Item = TypeVar("Item")


class Runner(Protocol):
    """Runs stages side by side."""

    def submit(self, stage: Callable[..., Any], arguments: Sequence[Any], wait_for: Sequence[Any]) -> Any:
        """Run a stage once others are done; returns a future with ``add_done_callback`` and ``result``."""

    def error(self, future: Any) -> BaseException | None:
        """Return the error of a future that is done."""


class ThreadRunner:
    """Runs stages in threads of this process; each training is a process of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_SLOTS, thread_name_prefix="stage")

    def submit(
        self, stage: Callable[..., Any], arguments: Sequence[Any], wait_for: Sequence["Future[Any]"]
    ) -> "Future[Any]":
        """Run a stage once others, submitted before, are done; their errors are its errors."""

        def after() -> Any:
            for future in wait_for:
                future.result()
            return stage(*arguments)

        return self._pool.submit(after)

    def error(self, future: "Future[Any]") -> BaseException | None:
        """Return the error of a future that is done."""
        return future.exception()


class Submitted:
    """A stage that was submitted.

    Attributes:
        future: The runner's.
        optional: Whether the run goes on when LightGBM fails on it.
        done: Set when it has ended.
    """

    def __init__(self, future: Any, *, optional: bool) -> None:
        self.future, self.optional, self.done = future, optional, threading.Event()


class Executor:
    """Submits stages to a runner, no more at a time than there are slots; used as a context manager.

    When a stage fails, or Ctrl-C is pressed, nothing more is submitted and the trainings under way are ended.

    Args:
        runner: Runs the stages.
        threads: Threads in all; each stage is given its share.
        progress: Given to each stage.
    """

    def __init__(self, runner: Runner, threads: int, progress: Progress) -> None:
        self.progress, self._runner, self._threads = progress, runner, threads
        self._count = min(threads, MAX_SLOTS)
        self._slots = threading.Semaphore(self._count)
        self._submitted: list[Submitted] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while kind is not None and not all(one.done.is_set() for one in self._submitted):
            processes.end_all()  # again: a training may just be about to start
            time.sleep(0.05)

    def run(self, stage: Callable[..., Any], *arguments: Any) -> Any:
        """Run one stage alone, with all threads, and return what it returns."""
        one = self._submit(stage, arguments, self._threads, [], optional=False)
        self.wait()
        return one.future.result()

    def each(
        self,
        stage: Callable[..., Any],
        items: Sequence[Sequence[Any]],
        *,
        wait_for: Sequence[Submitted] = (),
        optional: bool = False,
    ) -> list[Submitted]:
        """Submit a stage for each item, its first arguments; with ``wait_for`` each waits for its own stage.

        Args:
            stage: The stage.
            items: Arguments but for threads and progress.
            wait_for: What each item waits for, submitted before; empty: nothing.
            optional: Whether the run goes on when LightGBM fails on one.
        """
        threads = self._threads // min(self._count, max(len(items), 1))
        waits = [[one] for one in wait_for] or [[] for _ in items]
        return [
            self._submit(stage, item, threads, wait, optional=optional)
            for item, wait in zip(items, waits, strict=True)
        ]

    def errors(self, submitted: Mapping[Item, Submitted]) -> dict[Item, TrainingError]:
        """Wait for all that was submitted; return what LightGBM failed on, of optional stages.

        Raises:
            Exception: The first error of any other kind.
        """
        self.wait()
        found = {item: self._runner.error(one.future) for item, one in submitted.items()}
        return {item: error for item, error in found.items() if isinstance(error, TrainingError)}

    def wait(self) -> None:
        """Wait for all that was submitted; raises the first error that ends the run."""
        for one in self._submitted:
            while not one.done.wait(_POLL_SECONDS):
                self._raise_failed()
        self._raise_failed()

    def _submit(
        self,
        stage: Callable[..., Any],
        arguments: Sequence[Any],
        threads: int,
        wait_for: Sequence[Submitted],
        *,
        optional: bool,
    ) -> Submitted:
        while not self._slots.acquire(timeout=_POLL_SECONDS):
            self._raise_failed()
        self._raise_failed()
        given = [*arguments, threads, self.progress]
        future = self._runner.submit(stage, given, [before.future for before in wait_for])
        one = Submitted(future, optional=optional)
        self._submitted.append(one)

        def ended(_: Any) -> None:
            one.done.set()
            self._slots.release()

        future.add_done_callback(ended)
        return one

    def _raise_failed(self) -> None:
        """Raise the error of a stage that ends the run."""
        for one in self._submitted:
            error = self._runner.error(one.future) if one.done.is_set() else None
            if error is not None and not (one.optional and isinstance(error, TrainingError)):
                raise error
