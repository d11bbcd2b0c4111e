"""The graph of a run: every step as a value, in order. Run, inspect, export and the progress display read it here.

Each function takes values that can be pickled and returns a :class:`~pipeline.run.execute.Step`; building one reads
nothing but the dataset's card and records. The chains (:func:`fold_steps`, :func:`arm_steps`, :func:`table_steps`)
say which step follows which. What the next step is may depend on what the last one found out, so each is executed
before the next is asked for.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipeline.core.config import Config
from pipeline.core.paths import RunPaths
from pipeline.dataset.folds import Fold
from pipeline.dataset.sources import Source
from pipeline.negatives.arms import Arm, preferred
from pipeline.run import found, sizes, work
from pipeline.run.execute import Stage, Step
from pipeline.run.sizes import Dataset

KINDS: Final = (
    "ingest",
    "initial",
    "scores",
    "search",
    "selection",
    "prepared",
    "model",
    "metrics",
    "summary",
    "report",
)
"""The kinds of steps, in order; a step is named ``[fold-N/]KIND[/WHICH]``."""

EVALUATED: Final = ("vali", "test")
"""The lists that rankers are evaluated on; trials of a search on the first alone."""


def kind_of(step: str) -> tuple[str, str]:
    """Split a step's name, without its fold, into kind and which."""
    name = step.partition("/")[2] if step.startswith("fold-") else step
    kind, _, which = name.partition("/")
    return kind, which


# ---- The chains -------------------------------------------------------------------------------------------


def every_step(run: RunPaths, arms: Sequence[Arm], config: Config) -> Iterator[Step]:
    """Yield every step of a run behind ``ingest``, as far as records tell which there are."""
    for fold in Dataset.of(run).folds:
        yield from fold_steps(run, fold, arms, config)
        for arm in arms:
            yield from arm_steps(run, fold, arm, config)
    yield from table_steps(run, arms, config)


def fold_steps(run: RunPaths, fold: Fold, arms: Sequence[Arm], config: Config) -> Iterator[Step]:
    """Yield the steps that score a fold's training rows; none where no arm needs scores."""
    if any(arm.needs_scores for arm in arms):
        yield initial(run, fold, config)
        yield scores(run, fold, config)


def arm_steps(
    run: RunPaths, fold: Fold, arm: Arm, config: Config, *, evaluated: Sequence[str] = EVALUATED
) -> Iterator[Step]:
    """Yield the steps of an arm in a fold."""
    yield choose_and_train(run, fold, arm, config) if arm.chooses_again else selection(run, fold, arm, config)
    if not found.keeps_everything(run, fold, arm):
        yield prepared(run, fold, arm)
    if not arm.chooses_again:
        yield model(run, fold, arm, config)
    yield metrics(run, fold, arm, config, evaluated=evaluated)


def table_steps(run: RunPaths, arms: Sequence[Arm], config: Config, *, tried: int = 0) -> Iterator[Step]:
    """Yield the steps that put the figures of all arms and folds together.

    Args:
        run: The run.
        arms: The arms that were trained in every fold.
        config: Every setting.
        tried: How many arms a search tried; 0: there was none.
    """
    folds = Dataset.of(run).folds
    for fold in folds:
        at = run.fold(fold.prefix)
        yield _concatenated(
            run, f"{fold.prefix}metrics", [at.arm_metrics(arm.name) for arm in arms], at.metrics
        )
    if len(folds) > 1:
        yield _concatenated(run, "metrics", [run.fold(fold.prefix).metrics for fold in folds], run.metrics)
    yield summary(run, arms, config)
    yield report(run, arms, config, tried=tried)


# ---- The steps --------------------------------------------------------------------------------------------


def ingest(run: RunPaths, source: Source, config: Config) -> Step:
    """SOURCE -> JUDGMENTS."""
    held_out = {split.name: split.hold_out for split in source.splits}
    # Where no split is drawn, a new seed needs no new dataset.
    names = {"ingest", "split", "seed"} if any(held_out.values()) else {"ingest"}
    settings = config.model_dump(mode="json", include=names)
    return Step(
        run,
        "ingest",
        Stage.INGEST,
        partial(work.ingest, source, config),
        inputs={split.name: source.stored(split) for split in source.splits},
        parameters={**settings, "layout": source.layout, "splits": held_out},
        outputs=[run.dataset],
    )


def initial(run: RunPaths, fold: Fold, config: Config) -> Step:
    """JUDGMENTS -> the initial rankers of a fold."""
    repeats = sizes.repeats(config)
    return Step(
        run,
        f"{fold.prefix}initial",
        Stage.SCORE,
        partial(work.fit_initial, run, fold, config),
        inputs={"train": found.split_files(run, fold.train)},
        parameters={
            "ranker": work.initial_settings(run, fold, config).model_dump(),
            "seed": config.seed,
            "folds": config.score.folds if repeats else 1,
            "repeats": repeats,
            **config.score.model_dump(include={"negatives", "negatives_at_least"}),
            **_bins_parameter(found.shared_bins(run, fold, config)),
        },
        outputs=found.initial_models(run, fold, config),
        cost=sizes.initial_cost(Dataset.of(run), fold, config),
    )


def scores(run: RunPaths, fold: Fold, config: Config) -> Step:
    """Initial rankers -> SCORES."""
    train, models = found.split_files(run, fold.train), found.initial_models(run, fold, config)
    return Step(
        run,
        f"{fold.prefix}scores",
        Stage.SCORE,
        partial(work.score, run, fold, config),
        inputs={"train": train, "models": models},
        parameters={"seed": config.seed, "repeats": max(sizes.repeats(config), 1)},
        outputs=[run.fold(fold.prefix).scores],
    )


def selection(run: RunPaths, fold: Fold, arm: Arm, config: Config) -> Step:
    """SCORES -> SELECTION of an arm; for `all`, which needs no scores, JUDGMENTS -> SELECTION."""
    at, train = run.fold(fold.prefix), {"train": found.split_files(run, fold.train)}
    options, inputs = {}, train
    if arm.needs_scores:
        options = arm.options(config.select)
        # Most arms need the scores alone; the others are made again when the training split changes.
        inputs = {"scores": [at.scores], **(train if arm.reads(config.select) else {})}
    return Step(
        run,
        f"{fold.prefix}selection/{arm.name}",
        Stage.SELECT,
        partial(work.select, run, fold, arm, config),
        inputs=inputs,
        parameters={"arm": arm.name, **options, "seed": config.seed},
        outputs=[at.selection(arm.name)],
    )


def choose_and_train(run: RunPaths, fold: Fold, arm: Arm, config: Config) -> Step:
    """JUDGMENTS + SCORES -> ranker and last SELECTION of an arm whose own ranker decides what it trains on."""
    at, dataset, vali = run.fold(fold.prefix), Dataset.of(run), found.early_stopping_lists(run, fold, config)
    return Step(
        run,
        f"{fold.prefix}model/{arm.name}",
        Stage.SELECT,
        partial(work.choose_and_train, run, fold, arm, config),
        inputs={"train": found.split_files(run, fold.train), "scores": [at.scores], "vali": vali},
        parameters={
            "ranker": sizes.ranker_of(dataset, fold, config).model_dump(),
            "seed": config.seed,
            "arm": arm.name,
            **arm.options(config.select),
            **_cutoff_parameter(vali, config),
        },
        outputs=[at.model(arm.name), at.last_scores(arm.name), at.selection(arm.name)],
        cost=sizes.arm_cost(dataset, fold, arm, config),
    )


def prepared(run: RunPaths, fold: Fold, arm: Arm) -> Step:
    """SELECTION -> prepared set."""
    at = run.fold(fold.prefix)
    return Step(
        run,
        f"{fold.prefix}prepared/{arm.name}",
        Stage.SELECT,
        partial(work.prepare, run, fold, arm),
        inputs={"train": found.split_files(run, fold.train), "selection": [at.selection(arm.name)]},
        parameters={"bags": arm.bags} if arm.bags > 1 else {},
        outputs=[at.prepared(arm.name)],
    )


def model(run: RunPaths, fold: Fold, arm: Arm, config: Config) -> Step:
    """Prepared set -> retrained ranker."""
    dataset, vali = Dataset.of(run), found.early_stopping_lists(run, fold, config)
    return Step(
        run,
        f"{fold.prefix}model/{arm.name}",
        Stage.TRAIN,
        partial(work.train, run, fold, arm, config),
        inputs={"rows": found.prepared_files(run, fold, arm), "vali": vali},
        parameters={
            "ranker": sizes.ranker_of(dataset, fold, config, arm).model_dump(),
            "seed": config.seed,
            **({"bags": arm.bags} if arm.bags > 1 else {}),
            **({"hard_gain": config.select.hard_gain} if arm.graded else {}),
            **_cutoff_parameter(vali, config),
            **_bins_parameter(found.model_bins(run, fold, arm, config)),
        },
        outputs=[run.fold(fold.prefix).model(arm.name)],
        cost=sizes.arm_cost(dataset, fold, arm, config),
    )


def metrics(run: RunPaths, fold: Fold, arm: Arm, config: Config, *, evaluated: Sequence[str]) -> Step:
    """Model -> METRICS of an arm."""
    at, lists = (
        run.fold(fold.prefix),
        {split: found.split_files(run, getattr(fold, split)) for split in evaluated},
    )
    return Step(
        run,
        f"{fold.prefix}metrics/{arm.name}",
        Stage.EVALUATE,
        partial(work.evaluate, run, fold, arm, config, lists),
        inputs={"model": [at.model(arm.name)], **lists},
        parameters={"cutoffs": config.evaluate.cutoffs, "fold": fold.number, "arm": arm.name},
        outputs=[at.arm_metrics(arm.name)],
    )


def _concatenated(run: RunPaths, name: str, files: list[Path], out: Path) -> Step:
    """METRICS of several arms or folds -> one table, in the given order."""
    return Step(
        run,
        name,
        Stage.EVALUATE,
        partial(work.concat_metrics, files),
        inputs={"metrics": files},
        parameters={"order": [file.relative_to(run.root).as_posix() for file in files]},
        outputs=[out],
    )


def summary(run: RunPaths, arms: Sequence[Arm], config: Config) -> Step:
    """METRICS -> SUMMARY."""
    there, facts = {arm.name for arm in arms}, [found.arm_facts(run, arm) for arm in arms]
    for fact in facts:  # a control may not be asked for, and its training can fail
        fact["control"] = fact["control"] if fact["control"] in there else None
    settings = {
        "seed": config.seed,
        "resamples": config.evaluate.resamples,
        "cutoff": found.cutoff_of(config),
        "prefer": preferred(config.select).name,
    }
    return Step(
        run,
        "summary",
        Stage.EVALUATE,
        partial(work.compare, run.metrics, facts, settings),
        inputs={"metrics": [run.metrics]},
        parameters={**settings, "arms": facts},
        outputs=[run.summary],
    )


def report(run: RunPaths, arms: Sequence[Arm], config: Config, *, tried: int = 0) -> Step:
    """Everything -> the report for a browser."""
    document: dict[str, Any] = {
        "dataset": dict(Dataset.of(run).document),
        "config": config.model_dump(mode="json"),
        "notices": found.notices(run, arms, tried=tried),
    }
    return Step(
        run,
        "report",
        Stage.REPORT,
        partial(work.report, run, document),
        inputs={"summary": [run.summary], "metrics": [run.metrics]},
        parameters=document,
        outputs=[run.report],
    )


def _cutoff_parameter(vali: list[Path], config: Config) -> dict[str, int]:
    return {"cutoff": found.cutoff_of(config)} if vali else {}


def _bins_parameter(bins: Path | None) -> dict[str, str]:
    return {} if bins is None else {"bins": "of all rows"}
