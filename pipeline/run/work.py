"""The work of each kind of step: the stage's function, called with the files of a run.

A step carries one of these functions and its first arguments (run, fold, arm, settings) to wherever it is executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import report as report_stage
from pipeline.core.config import Config, RankerConfig
from pipeline.core.errors import ConfigError
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts
from pipeline.dataset import ingest as ingest_stage
from pipeline.dataset import letor, parts
from pipeline.dataset.folds import Fold
from pipeline.dataset.sources import Source, is_parquet
from pipeline.evaluation import compare as compare_stage
from pipeline.evaluation import evaluate as evaluate_stage
from pipeline.negatives import dynamic
from pipeline.negatives import prepare as prepare_stage
from pipeline.negatives import select as select_stage
from pipeline.negatives.arms import Arm
from pipeline.ranker import score as score_stage
from pipeline.ranker import train as train_stage
from pipeline.ranker.bin_cache import binned_split
from pipeline.run import found, sizes
from pipeline.run.events import Task

Paths = list[Path]


def ingest(source: Source, config: Config, task: Task) -> Facts:
    """Read a source and write the dataset."""
    if not all(is_parquet(file) for file in source.files) and letor.must_compile():
        with task.waiting("compiling the reader: once, some 10 s"):
            letor.warm_up()
    document = ingest_stage.run(
        source,
        task.out[0],
        config=config.ingest,
        split=config.split,
        seed=config.seed,
        threads=task.threads,
        advance=task.advance,
    )
    ingest_stage.require_contrast(source, document["splits"])
    return document


def initial_settings(run: RunPaths, fold: Fold, config: Config) -> RankerConfig:
    """Return the settings of the initial rankers: few trees, all of them."""
    trees = {"early_stopping": 0, "trees": sizes.initial_trees(config)}
    return sizes.ranker_of(sizes.Dataset.of(run), fold, config).model_copy(update=trees)


def fit_initial(run: RunPaths, fold: Fold, config: Config, task: Task) -> Facts:
    """Train the initial rankers of a fold."""
    train, settings = found.split_files(run, fold.train), initial_settings(run, fold, config)
    keys, repeats = parts.read_keys(train), sizes.repeats(config)
    queries = keys["qid"].n_unique()
    if repeats and config.score.folds > queries:
        raise ConfigError(
            f"score.folds = {config.score.folds} but there are only {queries} training queries; use fewer folds"
        )
    notices = select_stage.too_long(keys, run.dataset / fold.train[0])
    rows = sizes.initial_rows(sizes.Dataset.of(run), fold, config) / sizes.initial_rankers(config)
    facts = score_stage.fit(
        train,
        task.out,
        repeats=repeats,
        config=settings,
        negatives=config.score.negatives,
        at_least=config.score.negatives_at_least,
        seed=config.seed,
        bins=_binned(train, found.shared_bins(run, fold, config), settings, task.threads),
        threads=task.threads,
        trees_done=task.trees_done(rows),
    )
    return {**facts, "notices": notices}


def score(run: RunPaths, fold: Fold, config: Config, task: Task) -> Facts:
    """Score the training rows of a fold."""
    train, models = found.split_files(run, fold.train), found.initial_models(run, fold, config)
    repeats = max(sizes.repeats(config), 1)
    return score_stage.run(
        train, models, task.out[0], repeats=repeats, seed=config.seed, threads=task.threads
    )


def select(run: RunPaths, fold: Fold, arm: Arm, config: Config, task: Task) -> Facts:
    """Choose the rows of an arm, by SCORES if it needs them."""
    train, scores = found.split_files(run, fold.train), run.fold(fold.prefix).scores
    settings, seed = config.select, config.seed
    if arm.needs_scores:
        files = train if arm.reads(settings) else []
        return select_stage.run(scores, task.out[0], arm=arm, config=settings, seed=seed, files=files)
    notices = select_stage.too_long(parts.read_keys(train), run.dataset / fold.train[0])
    return {
        **select_stage.run_all(train, task.out[0], arm=arm, config=settings, seed=seed),
        "notices": notices,
    }


def choose_and_train(run: RunPaths, fold: Fold, arm: Arm, config: Config, task: Task) -> Facts:
    """Train the ranker of an arm that chooses again; write it, the scores it last chose by, and that choice."""
    model, last_scores, selection = task.out
    train, scores = found.split_files(run, fold.train), run.fold(fold.prefix).scores
    dataset = sizes.Dataset.of(run)
    settings = sizes.ranker_of(dataset, fold, config)
    facts = dynamic.run(
        train,
        scores,
        model,
        last_scores,
        arm=arm,
        select=config.select,
        config=settings,
        seed=config.seed,
        vali=found.early_stopping_lists(run, fold, config),
        cutoff=found.cutoff_of(config),
        bins=_binned(train, found.own_bins(run, fold, config), settings, task.threads),
        threads=task.threads,
        trees_done=task.trees_done(sizes.arm_rows(dataset, fold, arm)),
    )
    chosen = select_stage.run(
        scores,
        selection,
        arm=arm,
        config=config.select,
        seed=config.seed,
        files=train if arm.reads(config.select) else [],
        ranked=last_scores,
        round=facts["rounds"] - 1,
    )
    return {**facts, "selection": chosen}


def prepare(run: RunPaths, fold: Fold, arm: Arm, task: Task) -> Facts:
    """Write the prepared set of an arm."""
    train, selection = found.split_files(run, fold.train), run.fold(fold.prefix).selection(arm.name)
    return prepare_stage.run(train, selection, task.out[0], bags=arm.bags)


def train(run: RunPaths, fold: Fold, arm: Arm, config: Config, task: Task) -> Facts:
    """Train the ranker of an arm."""
    rows, dataset = found.prepared_files(run, fold, arm), sizes.Dataset.of(run)
    settings = sizes.ranker_of(dataset, fold, config, arm)
    facts = train_stage.run(
        rows,
        task.out[0],
        vali=found.early_stopping_lists(run, fold, config),
        config=settings,
        seed=config.seed,
        cutoff=found.cutoff_of(config),
        arm=arm.name,
        bags=arm.bags,
        gains=found.gains_of(arm, config),
        bins=_binned(rows, found.model_bins(run, fold, arm, config), settings, task.threads),
        threads=task.threads,
        trees_done=task.trees_done(sizes.arm_rows(dataset, fold, arm)),
    )
    notices = []
    if facts["rows"] // arm.bags < 2 * (settings.min_rows_per_leaf or 1):
        notices.append(
            f"{fold.prefix}model/{arm.name}: {facts['rows']:,} rows cannot fill two leaves of"
            f" ranker.min_rows_per_leaf = {settings.min_rows_per_leaf}, so the ranker is constant; set it lower"
        )
    return {**facts, "notices": notices}


def evaluate(
    run: RunPaths, fold: Fold, arm: Arm, config: Config, lists: Mapping[str, Paths], task: Task
) -> Facts:
    """Evaluate the ranker of an arm on lists of the dataset."""
    model = run.fold(fold.prefix).model(arm.name)
    cutoffs, number = config.evaluate.cutoffs, fold.number
    return evaluate_stage.run(
        model, lists, task.out[0], arm=arm.name, fold=number, cutoffs=cutoffs, threads=task.threads
    )


def concat_metrics(files: Paths, task: Task) -> Facts:
    """Put METRICS of arms or folds together, in the order of the files."""
    return evaluate_stage.concat_metrics(files, task.out[0])


def compare(
    metrics: Path, arms: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], task: Task
) -> Facts:
    """Compare the arms."""
    return compare_stage.run(metrics, pl.DataFrame(list(arms)), task.out[0], **settings)


def report(run: RunPaths, document: dict[str, Any], task: Task) -> Facts:
    """Write the report for a browser."""
    return report_stage.run(run.summary, run.metrics, task.out[0], **document)


def _binned(files: Paths, bins: Path | None, config: RankerConfig, threads: int) -> Path | None:
    """Return the binned split of a fold that has one, made if it is not there."""
    return None if bins is None else binned_split(files, bins, config=config, threads=threads)
