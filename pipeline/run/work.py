"""The work of each kind of step: the stage's function, called with the files of a run.

A step carries one of these functions and its first arguments to wherever it is executed. Stages that come late in a run
are imported when they are asked for: reading alone starts sooner.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import Config, RankerConfig
from pipeline.core.errors import ConfigError
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts
from pipeline.dataset import ingest as ingest_stage
from pipeline.dataset import letor, parts
from pipeline.dataset.sources import Source, is_parquet
from pipeline.negatives import prepare as prepare_stage
from pipeline.negatives import select as select_stage
from pipeline.ranker import score as score_stage
from pipeline.ranker.bin_cache import binned_split
from pipeline.ranker.fit import Training, fit_all
from pipeline.run.events import Task
from pipeline.run.scope import ArmScope, FoldScope


def ingest(source: Source, config: Config, task: Task) -> Facts:
    """Read a source and write the dataset."""
    if not all(is_parquet(file) for file in source.files) and letor.must_compile():
        with task.waiting("compiling the reader: once, some 5 s"):
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


def fit_initial(at: FoldScope, task: Task) -> Facts:
    """Train the initial rankers of a fold."""
    score, settings, keys = at.config.score, at.initial_settings, parts.read_keys(at.train)
    queries = keys["qid"].n_unique()
    if at.repeats and score.folds > queries:
        raise ConfigError(
            f"score.folds = {score.folds} but there are only {queries} training queries; use fewer folds"
        )
    notices = select_stage.too_long(keys, at.run.dataset / at.fold.train[0])
    facts = score_stage.fit(
        at.train,
        task.out,
        repeats=at.repeats,
        config=settings,
        negatives=score.negatives,
        at_least=score.negatives_at_least,
        seed=at.config.seed,
        bins=_binned(at.train, at.shared_bins, settings, task),
        threads=task.threads,
        trees_done=task.trees_done(at.initial_rows / at.initial_rankers),
    )
    return {**facts, "notices": notices}


def score(at: FoldScope, task: Task) -> Facts:
    """Score the training rows of a fold."""
    repeats, seed = max(at.repeats, 1), at.config.seed
    return score_stage.run(
        at.train, at.initial_models, task.out[0], repeats=repeats, seed=seed, threads=task.threads
    )


def select(of: ArmScope, task: Task) -> Facts:
    """Choose the rows of an arm, by SCORES if it needs them."""
    at, arm, settings, seed = of.at, of.arm, of.at.config.select, of.at.config.seed
    if arm.needs_scores:
        files = at.train if arm.reads(settings) else []
        return select_stage.run(
            at.paths.scores, task.out[0], arm=arm, config=settings, seed=seed, files=files
        )
    notices = select_stage.too_long(parts.read_keys(at.train), at.run.dataset / at.fold.train[0])
    return {
        **select_stage.run_all(at.train, task.out[0], arm=arm, config=settings, seed=seed),
        "notices": notices,
    }


def choose_and_train(of: ArmScope, task: Task) -> Facts:
    """Train the ranker of an arm that chooses again; write it, the scores it last chose by, and that choice."""
    from pipeline.negatives import dynamic

    at, arm, select, seed = of.at, of.arm, of.at.config.select, of.at.config.seed
    (model, last_scores, selection), settings = task.out, at.ranker()
    facts = dynamic.run(
        at.train,
        at.paths.scores,
        model,
        last_scores,
        arm=arm,
        select=select,
        config=settings,
        seed=seed,
        vali=at.early_stopping_lists,
        cutoff=at.cutoff,
        bins=_binned(at.train, at.bins, settings, task),
        threads=task.threads,
        trees_done=task.trees_done(of.rows),
    )
    chosen = select_stage.run(
        at.paths.scores,
        selection,
        arm=arm,
        config=select,
        seed=seed,
        files=at.train if arm.reads(select) else [],
        ranked=last_scores,
        round=facts["rounds"] - 1,
    )
    return {**facts, "selection": chosen}


def prepare(of: ArmScope, task: Task) -> Facts:
    """Write the prepared set of an arm."""
    chosen = of.at.paths.selection(of.arm.name)
    return prepare_stage.run(of.at.train, chosen, task.out[0], bags=of.arm.bags)


def train(of: ArmScope, task: Task) -> Facts:
    """Train the ranker of an arm; that of a bagged one is the sum of a ranker for each part."""
    at, arm, prepared = of.at, of.arm, of.prepared
    settings = at.ranker(bags=arm.bags)
    sets = [prepared] if arm.bags == 1 else [[part] for part in prepared]
    facts = fit_all(
        [Training(each, task.out[0]) for each in sets],
        config=settings,
        seed=at.config.seed,
        threads=task.threads,
        merged_model=task.out[0] if arm.bags > 1 else None,
        bins=_binned(prepared, of.bins, settings, task),
        vali=at.early_stopping_lists,
        cutoff=at.cutoff,
        gains=of.gains,
        what=f"arm {arm.name!r}",
        trees_done=task.trees_done(of.rows),
    )
    notices = []
    if facts["rows"] // arm.bags < 2 * (settings.min_rows_per_leaf or 1):
        notices.append(
            f"{of.step('model')}: {facts['rows']:,} rows cannot fill two leaves of ranker.min_rows_per_leaf"
            f" = {settings.min_rows_per_leaf}, so the ranker is constant; set it lower"
        )
    return {**facts, "notices": notices}


def evaluate(of: ArmScope, lists: Mapping[str, list[Path]], task: Task) -> Facts:
    """Evaluate the ranker of an arm on lists of the dataset."""
    from pipeline.evaluation import evaluate as evaluate_stage

    model, cutoffs = of.at.paths.model(of.arm.name), of.at.config.evaluate.cutoffs
    arm, fold, threads = of.arm.name, of.at.fold.number, task.threads
    return evaluate_stage.run(model, lists, task.out[0], arm=arm, fold=fold, cutoffs=cutoffs, threads=threads)


def concat_metrics(files: list[Path], task: Task) -> Facts:
    """Put METRICS of arms or folds together, in the order of the files."""
    from pipeline.evaluation import evaluate as evaluate_stage

    return evaluate_stage.concat_metrics(files, task.out[0])


def compare(
    metrics: Path, arms: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], task: Task
) -> Facts:
    """Compare the arms."""
    import polars as pl

    from pipeline.evaluation import compare as compare_stage

    return compare_stage.run(metrics, pl.DataFrame(list(arms)), task.out[0], **settings)


def report(run: RunPaths, document: dict[str, Any], task: Task) -> Facts:
    """Write the report for a browser."""
    from pipeline import report as report_stage

    return report_stage.run(run.summary, run.metrics, task.out[0], **document)


def _binned(files: list[Path], bins: Path | None, config: RankerConfig, task: Task) -> Path | None:
    """Return the binned split of a fold that has one, made if it is not there."""
    return None if bins is None else binned_split(files, bins, config=config, threads=task.threads)
