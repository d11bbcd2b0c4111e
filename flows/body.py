"""The body of the job, in order, and the plain way to run it.

The flow in :mod:`flows.prepare` runs the same body with Prefect tasks in place of plain calls.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.errors import ConfigError, TrainingError
from pipeline.core.files import lock_run
from pipeline.negatives.arms import BASELINE
from pipeline.ranker import processes as child
from pipeline.run.job import Job
from pipeline.run.plan import FoldArm
from pipeline.run.search_job import SearchJob

Step = Callable[..., Any]


class Stage(IntEnum):
    """The last stage to run."""

    INGEST = 1
    SCORE = 2
    SELECT = 3
    TRAIN = 4
    EVALUATE = 5
    REPORT = 6


@dataclass(frozen=True)
class Failure:
    """An item whose chain of steps ended in an error."""

    item: Any
    error: TrainingError


class Caller(Protocol):
    """How steps are called: plainly, or as Prefect tasks."""

    def one(self, step: Step, job: Job, *args: Any) -> Any:
        """Call one step and wait for it."""

    def each(self, steps: Sequence[Step], job: Job, items: Sequence[Any]) -> list[Failure]:
        """Take every item through the steps, items side by side; return those LightGBM failed on."""

    def folds(
        self, first: Sequence[Step], job: Job, then: Sequence[Step], arms: Sequence[FoldArm]
    ) -> list[Failure]:
        """Take every fold through the first steps and then its arms through the others, all that can be side by side.

        An arm waits for its own fold only. What LightGBM fails on in the first steps ends the run.
        """


class Plain:
    """Call steps without Prefect."""

    def one(self, step: Step, job: Job, *args: Any) -> Any:
        """Call one step."""
        return step(job, *args)

    def each(self, steps: Sequence[Step], job: Job, items: Sequence[Any]) -> list[Failure]:
        """Take items through the steps in a few threads; each training is a process of its own."""
        with _side_by_side(job) as submit:
            futures = [submit(steps, item) for item in items]
            return [failure for future in futures if (failure := future.result())]

    def folds(
        self, first: Sequence[Step], job: Job, then: Sequence[Step], arms: Sequence[FoldArm]
    ) -> list[Failure]:
        """Take folds and their arms through their steps, as :meth:`each` does."""
        with _side_by_side(job) as submit:
            heads = {submit(first, fold): fold for fold in job.folds}
            futures: dict[FoldArm, Future[Failure | None]] = {}
            for head in as_completed(heads):
                if failure := head.result():
                    raise failure.error
                of_fold = [arm for arm in arms if arm.fold == heads[head]]
                futures |= {arm: submit(then, arm) for arm in of_fold}
            return [failure for arm in arms if (failure := futures[arm].result())]


def _through(steps: Sequence[Step], job: Job, item: Any) -> Failure | None:
    try:
        for step in steps:
            step(job, item)
    except TrainingError as error:
        return Failure(item, error)
    return None


Submit = Callable[[Sequence[Step], Any], "Future[Failure | None]"]


@contextlib.contextmanager
def _side_by_side(job: Job) -> Iterator[Submit]:
    """Give what submits items to a few threads; an error in the block ends all that is under way."""
    futures: list[Future[Failure | None]] = []
    with ThreadPoolExecutor(job.workers) as pool:

        def submit(steps: Sequence[Step], item: Any) -> "Future[Failure | None]":
            futures.append(pool.submit(_through, steps, job, item))
            return futures[-1]

        try:
            yield submit
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                job.stop()  # again: a training may just be about to start
                time.sleep(0.05)
            raise


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        root: Where it is.
        failures: The errors of the arms that LightGBM failed on.
        compared: Whether it got as far as SUMMARY.
    """

    root: Path
    failures: list[str] = field(default_factory=list)
    compared: bool = False


def body(job: Job, do: Caller, *, until: Stage = Stage.REPORT, command: str = "a flow run") -> Outcome:
    """Run the job; the directory is held for its whole length.

    Initial rankers are trained where an arm needs scores. An arm whose training fails is reported and left
    out; a failing initial ranker ends the run, because nothing can be selected without scores, and so does
    a failing `all`, because whoever asked for it wants the others compared with it. A job that searches tries its
    candidates once they are scored.

    Raises:
        ConfigError: Only scores are asked for, and no arm needs any.
    """
    scored = any(arm.needs_scores for arm in job.arms)
    if until == Stage.SCORE and not scored:
        raise ConfigError("`all` keeps every row without scores; name an arm that chooses, such as top-20")
    with lock_run(job.layout.root, command=command), child.reused():
        do.one(Job.ingest, job)
        if until == Stage.INGEST:
            return Outcome(job.layout.root)
        first: list[Step] = [Job.fit_initial, Job.score] if scored else []
        if until == Stage.SCORE:
            do.folds(first, job, [], [])
            return Outcome(job.layout.root)
        tried: list[Failure] = []
        if isinstance(job, SearchJob):
            do.folds(first, job, [], [])
            first, tried = [], _search(job, do)
        chain: list[Step] = [Job.choose, Job.prepare, Job.train, Job.evaluate]
        length = {Stage.SELECT: 2, Stage.TRAIN: 3}.get(until, 4)
        failures = do.folds(first, job, chain[:length], job.plan.every_arm())
        trained = _survivors(job, failures)
        compared = until >= Stage.EVALUATE and bool(trained)
        if compared:
            do.one(Job.collect, job, trained)
            do.one(Job.compare, job, trained)
        if compared and until >= Stage.REPORT:
            do.one(Job.report, job)
    return Outcome(job.layout.root, [str(failure.error) for failure in [*tried, *failures]], compared)


def _search(job: SearchJob, do: Caller) -> list[Failure]:
    """Try the candidates rung after rung; then the survivors are the arms of the job."""
    failures: list[Failure] = []
    while trials := job.trials():
        failed = do.each([SearchJob.attempt], job, trials)
        do.one(SearchJob.halve, job, [failure.item.arm for failure in failed])
        failures += failed
    do.one(SearchJob.conclude, job)
    return failures


def _survivors(job: Job, failures: Sequence[Failure]) -> list[Any]:
    """Return the arms that were trained in every fold."""
    failed = {failure.item.arm for failure in failures if isinstance(failure.item, FoldArm)}
    for failure in failures:
        if failure.item.arm.name == BASELINE and len(job.arms) > 1:
            raise failure.error  # the others were to be compared with it
    return [arm for arm in job.arms if arm not in failed]
