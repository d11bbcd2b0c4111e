"""The flow: source in, prepared training sets, models and their comparison out.

The stages and the order they are in are those of :mod:`flows.stages`; here they are decorated for Prefect. Whether a
step need be done is the records' business: a Prefect record proves that a task ran once, not that its output is
still there.
"""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Any, Final

import polars as pl
from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import stages
from flows.executor import MAX_SLOTS
from flows.stages import Outcome, run_pipeline
from pipeline.core.config import Config
from pipeline.core.errors import RanksieveError
from pipeline.core.paths import RunPaths
from pipeline.report import markdown
from pipeline.report.view import summary_view
from pipeline.run.execute import Stage
from pipeline.run.start import default_root, processors


def _task_run_name() -> str:
    """Return the task's name and what it works on, such as ``train mixed-20 (fold 1)``."""
    of = task_run.parameters.get("of")
    at = of.at if of else task_run.parameters.get("at")
    fold = f"(fold {at.fold.number})" if at and at.fold.folds > 1 else ""
    return " ".join(part for part in (task_run.task_name, of and of.arm.name, fold) if part)


class Mistakes:
    """A stage whose mistakes end its task with the one line that says what to do, and not with a traceback.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: Callable[..., Any]) -> None:
        update_wrapper(self, stage)
        self.stage = stage

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the stage."""
        try:
            return self.stage(*arguments, **named)
        except RanksieveError as error:
            return _failed(error)


def _failed(error: RanksieveError) -> State[Any]:
    """Return a failed state; for a raised error Prefect would log its traceback."""
    line = " ".join(str(error).split())
    get_run_logger().error("ranksieve: %s", line)
    return Failed(message=line, data=error)


def _task(stage: Callable[..., Any], name: str) -> "Task[..., Any]":
    settings = task(name=name, cache_policy=NO_CACHE, persist_result=False, task_run_name=_task_run_name)
    made: Task[..., Any] = settings(Mistakes(stage))
    return made


_TASKS: Final = {
    stages.ingest: _task(stages.ingest, "ingest"),
    stages.score: _task(stages.score, "score"),
    stages.try_arm: _task(stages.try_arm, "try"),
    stages.finish_search: _task(stages.finish_search, "finish search"),
    stages.train_arm: _task(stages.train_arm, "train"),
    stages.compare: _task(stages.compare, "compare"),
    stages.report: _task(stages.report, "report"),
}
ingest, score, try_arm, finish_search, train_arm, compare, report = _TASKS.values()


class PrefectRunner:
    """Runs stages as Prefect's tasks, in the task runner of the flow."""

    def submit(
        self, stage: Callable[..., Any], arguments: Sequence[Any], wait_for: Sequence["PrefectFuture[Any]"]
    ) -> "PrefectFuture[Any]":
        """Submit the stage's task."""
        return _TASKS[stage].submit(*arguments, wait_for=list(wait_for))

    def error(self, future: "PrefectFuture[Any]") -> BaseException | None:
        """Return the error of a task that has ended."""
        future.wait()  # takes its state from the task itself; the server's has no result
        if future.state.is_completed():
            return None
        error = future.state.result(raise_on_failure=False)
        return error if isinstance(error, BaseException) else RuntimeError(str(future.state))


def run_flow(
    source: str = "",
    out: str | None = None,
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows its fields
    arms: list[str] | None = None,
    threads: int | None = None,
    last_stage: Stage = Stage.REPORT,
    search: bool = False,
) -> Outcome | State[Outcome]:
    """Prepare the training set of a source in every way of the panel, retrain and compare.

    Args:
        source: LETOR data: a directory with train/vali/test, Fold1..Fold5 or S1..S5, or one file; empty to go on from
            the dataset of an earlier run in `out`.
        out: The run's directory; `runs/<name of source>` when empty.
        config: Every setting that decides the result.
        arms: Arms by name, and no others, in place of the panel, such as `all` and `top-10`.
        threads: Threads to use in all; the machine's processors when empty.
        last_stage: The last stage to run.
        search: Find the arms by trying many on the validation lists, in place of the panel.
    """
    given = Path(source).expanduser() if source else None
    root = Path(out).expanduser() if out else default_root(given or Path())
    try:
        outcome = run_pipeline(
            given,
            root,
            config=config,
            arms=arms or (),
            threads=threads or processors(),
            last_stage=last_stage,
            search_arms=search,
            runner=PrefectRunner(),
        )
    except RanksieveError as error:
        return _failed(error)
    log = get_run_logger()
    for failure in outcome.failures:
        log.error("ranksieve: %s; this arm is left out", failure)
    if outcome.compared and last_stage is Stage.REPORT:
        text, about = markdown.summary(root), f"NDCG of every arm, {root}"
        create_markdown_artifact(key="ranksieve-summary", markdown=text, description=about)
        log.info("ranksieve: %s", " ".join(summary_view(pl.read_parquet(RunPaths(root).summary)).sentences))
    log.info("ranksieve: results in %s", root.resolve())
    return outcome


prepare = flow(
    name="ranksieve",
    description="Prepare a learning-to-rank training set: score, select negatives, retrain, compare NDCG.",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_SLOTS),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)(run_flow)
"""The flow. Neither it nor the function it is made of hides the other, so that both can be pickled."""
