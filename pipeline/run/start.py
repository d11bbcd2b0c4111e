"""How a run starts: its directory, its source, and what can be known to be wrong before any work."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.config import Config, to_toml
from pipeline.core.errors import ConfigError, SourceError, StorageError
from pipeline.core.files import write_text
from pipeline.core.paths import RunPaths
from pipeline.core.records import read_record
from pipeline.dataset import parts
from pipeline.dataset.sources import Source, locate
from pipeline.negatives import arms as arm_names
from pipeline.negatives import select
from pipeline.negatives.arms import Arm
from pipeline.ranker.fit import require_device
from pipeline.run import search, steps
from pipeline.run.events import Progress
from pipeline.run.execute import Stage, execute, is_intact
from pipeline.run.scope import Dataset


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_root(source: Path) -> Path:
    """Return ``runs/<name of SOURCE>``: the directory's name, or the file's without its suffixes."""
    name = source.resolve().name
    return Path("runs") / (name if source.is_dir() else name.split(".")[0] or name)


def arms_of(config: Config, names: Sequence[str] = (), *, search_arms: bool = False) -> list[Arm]:
    """Return the arms of a run: the panel, or those named; of one that searches, the candidates.

    Raises:
        ConfigError: An arm or a preferred arm that does not exist, or arms are named for a search.
    """
    arm_names.preferred(config.select)
    if not search_arms:
        return arm_names.panel(config.select, names)
    if names:
        raise ConfigError("a search finds the arms itself; leave out --arms or --search")
    return arm_names.panel(config.select, [arm.name for arm in search.candidates(config.search)])


def check(
    run: RunPaths,
    source: Path | None,
    config: Config,
    arms: Sequence[Arm],
    *,
    last_stage: Stage = Stage.REPORT,
) -> Source | None:
    """Find the source and raise what can be known to be wrong before any work.

    Returns:
        The source; None where there is only the dataset that an earlier run made of it.

    Raises:
        SourceError: Nothing to read, or nothing in it looks like ranking data.
        ConfigError: Only scores are asked for, and no arm needs any.
        DeviceError: The training device is not there.
    """
    if last_stage is Stage.SCORE and not any(arm.needs_scores for arm in arms):
        raise ConfigError("`all` keeps every row without scores; name an arm that chooses, such as top-20")
    located = locate(source) if source is not None and _is_there(run, source) else None
    if located is None and not run.dataset_card.is_file():
        raise SourceError("no dataset here; start with `ranksieve run SOURCE --out`", file=run.root)
    require_device(config.ranker.device)
    return located


def _is_there(run: RunPaths, source: Path) -> bool:
    """Return whether to read the source; not where it is gone and the dataset was made of it."""
    if os.path.exists(source):  # noqa: PTH110 - answers any path
        return True
    record = read_record(run.root, "ingest")
    files = [Path(name) for role in (record.inputs if record else {}).values() for name in role or ()]
    return not files or not all(file.is_relative_to(source) for file in files)


def ingest(
    run: RunPaths,
    source: Source | None,
    config: Config,
    arms: Sequence[Arm],
    *,
    threads: int,
    progress: Progress,
) -> Dataset:
    """Have the dataset, from the source or from an earlier run, and write the settings.

    Raises:
        ConfigError: A setting that shaped the dataset has changed and there is no source, or an arm reads a column
            that the data does not have.
        StorageError: There is no source, and the dataset is not as it was made.
        SourceError: With file, line and column of the first thing that is wrong.
    """
    if source is None:
        _keep_dataset(run, config)
    else:
        execute(steps.ingest(run, source, config), threads=threads, progress=progress)
    dataset = Dataset.of(run)
    for fold in dataset.folds:
        columns = parts.schema_of(parts.split_files(run.dataset, fold.train)).names
        for arm in arms:
            select.require(arm, config.select, columns)
    write_text(run.config, to_toml(config))
    return dataset


def _keep_dataset(run: RunPaths, config: Config) -> None:
    """Go on without a source; a dataset that was put here by hand is taken as it is."""
    record = read_record(run.root, "ingest")
    if record is None:
        return
    if not is_intact(run, [run.dataset], record):
        raise StorageError(f"{run.dataset}: not as it was ingested; run again with its SOURCE")
    settings, made = config.model_dump(mode="json", include={"ingest", "split", "seed"}), record.parameters
    for name in settings:
        if name in made and made[name] != settings[name]:
            raise ConfigError(
                f"{name} decided how {run.dataset} was made: run again with its SOURCE to change it"
            )
