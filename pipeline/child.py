"""Child processes: a job goes in on standard input, events come out on standard output, a JSON line each.

LightGBM can take its process down; here that costs a training and not the run. A child ends when its parent
does, and the parent can end the children it has.
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
from typing import IO, Any, Final

from pipeline.errors import StorageError, TrainingError

TreesDone = Callable[[int], None]

_UNDER_WAY: Final[set["subprocess.Popen[str]"]] = set()


def run(
    module: str, job: Mapping[str, Any], *, threads: int, what: str, trees_done: TreesDone | None = None
) -> dict[str, Any]:
    """Have ``python -m module``, which calls :func:`serve`, do a job; returns its answer.

    Args:
        module: The module to run.
        job: JSON values.
        threads: Threads of the child.
        what: What it does, such as ``training the ranker``, for error messages.
        trees_done: Told the number of trees so far.

    Raises:
        TrainingError: The child failed or died.
        StorageError: It could not read or write a file.
    """
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
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        start_new_session=True, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    _UNDER_WAY.add(child)
    tail: deque[str] = deque(maxlen=20)
    reader = threading.Thread(target=lambda: tail.extend(child.stderr or ()), daemon=True)
    reader.start()
    answer: dict[str, Any] = {}
    with child:
        try:
            _hand_over(child.stdin, job)
            for event in _events(child.stdout):
                if "trees_done" in event:
                    if trees_done:
                        trees_done(event["trees_done"])
                else:
                    answer = event
        except BaseException:
            child.kill()
            raise
        finally:
            _UNDER_WAY.discard(child)
            # Leaving the block closes the pipes; nobody may read from them then.
            reader.join()
    if "error" in answer:
        kind = StorageError if answer.get("storage") else TrainingError
        raise kind(f"{what}: {answer['error']}")
    if child.returncode or not answer:
        raise TrainingError(f"{what}: {_death(child.returncode, list(tail))}")
    return answer


def end_all() -> None:
    """Kill the children this process has, for a run that ends before they do."""
    for child in list(_UNDER_WAY):
        child.kill()


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
    """Do one job, the function of ``jobs`` that its key ``do`` names, and leave the process.

    The function is imported with its module, so it imports what is large, such as LightGBM, itself.
    """
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # LightGBM imports these for wrappers that are not used here, which takes most of the start.
    sys.modules.update(dict.fromkeys(("sklearn", "pandas")))  # type: ignore[arg-type]
    try:
        answer = jobs[job["do"]](job)
    except OSError as error:
        answer = {"error": f"{error.filename or job.get('model')}: {error.strerror}", "storage": True}
    except StorageError as error:
        answer = {"error": str(error), "storage": True}
    except Exception as error:  # the parent turns it into a TrainingError
        answer = {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}
    tell(**answer)
    sys.stdout.flush()
    os._exit(0)  # no wait for the watching thread


def tell(**event: Any) -> None:
    """Report an event to the parent: ``trees_done``, or the answer."""
    print(json.dumps(event), flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the parent closes the pipe, or dies
    os._exit(1)
