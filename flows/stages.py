"""The job as plain functions: its stages, and :func:`run_pipeline`, which names them in order.

:mod:`flows.prepare` is the same with Prefect's decorators. Without them the stages run in a few threads
(:class:`~flows.executor.ThreadRunner`): that is ``--plain``. What a stage is given can be pickled.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flows.executor import Executor, Runner, Submitted, ThreadRunner
from pipeline.core.config import Config
from pipeline.core.errors import StorageError, TrainingError
from pipeline.core.lock import lock_run
from pipeline.core.paths import RunPaths
from pipeline.core.records import write_manifest
from pipeline.dataset.folds import Fold
from pipeline.dataset.sources import Source
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.ranker import processes
from pipeline.run import search, start, steps, trials
from pipeline.run.events import Event, EventFile, Progress
from pipeline.run.execute import Stage, Step, execute
from pipeline.run.scope import ArmScope, FoldScope

Scored = dict[FoldScope, Submitted]


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


# ---- The stages -------------------------------------------------------------------------------------------


def ingest(
    run: RunPaths, source: Source | None, config: Config, arms: list[Arm], threads: int, progress: Progress
) -> list[Fold]:
    """SOURCE -> JUDGMENTS."""
    return start.ingest(run, source, config, arms, threads=threads, progress=progress).folds


def score(at: FoldScope, arms: list[Arm], threads: int, progress: Progress) -> None:
    """JUDGMENTS -> initial rankers -> SCORES of a fold."""
    _execute(steps.fold_steps(at, arms), threads, progress)


def try_arm(of: ArmScope, rung: int, threads: int, progress: Progress) -> None:
    """SCORES -> validation METRICS of a candidate in a rung of a search."""
    _execute([trials.trial(of, rung)], threads, progress)


def finish_search(
    run: RunPaths, rungs: list[pl.DataFrame], config: Config, threads: int, progress: Progress
) -> None:
    """Validation METRICS of all trials -> SEARCH."""
    _execute([trials.search_table(run, rungs, config)], threads, progress)


def train_arm(of: ArmScope, last_stage: Stage, threads: int, progress: Progress) -> None:
    """SCORES -> SELECTION -> prepared set -> ranker -> METRICS of an arm in a fold."""
    _execute(steps.arm_steps(of), threads, progress, last_stage)


def compare(run: RunPaths, arms: list[Arm], config: Config, threads: int, progress: Progress) -> None:
    """METRICS -> SUMMARY."""
    _execute(steps.table_steps(run, arms, config), threads, progress, Stage.EVALUATE)


def report(
    run: RunPaths, arms: list[Arm], config: Config, tried: int, threads: int, progress: Progress
) -> None:
    """Everything -> the report."""
    _execute([steps.report(run, arms, config, tried=tried)], threads, progress)


def _execute(
    chain: Iterable[Step], threads: int, progress: Progress, last_stage: Stage = Stage.REPORT
) -> None:
    """Execute steps one after the other, up to a stage; each is asked for once the one before it is done."""
    for step in chain:
        if not last_stage.reaches(step.stage):
            break
        execute(step, threads=threads, progress=progress)


# ---- The job ----------------------------------------------------------------------------------------------


def run_pipeline(
    source: Path | None,
    root: Path,
    *,
    config: Config,
    arms: Sequence[str] = (),
    threads: int = 1,
    last_stage: Stage = Stage.REPORT,
    search_arms: bool = False,
    runner: Runner | None = None,
    progress: Progress | None = None,
    command: str = "a flow run",
) -> Outcome:
    """Run the job; the directory is locked for its whole length.

    An arm whose training fails is reported and left out. A failing initial ranker ends the run, because nothing can
    be selected without scores, and so does a failing `all`, because whoever asked for it wants the others compared
    with it.

    Args:
        source: What to read; None to go on from the dataset of an earlier run.
        root: The run's directory.
        config: Every setting.
        arms: Arms by name, and no others, in place of the panel.
        threads: Threads in all; never changes a result.
        last_stage: The last stage to run.
        search_arms: Find the arms by trying many on the validation lists.
        runner: What runs the stages; None: a few threads.
        progress: Told of every event; None: they go to a file in the run's directory.
        command: What runs, for who finds the directory locked.

    Raises:
        RanksieveError: Anything the user can mend.
    """
    run, panel = RunPaths(root), start.arms_of(config, arms, search_arms=search_arms)
    located = start.check(run, source, config, panel, last_stage=last_stage)
    with (
        _running(run, command, progress) as tell,
        Executor(runner or ThreadRunner(), threads, tell) as do,
    ):
        folds = [FoldScope(run, fold, config) for fold in do.run(ingest, run, located, config, panel)]
        if last_stage is Stage.INGEST:
            return Outcome(root)
        _announce(tell, folds, [] if search_arms else panel, panel)
        scored = dict(zip(folds, do.each(score, [(at, panel) for at in folds]), strict=True))
        if last_stage is Stage.SCORE:
            do.wait()
            return Outcome(root)
        tried, failures = 0, list[str]()
        if search_arms:
            tried = len(panel)
            panel, failures = _find_arms(do, run, scored, panel, config)
            _announce(tell, folds, panel, [])
        failed = _train(do, train_arm, scored, panel, last_stage)
        panel = _survivors(panel, failed)
        failures += map(str, failed.values())
        compared = bool(panel) and last_stage.reaches(Stage.EVALUATE)
        if compared:
            do.run(compare, run, panel, config)
        if compared and last_stage.reaches(Stage.REPORT):
            do.run(report, run, panel, config, tried)
    return Outcome(root, failures, compared)


def _train(
    do: Executor, stage: Callable[..., None], scored: Scored, arms: Sequence[Arm], argument: Any
) -> dict[ArmScope, TrainingError]:
    """Take every arm of every fold through a stage, each once its fold is scored; return what LightGBM failed on."""
    items = [ArmScope(at, arm) for at in scored for arm in arms]
    wait_for = [scored[of.at] for of in items]
    submitted = do.each(stage, [(of, argument) for of in items], wait_for=wait_for, optional=True)
    return do.errors(dict(zip(items, submitted, strict=True)))


def _find_arms(
    do: Executor, run: RunPaths, scored: Scored, candidates: list[Arm], config: Config
) -> tuple[list[Arm], list[str]]:
    """Try candidates rung after rung; return `all`, the survivors and their controls, and the errors of trials."""
    left, rungs, failures = candidates, list[pl.DataFrame](), list[str]()
    counts = search.trees(config.search, of=config.ranker.trees)
    for rung in range(1, len(counts) + 1):
        if len(left) <= config.search.keep:
            break
        costs = [trials.trial(ArmScope(at, arm), rung).cost for at in scored for arm in left]
        do.progress(Event(f"rung {rung} of {len(counts)}", "ahead", sum(costs), len(costs)))
        failed = _train(do, try_arm, scored, left, rung)
        failures += map(str, failed.values())
        rungs.append(trials.rank_rung(run, left, rung, config, failed={of.arm for of in failed}))
        kept = set(rungs[-1].filter("kept")["arm"])
        left = [arm for arm in left if arm.name in kept]
    do.run(finish_search, run, rungs, config)
    return trials.panel_of(left, config), failures


def _survivors(arms: Sequence[Arm], failed: dict[ArmScope, TrainingError]) -> list[Arm]:
    """Return the arms that were trained in every fold; raises where the others were to be compared with one."""
    for of, error in failed.items():
        if of.arm.name == BASELINE and len(arms) > 1:
            raise error
    broken = {of.arm for of in failed}
    return [arm for arm in arms if arm not in broken]


def _announce(
    progress: Progress, folds: Sequence[FoldScope], arms: Sequence[Arm], scored: Sequence[Arm]
) -> None:
    """Tell how much training there is to come: the initial rankers that `scored` needs, and the arms."""
    ahead = [step for at in folds for step in steps.fold_steps(at, scored)]
    ahead += [step for at in folds for arm in arms for step in steps.arm_steps(ArmScope(at, arm))]
    costs = [step.cost for step in ahead if step.cost]
    progress(Event("training" if arms else "scoring", "ahead", sum(costs), len(costs)))


@contextlib.contextmanager
def _running(run: RunPaths, command: str, progress: Progress | None) -> Iterator[Progress]:
    """Lock a run, give what takes its events, and write the manifest when it ends, well or badly."""
    events = EventFile(run.events)
    with lock_run(run.root, command=command), processes.worker_pool(), events.kept():
        try:
            yield progress or events
        except BaseException:
            with contextlib.suppress(StorageError):
                write_manifest(run.root)
            raise
        write_manifest(run.root)
