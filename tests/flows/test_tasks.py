"""What a task adds to its step."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from flows.tasks import within


def test_no_more_steps_at_a_time_than_the_job_has_room_for() -> None:
    """Eight threads call a step of a job for two: two are in it at a time, and both do get in."""
    inside, most, both = 0, [0], threading.Barrier(2)
    lock = threading.Lock()

    def step(self: Any, number: int) -> int:
        nonlocal inside
        with lock:
            inside += 1
            most[0] = max(most[0], inside)
        both.wait(timeout=60)
        with lock:
            inside -= 1
        return number

    job = SimpleNamespace(room=threading.Semaphore(2))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: within(step)(job, number=number), range(8))) == list(range(8))
    assert most == [2]
    assert within(step).__name__ == "step"
