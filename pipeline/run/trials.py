"""The trials of a search as steps: an arm's ordinary steps with fewer trees, in a directory of their own.

All that stays of a trial is its validation METRICS: prepared sets of dozens of candidates would fill the disk.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from pipeline.negatives import arms as arm_names
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.run import search
from pipeline.run.events import Event, Task
from pipeline.run.execute import Stage, Step, execute
from pipeline.run.scope import ArmScope, in_folds
from pipeline.run.steps import arm_steps


def trial(of: ArmScope, rung: int) -> Step:
    """SCORES and JUDGMENTS -> validation METRICS of a candidate trained with the trees of a rung, from 1."""
    at, name = of.at, _name(of, rung)
    less = replace(of, at=replace(at, config=config_of_rung(rung, at.config)))
    settings = less.at.config.select
    return Step(
        at.run,
        name,
        Stage.SELECT,
        partial(_try, less),
        inputs={"train": at.train, "scores": [at.paths.scores], "vali": at.files(at.fold.vali)},
        parameters={
            "arm": of.arm.name,
            "ranker": less.at.ranker(bags=of.arm.bags).model_dump(),
            "seed": at.config.seed,
            "cutoff": at.cutoff,
            "fold": at.fold.number,
            **of.arm.options(settings),
            "hard_gain": settings.hard_gain,
        },
        outputs=[at.run.trial(name)],
        cost=less.cost,
    )


def _try(of: ArmScope, task: Task) -> Facts:
    """Execute an arm's steps in a scratch directory and keep its METRICS."""

    def pass_on(event: Event) -> None:
        if event.state == "advance":
            task.advance(event.amount)

    with _scratch(task.out[0]) as directory:
        there = replace(of, at=replace(of.at, run=RunPaths(directory, shared=of.at.run.root)))
        steps = arm_steps(there, evaluated=("vali",))
        records = {step.name: execute(step, threads=task.threads, progress=pass_on) for step in steps}
        trained = records[of.step("model")]
        there.at.paths.arm_metrics(of.arm.name).replace(task.out[0])
        return {
            "rows": (there.selection or {})["rows"],
            "model": sha256(there.at.paths.model(of.arm.name)),
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
    """Rank the candidates of a rung that was tried, in panel order; ``failed``: those that LightGBM failed on.

    Returns:
        What :func:`pipeline.run.search.promote` returns, and ``trees``.
    """
    counts = search.trees(config.search, of=config.ranker.trees)
    keep = search.survivors(config.search, len(arms), last=rung == len(counts))
    rows = [{"arm": arm.name} if arm in failed else _outcome(run, arm, rung, config) for arm in arms]
    types = {"arm": pl.String, "rows": pl.Int64, "ndcg_vali": pl.Float64, "model": pl.String}
    ranked = search.promote(pl.DataFrame(rows, schema=types), keep=keep)
    return ranked.with_columns(trees=pl.lit(counts[rung - 1]))


def _outcome(run: RunPaths, arm: Arm, rung: int, config: Config) -> dict[str, Any]:
    """Return a candidate's row for the ranking: rows over all folds, NDCG over all their validation queries."""
    steps = [trial(of, rung) for of in in_folds(run, arm, config)]
    facts = [step.record.facts for step in steps if step.record is not None]
    files = [output for step in steps for output in step.outputs]
    return {
        "arm": arm.name,
        "rows": sum(fact["rows"] for fact in facts),
        "ndcg_vali": search.mean_ndcg(files, cutoff=config.evaluate.cutoffs[-1]),
        "model": " ".join(fact["model"] for fact in facts),
    }


def search_table(run: RunPaths, rungs: Sequence[pl.DataFrame], config: Config) -> Step:
    """Validation METRICS of every trial -> SEARCH."""
    tried = search.concat_rungs(rungs)
    done = tried.filter(pl.col("ndcg_vali").is_not_null())
    files = [
        run.trial(_name(of, rung))
        for arm, rung in zip(done["arm"], done["rung"], strict=True)
        for of in in_folds(run, arm_names.parse(arm), config)
    ]
    return Step(
        run,
        "search",
        Stage.SELECT,
        partial(_write_search, tried),
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
    evaluate = config.evaluate.model_copy(update={"cutoffs": config.evaluate.cutoffs[-1:]})
    return config.model_copy(update={"ranker": ranker, "evaluate": evaluate})


def _name(of: ArmScope, rung: int) -> str:
    return f"search/rung-{rung}/{of.at.fold.prefix}{of.arm.name}"
