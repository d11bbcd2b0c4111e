"""Worker processes: jobs go in on standard input, events come out on standard output, one JSON line each.

LightGBM can crash the process it runs in; here that costs one training and not the run. A worker ends when its
parent does, and :func:`end_all` kills those at work. Inside :func:`worker_pool` a worker does several jobs.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import IO, Any, Final

from pipeline.core.errors import StorageError, TrainingError
from pipeline.core.files import forget_peak_memory, peak_memory_mb

TreesDone = Callable[[int], None]
"""Called with the number of trees trained so far."""

_POOLED_MB: Final = 1_000
"""A worker that held more is not kept for another job: ending it gives its memory back."""


@dataclass
class _Workers:
    """The workers of this process: what a pool reuses and :func:`end_all` has to find."""

    busy: set["_Worker"] = field(default_factory=set)
    idle: list["_Worker"] = field(default_factory=list)
    pools: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_workers: Final = _Workers()


@contextlib.contextmanager
def worker_pool() -> Iterator[None]:
    """Reuse workers within this block, as starting one takes about a second; none is left behind it."""
    with _workers.lock:
        _workers.pools += 1
    try:
        yield
    finally:
        with _workers.lock:
            _workers.pools -= 1
            left = [] if _workers.pools else _workers.idle.copy()
            del _workers.idle[: len(left)]
        for worker in left:
            worker.end()


def run(
    module: str, job: Mapping[str, Any], *, threads: int, what: str, trees_done: TreesDone | None = None
) -> dict[str, Any]:
    """Do a job in a worker process and return its answer.

    Args:
        module: A module that calls :func:`worker_main` when it is run.
        job: JSON values and paths; ``do`` names the function of the module.
        threads: Threads of LightGBM and Polars in the worker.
        what: What is done, such as ``training the ranker``, for error messages.
        trees_done: Called with the number of trees so far.

    Raises:
        TrainingError: The job failed or the worker died.
        StorageError: The worker could not read or write a file.
    """
    worker = _take(module, threads)
    answer: dict[str, Any] = {}
    try:
        answer = worker.request(job, trees_done)
    finally:
        code, stderr_tail = _release(worker, answer)
    if "error" in answer:
        kind = StorageError if answer.get("storage") else TrainingError
        raise kind(f"{what}: {answer['error']}")
    if not answer:
        raise TrainingError(f"{what}: {_cause_of_death(code, stderr_tail)}")
    return answer


def end_all() -> None:
    """Kill the workers that have a job, for a run that ends before they do."""
    with _workers.lock:
        busy = list(_workers.busy)
    for worker in busy:
        worker.process.kill()


def _take(module: str, threads: int) -> "_Worker":
    """Return an idle worker for such jobs, or a new one."""
    with _workers.lock:
        for worker in _workers.idle:
            if worker.process.poll() is None and (worker.module, worker.threads) == (module, threads):
                _workers.idle.remove(worker)
                _workers.busy.add(worker)
                return worker
        unfit = [_workers.idle.pop(0)] if _workers.idle else []
    for worker in unfit:  # a dead one, or one of another kind, makes room
        worker.end()
    with _workers.lock:  # end_all would miss a worker that is started but not yet listed
        worker = _Worker(module, threads)
        _workers.busy.add(worker)
    return worker


def _release(worker: "_Worker", answer: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return a worker to the pool, or end it; returns its exit code and the last lines of its stderr."""
    reusable = bool(answer) and "error" not in answer and worker.peak_memory_mb < _POOLED_MB
    with _workers.lock:
        _workers.busy.discard(worker)
        if reusable and _workers.pools:
            _workers.idle.append(worker)
            return 0, []
    if not answer:
        worker.process.kill()
    return worker.end()


class _Worker:
    """A process that runs a module, to do jobs with some threads."""

    def __init__(self, module: str, threads: int) -> None:
        self.module, self.threads, self.peak_memory_mb = module, threads, 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # -P: not what lies in the current directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(threads),
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._stdin: IO[str] = self.process.stdin  # type: ignore[assignment]
        self._stdout: IO[str] = self.process.stdout  # type: ignore[assignment]
        self._stderr_tail: deque[str] = deque(maxlen=20)
        self._stderr_reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr_reader.start()

    def _read_stderr(self) -> None:
        self._stderr_tail.extend(self.process.stderr or ())

    def request(self, job: Mapping[str, Any], trees_done: TreesDone | None) -> dict[str, Any]:
        """Return the answer to a job; empty when the worker dies."""
        with contextlib.suppress(BrokenPipeError):  # the exit code of a dead worker says more
            self._stdin.write(json.dumps(job, default=str) + "\n")
            self._stdin.flush()
        for line in self._stdout:
            if not line.startswith('{"'):  # LightGBM's own, or a driver's
                continue
            event: dict[str, Any] = json.loads(line)
            if "trees_done" not in event:
                self.peak_memory_mb = event.pop("worker_memory_mb", 0)
                return event
            if trees_done:
                trees_done(event["trees_done"])
        return {}

    def end(self) -> tuple[int, list[str]]:
        """Let the process end and wait for it; returns its exit code and the last lines of its stderr."""
        with self.process:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()  # which ends it
            self._stderr_reader.join()  # before leaving the block closes the pipe it reads
        return self.process.returncode, list(self._stderr_tail)


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker, whose imports find this very package."""
    ours = str(Path(__file__).parents[2])
    return {
        # Threads that wait would spin, which slows whatever else runs beside a training, and so the training.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "POLARS_MAX_THREADS": str(threads),
        # Arrow's own pool keeps what it once had; the system's gives it back.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        # The standard library stays first: site-packages, where we may lie, can hold old copies of its modules.
        "PYTHONPATH": os.pathsep.join([sysconfig.get_path("stdlib"), ours, *filter(None, sys.path)]),
    }


def _cause_of_death(code: int, stderr_tail: list[str]) -> str:
    last = next((line.strip() for line in reversed(stderr_tail) if line.strip()), "")
    words = f"; its last words: {last}" if last else ""
    if code == -signal.SIGKILL:
        return (
            "the process was killed (SIGKILL), most likely for lack of memory; keep fewer rows or free some"
        )
    if code < 0:
        return f"LightGBM crashed ({signal.Signals(-code).name}){words}; nothing else is lost, run again"
    return f"the process ended with code {code}{words}"


# ---- In the worker ----------------------------------------------------------------------------------------


def worker_main(jobs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Do jobs, each with the function that its ``do`` names, until the parent closes the pipe or dies.

    The functions are imported before the first job is read, so they import LightGBM only when called.
    """
    received: Queue[str] = Queue()
    threading.Thread(target=_listen, args=(received,), daemon=True).start()
    # LightGBM imports these for wrappers that are not used here, which takes most of the start.
    sys.modules.update(dict.fromkeys(("sklearn", "pandas")))  # type: ignore[arg-type]
    while True:
        job = json.loads(received.get())
        forget_peak_memory()
        try:
            answer = jobs[job["do"]](job)
        except Exception as error:
            answer = {"error": _describe(error), "storage": isinstance(error, OSError | StorageError)}
        del job
        send_event(**answer, worker_memory_mb=peak_memory_mb())


def _listen(received: "Queue[str]") -> None:
    """Queue the jobs; when the parent is gone, leave the process whatever it does."""
    for line in sys.stdin:
        received.put(line)
    os._exit(0)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def send_event(**event: Any) -> None:
    """Send an event to the parent: ``trees_done``, or the answer to the job."""
    print(json.dumps(event), flush=True)


def training_facts(began: float, **counts: int) -> dict[str, Any]:
    """Return ``counts``, the wall seconds since ``began`` (``time.perf_counter()``), and the peak memory in MB."""
    seconds = round(time.perf_counter() - began, 3)
    return {**counts, "train_seconds": seconds, "peak_memory_mb": peak_memory_mb()}


class Progress:
    """Counts the trees of all rankers of a job, from several threads, and reports them a few times a second."""

    def __init__(self) -> None:
        self._sent, self._trees, self._lock = 0.0, 0, threading.Lock()
        self._failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Make the other rankers fail with the first error: either all of them are wanted or none."""
        self._failure = self._failure or error

    def __call__(self, trees: int) -> None:
        """Count more trees; raises what was handed to :meth:`fail`."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            self._trees += trees
            if trees and (now := time.perf_counter()) - self._sent > 0.2:
                send_event(trees_done=self._trees)
                self._sent = now
