"""What happens in a run, as small events that may cross processes: whoever shows a run reads them from a file."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """Something a display of the run may show.

    Attributes:
        step: The step's name, such as ``fold-1/model/top-20``; for ``ahead`` what the work to come is called.
        state: ``start``; ``advance``; ``done`` or ``kept`` (an earlier run's result is still good); ``ahead`` where
            it becomes known how much there is to do; ``wait`` and ``ready`` around what takes time and is no step.
        amount: Work done since the step's last event, or ahead: row-trees (training) or bytes (reading).
        rankers: For ``ahead``: how many steps train.
    """

    step: str
    state: str
    amount: float = 0.0
    rankers: int = 0


Progress = Callable[[Event], None]


@dataclass(frozen=True)
class EventFile:
    """Appends events to a file, a line each; a value that can be sent to other processes.

    A run without anyone who reads the file does the same work, so a file that cannot be written is no error.
    """

    path: Path

    def __call__(self, event: Event) -> None:
        """Append one event."""
        line = json.dumps({**asdict(event), "time": time.time()}) + "\n"
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Begin with an empty file, and remove it when the block ends."""
        self._remove()
        try:
            yield
        finally:
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Task:
    """What the work of a step is given.

    Attributes:
        step: The step's name.
        out: A path for each output, to write there.
        threads: Threads to work with.
        progress: Told of what is done.
    """

    step: str
    out: Sequence[Path]
    threads: int
    progress: Progress

    def advance(self, amount: float) -> None:
        """Tell of work done since the last call."""
        self.progress(Event(self.step, "advance", amount))

    def trees_done(self, rows: float) -> Callable[[int], None]:
        """Return a function that takes the number of trees so far and tells of them, each of so many rows."""
        told = 0

        def tell(trees: int) -> None:
            nonlocal told
            self.advance(rows * (trees - told))
            told = trees

        return tell

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say that the block takes time and is no step."""
        self.progress(Event(what, "wait"))
        yield
        self.progress(Event(what, "ready"))
