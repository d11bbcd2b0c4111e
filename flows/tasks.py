"""The steps of :class:`pipeline.run.job.Job` as Prefect tasks, nothing else.

Caching is the manifest's business: a Prefect record proves that a task ran once, not that its output is still
there.
"""

from functools import wraps
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from pipeline.run.job import Job
from pipeline.run.search_job import SearchJob


def _task(step: Any, name: str) -> "Task[..., Any]":
    made: Task[..., Any] = task(
        name=name, cache_policy=NO_CACHE, persist_result=False, task_run_name=_run_name
    )(within(step))
    return made


def within(step: Any) -> Any:
    """Return the step, which waits until its job has room for it: the runner takes as many as there are processors."""

    @wraps(step)
    def call(*args: Any, **named: Any) -> Any:
        job: Job = named["self"] if "self" in named else args[0]
        with job.room:
            return step(*args, **named)

    return call


def _run_name() -> str:
    from prefect.runtime import task_run

    of = task_run.parameters.get("of") or task_run.parameters.get("fold")
    return f"{task_run.task_name}{'' if of is None else f' {of}'}"


TASKS: dict[Any, "Task[..., Any]"] = {
    Job.ingest: _task(Job.ingest, "ingest"),
    Job.fit_initial: _task(Job.fit_initial, "initial rankers"),
    Job.score: _task(Job.score, "score"),
    SearchJob.attempt: _task(SearchJob.attempt, "try"),
    SearchJob.halve: _task(SearchJob.halve, "halve"),
    SearchJob.conclude: _task(SearchJob.conclude, "end of the search"),
    Job.choose: _task(Job.choose, "select"),
    Job.prepare: _task(Job.prepare, "prepare"),
    Job.train: _task(Job.train, "train"),
    Job.evaluate: _task(Job.evaluate, "evaluate"),
    Job.collect: _task(Job.collect, "collect"),
    Job.compare: _task(Job.compare, "compare"),
    Job.report: _task(Job.report, "report"),
}
