"""The trials of a search as steps: an arm's ordinary steps with fewer trees, in a directory of their own.

All that stays of a trial is its validation METRICS: prepared sets of dozens of candidates would fill the disk.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.core import tables
from pipeline.core.config import Config
from pipeline.core.files import sha256
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts
from pipeline.dataset import parts
from pipeline.dataset.folds import Fold
from pipeline.negatives import arms as arm_names
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.run import found, search, sizes
from pipeline.run.events import Event, Task
from pipeline.run.execute import Stage, Step, execute
from pipeline.run.sizes import Dataset
from pipeline.run.steps import arm_steps


def trial(run: RunPaths, fold: Fold, arm: Arm, rung: int, config: Config) -> Step:
    """SCORES and JUDGMENTS -> validation METRICS of a candidate trained with the trees of a rung, from 1."""
    dataset, less = Dataset.of(run), config_of_rung(rung, config)
    name = _name(fold, arm, rung)
    return Step(
        run=run,
        name=name,
        stage=Stage.SELECT,
        work=partial(_try, run, fold, arm, less),
        inputs={
            "train": found.split_files(run, fold.train),
            "scores": [run.fold(fold.prefix).scores],
            "vali": found.split_files(run, fold.vali),
        },
        parameters={
            "arm": arm.name,
            "ranker": sizes.ranker_of(dataset, fold, less, arm).model_dump(),
            "seed": less.seed,
            "cutoff": found.cutoff_of(less),
            "fold": fold.number,
            **arm.options(less.select),
            "hard_gain": less.select.hard_gain,
        },
        outputs=[run.trial(name)],
        cost=sizes.arm_cost(dataset, fold, arm, less),
    )


def _try(run: RunPaths, fold: Fold, arm: Arm, config: Config, task: Task) -> Facts:
    """Execute an arm's steps in a scratch directory and keep its METRICS."""

    def pass_on(event: Event) -> None:
        if event.state == "advance":
            task.advance(event.amount)

    with _scratch(task.out[0]) as directory:
        there = RunPaths(directory, shared=run.root)
        steps = arm_steps(there, fold, arm, config, evaluated=("vali",))
        records = {step.name: execute(step, threads=task.threads, progress=pass_on) for step in steps}
        at, trained = there.fold(fold.prefix), records[f"{fold.prefix}model/{arm.name}"]
        at.arm_metrics(arm.name).replace(task.out[0])
        return {
            "rows": (found.selection_facts(there, fold, arm) or {})["rows"],
            "model": sha256(at.model(arm.name)),
            "trees": trained.facts["trees"],
            "train_seconds": trained.facts["train_seconds"],
            "peak_memory_mb": trained.peak_memory_mb,
        }


@contextmanager
def _scratch(made: Path) -> Iterator[Path]:
    """Give a directory beside a file in the making; one that a killed run leaves is removed as that is."""
    directory = made.with_name(f"{made.name}-work")
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def rank_rung(
    run: RunPaths, arms: Sequence[Arm], rung: int, config: Config, *, failed: Collection[Arm] = ()
) -> pl.DataFrame:
    """Rank the candidates of a rung that was tried.

    Args:
        run: The run.
        arms: The candidates, in panel order.
        rung: Its number, from 1.
        config: Every setting.
        failed: Those that LightGBM failed on.

    Returns:
        As :func:`pipeline.run.search.promote`, and ``trees``.
    """
    counts = search.trees(config.search, of=config.ranker.trees)
    keep = search.survivors(config.search, len(arms), last=rung == len(counts))
    rows = [{"arm": arm.name} if arm in failed else _outcome(run, arm, rung, config) for arm in arms]
    types = {"arm": pl.String, "rows": pl.Int64, "ndcg_vali": pl.Float64, "model": pl.String}
    ranked = search.promote(pl.DataFrame(rows, schema=types), keep=keep)
    return ranked.with_columns(trees=pl.lit(counts[rung - 1]))


def _outcome(run: RunPaths, arm: Arm, rung: int, config: Config) -> dict[str, Any]:
    """Return a candidate's row for the ranking: rows over all folds, NDCG over all their validation queries."""
    steps = [trial(run, fold, arm, rung, config) for fold in Dataset.of(run).folds]
    facts = [step.record.facts for step in steps if step.record is not None]
    files = [output for step in steps for output in step.outputs]
    return {
        "arm": arm.name,
        "rows": sum(fact["rows"] for fact in facts),
        "ndcg_vali": search.mean_ndcg(files, cutoff=found.cutoff_of(config)),
        "model": " ".join(fact["model"] for fact in facts),
    }


def search_table(run: RunPaths, rungs: Sequence[pl.DataFrame]) -> Step:
    """Validation METRICS of every trial -> SEARCH."""
    tried = search.concat_rungs(rungs)
    done = tried.filter(pl.col("ndcg_vali").is_not_null())
    files = [
        run.trial(_name(fold, arm_names.parse(arm), rung))
        for arm, rung in zip(done["arm"], done["rung"], strict=True)
        for fold in Dataset.of(run).folds
    ]
    return Step(
        run=run,
        name="search",
        stage=Stage.SELECT,
        work=partial(_write_search, tried),
        inputs={"metrics": files},
        parameters={"explored": tried.to_dicts()},
        outputs=[run.search],
    )


def _write_search(tried: pl.DataFrame, task: Task) -> Facts:
    parts.write_table(task.out[0], tried, tables.SEARCH)
    return {"rungs": tried["rung"].n_unique(), "trials": tried.height}


def panel_of(arms: Sequence[Arm], config: Config) -> list[Arm]:
    """Return the arms that survived a search beside `all` and their controls, in panel order."""
    controls = [arm.control for arm in arms if arm.control is not None]
    return arm_names.panel(config.select, [BASELINE, *controls, *(arm.name for arm in arms)])


def config_of_rung(rung: int, config: Config) -> Config:
    """Return the settings of a rung: fewer trees, and the deciding cutoff alone."""
    trees = search.trees(config.search, of=config.ranker.trees)[rung - 1]
    ranker = config.ranker.model_copy(update={"trees": trees})
    evaluate = config.evaluate.model_copy(update={"cutoffs": (found.cutoff_of(config),)})
    return config.model_copy(update={"ranker": ranker, "evaluate": evaluate})


def _name(fold: Fold, arm: Arm, rung: int) -> str:
    return f"search/rung-{rung}/{fold.prefix}{arm.name}"
