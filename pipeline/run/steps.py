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
from pipeline.dataset.sources import Source
from pipeline.negatives.arms import Arm, preferred
from pipeline.run import work
from pipeline.run.execute import Stage, Step
from pipeline.run.figures import arm_figures, notices
from pipeline.run.scope import ArmScope, Dataset, FoldScope

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
        at = FoldScope(run, fold, config)
        yield from fold_steps(at, arms)
        for arm in arms:
            yield from arm_steps(ArmScope(at, arm))
    yield from table_steps(run, arms, config)


def fold_steps(at: FoldScope, arms: Sequence[Arm]) -> Iterator[Step]:
    """Yield the steps that score a fold's training rows; none where no arm needs scores."""
    if any(arm.needs_scores for arm in arms):
        yield initial(at)
        yield scores(at)


def arm_steps(of: ArmScope, *, evaluated: Sequence[str] = EVALUATED) -> Iterator[Step]:
    """Yield the steps of an arm in a fold."""
    yield choose_and_train(of) if of.arm.chooses_again else selection(of)
    if not of.keeps_everything:
        yield prepared(of)
    if not of.arm.chooses_again:
        yield model(of)
    yield metrics(of, evaluated=evaluated)


def table_steps(run: RunPaths, arms: Sequence[Arm], config: Config) -> Iterator[Step]:
    """Yield the steps that put the figures together, of the arms that were trained in every fold."""
    at = {fold.prefix: run.fold(fold.prefix) for fold in Dataset.of(run).folds}
    for prefix, paths in at.items():
        files = [paths.arm_metrics(arm.name) for arm in arms]
        yield _concatenated(run, f"{prefix}metrics", files, paths.metrics)
    if len(at) > 1:
        yield _concatenated(run, "metrics", [paths.metrics for paths in at.values()], run.metrics)
    yield summary(run, arms, config)
    yield report(run, arms, config)


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


def initial(at: FoldScope) -> Step:
    """JUDGMENTS -> the initial rankers of a fold."""
    settings, score = at.initial_settings, at.config.score
    return Step(
        at.run,
        f"{at.fold.prefix}initial",
        Stage.SCORE,
        partial(work.fit_initial, at),
        inputs={"train": at.train},
        parameters={
            "ranker": settings.model_dump(),
            "seed": at.config.seed,
            "folds": score.folds if at.repeats else 1,
            "repeats": at.repeats,
            **score.model_dump(include={"negatives", "negatives_at_least"}),
            **_bins_parameter(at.shared_bins),
        },
        outputs=at.initial_models,
        cost=at.initial_rows * settings.trees,
    )


def scores(at: FoldScope) -> Step:
    """Initial rankers -> SCORES."""
    return Step(
        at.run,
        f"{at.fold.prefix}scores",
        Stage.SCORE,
        partial(work.score, at),
        inputs={"train": at.train, "models": at.initial_models},
        parameters={"seed": at.config.seed, "repeats": max(at.repeats, 1)},
        outputs=[at.paths.scores],
    )


def selection(of: ArmScope) -> Step:
    """SCORES -> SELECTION of an arm; for `all`, which needs no scores, JUDGMENTS -> SELECTION."""
    at, options, inputs = of.at, {}, {"train": of.at.train}
    if of.arm.needs_scores:
        options = of.arm.options(at.config.select)
        # Most arms need the scores alone; the others are made again when the training split changes.
        inputs = {"scores": [at.paths.scores], **(inputs if of.arm.reads(at.config.select) else {})}
    return Step(
        at.run,
        of.step("selection"),
        Stage.SELECT,
        partial(work.select, of),
        inputs=inputs,
        parameters={"arm": of.arm.name, **options, "seed": at.config.seed},
        outputs=[at.paths.selection(of.arm.name)],
    )


def choose_and_train(of: ArmScope) -> Step:
    """JUDGMENTS + SCORES -> ranker and last SELECTION of an arm whose own ranker decides what it trains on."""
    at, name, vali = of.at, of.arm.name, of.at.early_stopping_lists
    return Step(
        at.run,
        of.step("model"),
        Stage.SELECT,
        partial(work.choose_and_train, of),
        inputs={"train": at.train, "scores": [at.paths.scores], "vali": vali},
        parameters={
            "ranker": at.ranker().model_dump(),
            "seed": at.config.seed,
            "arm": name,
            **of.arm.options(at.config.select),
            **({"cutoff": at.cutoff} if vali else {}),
        },
        outputs=[at.paths.model(name), at.paths.last_scores(name), at.paths.selection(name)],
        cost=of.cost,
    )


def prepared(of: ArmScope) -> Step:
    """SELECTION -> prepared set."""
    paths, name = of.at.paths, of.arm.name
    return Step(
        of.at.run,
        of.step("prepared"),
        Stage.SELECT,
        partial(work.prepare, of),
        inputs={"train": of.at.train, "selection": [paths.selection(name)]},
        parameters={"bags": of.arm.bags} if of.arm.bags > 1 else {},
        outputs=[paths.prepared(name)],
    )


def model(of: ArmScope) -> Step:
    """Prepared set -> retrained ranker."""
    at, arm, vali = of.at, of.arm, of.at.early_stopping_lists
    return Step(
        at.run,
        of.step("model"),
        Stage.TRAIN,
        partial(work.train, of),
        inputs={"rows": of.prepared, "vali": vali},
        parameters={
            "ranker": at.ranker(bags=arm.bags).model_dump(),
            "seed": at.config.seed,
            **({"bags": arm.bags} if arm.bags > 1 else {}),
            **({"hard_gain": at.config.select.hard_gain} if arm.graded else {}),
            **({"cutoff": at.cutoff} if vali else {}),
            **_bins_parameter(of.bins),
        },
        outputs=[at.paths.model(arm.name)],
        cost=of.cost,
    )


def metrics(of: ArmScope, *, evaluated: Sequence[str]) -> Step:
    """Model -> METRICS of an arm."""
    at, name = of.at, of.arm.name
    lists = {split: at.files(getattr(at.fold, split)) for split in evaluated}
    return Step(
        at.run,
        of.step("metrics"),
        Stage.EVALUATE,
        partial(work.evaluate, of, lists),
        inputs={"model": [at.paths.model(name)], **lists},
        parameters={"cutoffs": at.config.evaluate.cutoffs, "fold": at.fold.number, "arm": name},
        outputs=[at.paths.arm_metrics(name)],
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
    there, figures = {arm.name for arm in arms}, [arm_figures(run, arm, config) for arm in arms]
    for figure in figures:  # a control may not be asked for, and its training can fail
        figure["control"] = figure["control"] if figure["control"] in there else None
    settings = {
        "seed": config.seed,
        "resamples": config.evaluate.resamples,
        "cutoff": config.evaluate.cutoffs[-1],
        "prefer": preferred(config.select).name,
    }
    return Step(
        run,
        "summary",
        Stage.EVALUATE,
        partial(work.compare, run.metrics, figures, settings),
        inputs={"metrics": [run.metrics]},
        parameters={**settings, "arms": figures},
        outputs=[run.summary],
    )


def report(run: RunPaths, arms: Sequence[Arm], config: Config, *, tried: int = 0) -> Step:
    """Everything -> the report for a browser; ``tried``: how many arms a search tried."""
    document: dict[str, Any] = {
        "dataset": dict(Dataset.of(run).document),
        "config": config.model_dump(mode="json"),
        "notices": notices(run, arms, config, tried=tried),
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


def _bins_parameter(bins: Path | None) -> dict[str, str]:
    return {} if bins is None else {"bins": "of all rows"}
