"""Child processes: a job goes in on standard input, events come out on standard output, a JSON line each.

LightGBM can take its process down; here that costs a training and not the run. A child ends when its parent
does, and the parent can end the children it has. Inside :func:`reused` a child does several jobs.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from queue import Queue
from typing import IO, Any, Final

from pipeline.core.errors import StorageError, TrainingError
from pipeline.core.files import forget_peak_memory, peak_memory_mb

TreesDone = Callable[[int], None]

_UNDER_WAY: Final[set["_Child"]] = set()
_WAITING: Final[list["_Child"]] = []
_SMALL_MB: Final = 1_000
"""A child waits for another job only if it never held more: a large one gives its memory back."""
_lock = threading.Lock()
_blocks = 0


@contextlib.contextmanager
def reused() -> Iterator[None]:
    """Let the children of this block do one job after the other: to start one takes about a second."""
    global _blocks
    with _lock:
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            left = [] if _blocks else list(_WAITING)
            _WAITING[:] = _WAITING[len(left) :]
        for one in left:
            one.end()


def run(
    module: str, job: Mapping[str, Any], *, threads: int, what: str, trees_done: TreesDone | None = None
) -> dict[str, Any]:
    """Have ``python -m module``, which calls :func:`serve`, do a job; returns its answer.

    Args:
        module: The module to run.
        job: JSON values.
        threads: Threads of each thing it does at a time.
        what: What it does, such as ``training the ranker``, for error messages.
        trees_done: Told the number of trees so far.

    Raises:
        TrainingError: The child failed or died.
        StorageError: It could not read or write a file.
    """
    child = _child(module, threads)
    answer: dict[str, Any] = {}
    try:
        answer = child.ask(job, trees_done)
    finally:
        code, last = _release(child, answer)
    if "error" in answer:
        kind = StorageError if answer.get("storage") else TrainingError
        raise kind(f"{what}: {answer['error']}")
    if not answer:
        raise TrainingError(f"{what}: {_death(code, last)}")
    return answer


def end_all() -> None:
    """Kill the children at work, for a run that ends before they do."""
    with _lock:
        children = list(_UNDER_WAY)
    for child in children:
        child.kill()


def _child(module: str, threads: int) -> "_Child":
    """Return a child that has no job: one that waits for it, or a new one."""
    with _lock:
        useless = [one for one in _WAITING if not one.is_alive]
        alive = [one for one in _WAITING if one not in useless]
        found = next((one for one in alive if (one.module, one.threads) == (module, threads)), None)
        if found is None:  # one of another kind makes room: there are never more than jobs at a time
            useless += alive[:1]
        else:
            _UNDER_WAY.add(found)
        _WAITING[:] = [one for one in alive if one is not found and one not in useless]
    for one in useless:  # first, for its memory, and because it may be that no other can be started
        one.end()
    return found or _start(module, threads)


def _start(module: str, threads: int) -> "_Child":
    with _lock:  # or it might miss that all are killed
        child = _Child(module, threads)
        _UNDER_WAY.add(child)
    return child


def _release(child: "_Child", answer: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Let a child wait for another job, or end it; returns its exit code and its last words."""
    good = bool(answer) and "error" not in answer and child.peak_memory_mb < _SMALL_MB
    with _lock:
        _UNDER_WAY.discard(child)
        if good and _blocks:
            _WAITING.append(child)
            return 0, []
    if not answer:
        child.kill()
    return child.end()


class _Child:
    """A process that does jobs.

    Args:
        module: The module to run.
        threads: Its threads.
    """

    def __init__(self, module: str, threads: int) -> None:
        self.module, self.threads, self.peak_memory_mb = module, threads, 0
        environment = {
            # Threads that wait would spin, which slows whatever else runs beside a training, and so the training.
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "POLARS_MAX_THREADS": str(threads),
            # Arrow's own pool keeps what it once had; the system's gives it back.
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
            start_new_session=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._tail: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(
            target=lambda: self._tail.extend(self._process.stderr or ()), daemon=True
        )
        self._reader.start()

    def ask(self, job: Mapping[str, Any], trees_done: TreesDone | None) -> dict[str, Any]:
        """Return the answer to a job, or nothing where the child dies."""
        _hand_over(self._process.stdin, job)
        for event in _events(self._process.stdout):
            if "trees_done" not in event:
                self.peak_memory_mb = event.pop("child_memory_mb", 0)
                return event
            if trees_done:
                trees_done(event["trees_done"])
        return {}

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def end(self) -> tuple[int, list[str]]:
        """Let it end, and wait until it has; returns its exit code and its last words."""
        with self._process:  # closes its input, which ends it
            with contextlib.suppress(BrokenPipeError):
                if self._process.stdin:
                    self._process.stdin.close()
            # Leaving the block closes the pipes; nobody may read from them then.
            self._reader.join()
        return self._process.returncode, list(self._tail)


def _hand_over(stream: IO[str] | None, job: Mapping[str, Any]) -> None:
    """Give the child its job; one that is already dead is told by its exit code."""
    if stream is None:
        return
    try:
        stream.write(json.dumps(job) + "\n")
        stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(BrokenPipeError):  # closing tries to write the rest
            stream.close()


def _events(stream: IO[str] | None) -> Iterator[dict[str, Any]]:
    """Yield the child's events; lines that are none (LightGBM's or a driver's own) are passed over."""
    for line in stream or ():
        if line.startswith('{"'):
            yield json.loads(line)


def _death(code: int, tail: list[str]) -> str:
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    said = f"; its last words: {last}" if last else ""
    if code == -signal.SIGKILL:
        return (
            "the process was killed (SIGKILL), most likely for lack of memory; keep fewer rows or free some"
        )
    if code < 0:
        return f"LightGBM crashed ({signal.Signals(-code).name}){said}; nothing else is lost, run again"
    return f"the process ended with code {code}{said}"


# ---- In the child -----------------------------------------------------------------------------------------


def serve(jobs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Do jobs, each the function of ``jobs`` that its key ``do`` names, until the parent closes the pipe or dies.

    A function is imported with its module, so it imports what is large, such as LightGBM, itself.
    """
    given: Queue[str] = Queue()
    threading.Thread(target=_listen, args=(given,), daemon=True).start()
    # LightGBM imports these for wrappers that are not used here, which takes most of the start.
    sys.modules.update(dict.fromkeys(("sklearn", "pandas")))  # type: ignore[arg-type]
    while True:
        job = json.loads(given.get())
        forget_peak_memory()
        try:
            answer = jobs[job["do"]](job)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else _line(error)
            answer = {"error": what, "storage": True}
        except StorageError as error:
            answer = {"error": str(error), "storage": True}
        except Exception as error:  # the parent turns it into a TrainingError
            answer = {"error": _line(error)}
        del job
        tell(**answer, child_memory_mb=peak_memory_mb())


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def tell(**event: Any) -> None:
    """Report an event to the parent: ``trees_done``, or the answer."""
    print(json.dumps(event), flush=True)


def _listen(given: "Queue[str]") -> None:
    """Pass the jobs on, and leave the process when there are no more to come, without waiting for anything."""
    for line in sys.stdin:
        given.put(line)
    os._exit(0)
