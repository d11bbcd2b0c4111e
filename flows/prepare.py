"""The flow: source in, prepared training sets, models and their comparison out."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from threading import Semaphore
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.body import Failure, Outcome, Stage, Step, body
from flows.tasks import TASKS
from pipeline.core.config import Config
from pipeline.core.errors import TrainingError
from pipeline.report import markdown
from pipeline.run.defaults import default_root, processors
from pipeline.run.job import WORKERS, Job
from pipeline.run.plan import FoldArm, Observer
from pipeline.run.search_job import SearchJob

_WATCHER: ContextVar[Observer | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched_by(observer: Observer) -> Iterator[None]:
    """Let ``observer`` see the steps of the flow run started inside."""
    token = _WATCHER.set(observer)
    try:
        yield
    finally:
        _WATCHER.reset(token)


class Tasks:
    """Call steps as Prefect tasks."""

    def one(self, step: Step, job: Job, *args: Any) -> Any:
        """Run one task and wait for it."""
        return TASKS[step](job, *args)

    def each(self, steps: Sequence[Step], job: Job, items: Sequence[Any]) -> list[Failure]:
        """Map the tasks over the items; each item goes on as soon as its own last step is done."""
        chains = [_submit(steps, job, item, []) for item in items]
        _wait([future for chain in chains for future in chain], job)
        return _failures(items, chains)

    def folds(
        self, first: Sequence[Step], job: Job, then: Sequence[Step], arms: Sequence[FoldArm]
    ) -> list[Failure]:
        """Submit the tasks of folds and of their arms, each arm's after its fold's."""
        heads = {fold: _submit(first, job, fold, []) for fold in job.folds}
        chains = [_submit(then, job, arm, heads[arm.fold][-1:]) for arm in arms]
        _wait([future for chain in (*heads.values(), *chains) for future in chain], job)
        for failure in _failures(list(heads), list(heads.values())):
            raise failure.error
        return _failures(arms, chains)


def _submit(
    steps: Sequence[Step], job: Job, item: Any, after: list[PrefectFuture[Any]]
) -> list[PrefectFuture[Any]]:
    """Submit an item's tasks, one after the other."""
    chain: list[PrefectFuture[Any]] = []
    for step in steps:
        chain.append(TASKS[step].submit(job, chain[-1] if chain else item, wait_for=after))
    return chain


def _failures(items: Sequence[Any], chains: Sequence[Sequence[PrefectFuture[Any]]]) -> list[Failure]:
    failures = []
    for item, chain in zip(items, chains, strict=True):
        states = [future.state for future in chain]
        failed = next((state for state in states if state.is_failed() or state.is_crashed()), None)
        if failed is None:
            continue
        error = failed.result(raise_on_failure=False)
        if not isinstance(error, TrainingError):
            raise error
        failures.append(Failure(item, error))
    return failures


def _wait(futures: Sequence[PrefectFuture[Any]], job: Job) -> None:
    """Wait for all futures, and hear of Ctrl-C meanwhile: an unlimited wait may sleep through it."""
    finished, left = Semaphore(0), len(futures)
    for future in futures:
        future.add_done_callback(lambda _: finished.release())
    try:
        while left:
            left -= finished.acquire(timeout=0.5)
    except BaseException:
        while left:  # the runner would begin what is queued, and wait for it
            job.stop()
            left -= finished.acquire(timeout=0.05)
        raise
    wait(list(futures))


@flow(
    name="ranksieve",
    description="Prepare a learning-to-rank training set: score, select negatives, retrain, compare NDCG.",
    # A job shares its threads out among so many steps.
    task_runner=ThreadPoolTaskRunner(max_workers=min(processors(), WORKERS)),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)
def prepare(
    source: str,
    out: str | None = None,
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows its fields
    arms: list[str] | None = None,
    threads: int | None = None,
    until: int = int(Stage.REPORT),
    search: bool = False,
) -> Outcome:
    """Prepare the training set of a LETOR source in every way of the panel, retrain and compare.

    Args:
        source: LETOR data: a directory with train/vali/test, Fold1..Fold5 or S1..S5, or one file.
        out: The run's directory; `runs/<name of source>` when empty.
        config: Every setting that decides the result.
        arms: Arms by name, and no others, in place of the panel, such as `all` and `top-10`.
        threads: Threads to use in all; the machine's processors when empty.
        until: The last stage to run, 1 (ingest) to 6 (report).
        search: Find the arms by trying many on the validation lists, in place of the panel.
    """
    root = Path(out) if out else default_root(Path(source))
    job = (SearchJob if search else Job)(
        Path(source) if source else None, root, config=config, threads=threads or processors(), arms=arms or (),
        observer=_WATCHER.get(),
    )  # fmt: skip
    job.check()
    outcome = body(job, Tasks(), until=Stage(until))
    if outcome.compared and until >= Stage.REPORT:
        create_markdown_artifact(
            key="ranksieve-summary", markdown=markdown.summary(root), description=f"NDCG of every arm, {root}"
        )
    return outcome
