"""Fan-out, failures and their end, with stages that are plain functions."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flows.executor import Executor, ThreadRunner
from pipeline.core.errors import SourceError, TrainingError
from pipeline.run.events import Event


def ignore(event: Event) -> None:
    """Listen to nothing."""


def executor(threads: int) -> Executor:
    """An executor of stages in threads."""
    return Executor(ThreadRunner(), threads, ignore)


def test_no_more_stages_at_a_time_than_threads() -> None:
    """Eight stages with two threads: two are under way at a time, and all get done with one thread each."""
    inside, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def stage(number: int, threads: int, progress: Callable[[Event], None]) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        both.wait(timeout=60)
        with lock:
            inside -= 1
        return number * threads

    with executor(2) as do:
        submitted = do.each(stage, [(number,) for number in range(8)])
        do.wait()
        assert [one.future.result() for one in submitted] == list(range(8))
    assert most == 2


def test_a_stage_waits_for_its_own_and_no_other() -> None:
    """The second item's stages are done while the first item's first is still at work."""
    done: list[str] = []
    go_on = threading.Event()

    def first(name: str, *_: Any) -> None:
        if name == "slow":
            assert go_on.wait(60)
        done.append(f"first {name}")

    def second(name: str, *_: Any) -> None:
        done.append(f"second {name}")
        go_on.set()

    with executor(4) as do:
        before = do.each(first, [("slow",), ("quick",)])
        do.each(second, [("slow",), ("quick",)], wait_for=before)
        do.wait()
    assert done == ["first quick", "second quick", "first slow", "second slow"]


def test_the_run_goes_on_when_an_optional_training_fails() -> None:
    """Its error comes back beside its item; the others are done."""

    def stage(name: str, *_: Any) -> str:
        if name == "bad":
            raise TrainingError("LightGBM crashed")
        return name

    with executor(2) as do:
        submitted = do.each(stage, [("good",), ("bad",)], optional=True)
        errors = do.errors(dict(zip(("good", "bad"), submitted, strict=True)))
    assert {name: str(error) for name, error in errors.items()} == {"bad": "LightGBM crashed"}


@pytest.mark.parametrize(
    ("error", "optional"),
    [
        (SourceError("bad", file="x"), True),
        (TrainingError("initial rankers"), False),
        (ZeroDivisionError(), True),
    ],
)
def test_any_other_error_ends_the_run_at_once(error: Exception, optional: bool) -> None:
    """Nothing more is submitted, and what is under way is waited for."""
    begun: list[int] = []

    def stage(number: int, *_: Any) -> None:
        begun.append(number)
        if number == 0:
            raise error
        time.sleep(0.01)

    def everything() -> None:
        with executor(2) as do:
            do.each(stage, [(number,) for number in range(500)], optional=optional)
            do.wait()

    with pytest.raises(type(error)):
        everything()
    assert len(begun) < 400
    assert threading.active_count() < 50
