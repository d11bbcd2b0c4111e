"""What earlier steps of a run found out, read from its records, and what follows for the next ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import Config
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts, read_record
from pipeline.dataset import parts
from pipeline.dataset.folds import Fold
from pipeline.negatives import grades
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.ranker.bin_cache import WORTH
from pipeline.ranker.score import IN_SAMPLE
from pipeline.run.sizes import Dataset, initial_rankers, initial_rows, repeats


def split_files(run: RunPaths, splits: Sequence[str]) -> list[Path]:
    """Return the Parquet parts of dataset splits."""
    return parts.split_files(run.dataset, splits)


def cutoff_of(config: Config) -> int:
    """Return the cutoff that decides: the last one."""
    return config.evaluate.cutoffs[-1]


def gains_of(arm: Arm, config: Config) -> list[float]:
    """Return the gain of each grade of a graded arm; empty for others."""
    return grades.gains(config.select.hard_gain) if arm.graded else []


def early_stopping_lists(run: RunPaths, fold: Fold, config: Config) -> list[Path]:
    """Return the lists that rankers stop early on; none where they train all trees."""
    return split_files(run, fold.vali) if config.ranker.early_stopping else []


def initial_models(run: RunPaths, fold: Fold, config: Config) -> list[Path]:
    """Return the initial rankers of a fold, those of the first repeat first."""
    numbers = range(initial_rankers(config)) if repeats(config) else [IN_SAMPLE]
    return [run.fold(fold.prefix).initial_model(number) for number in numbers]


# ---- Selections -------------------------------------------------------------------------------------------


def selection_facts(run: RunPaths, fold: Fold, arm: Arm) -> Facts | None:
    """Return what the selection of an arm found out; None before it was made."""
    kind = "model" if arm.chooses_again else "selection"
    record = read_record(run.root, f"{fold.prefix}{kind}/{arm.name}")
    facts = record and (record.facts.get("selection") if arm.chooses_again else record.facts)
    return facts or None


def keeps_everything(run: RunPaths, fold: Fold, arm: Arm) -> bool:
    """Return whether an arm trains on the training split as it is; before its selection: whether it is `all`."""
    facts = selection_facts(run, fold, arm)
    return arm.name == BASELINE if facts is None else arm.keeps_everything(facts)


def prepared_files(run: RunPaths, fold: Fold, arm: Arm) -> list[Path]:
    """Return the Parquet parts an arm trains on; those of the dataset for one that keeps every row."""
    if keeps_everything(run, fold, arm):
        return split_files(run, fold.train)
    return parts.split_files(run.fold(fold.prefix).prepared(arm.name).parent, [arm.name])


# ---- Bins -------------------------------------------------------------------------------------------------


def own_bins(run: RunPaths, fold: Fold, config: Config) -> Path | None:
    """Return where the bins of a fold lie, if it is worth binning as a whole; other devices bin in their own way."""
    worth = config.ranker.device == "cpu" and Dataset.of(run).values(fold) >= WORTH
    return run.fold(fold.prefix).bins if worth else None


def shared_bins(run: RunPaths, fold: Fold, config: Config) -> Path | None:
    """Return the bins that the initial rankers and `all` train on; None: they bin their own rows.

    They are shared where the initial rankers train on at least as many rows as the fold has, over all of them; with
    fewer, binning the rows of each ranker costs less. Which arms there are changes nothing.
    """
    dataset = Dataset.of(run)
    enough = initial_rows(dataset, fold, config) >= dataset.total(fold, "rows")
    return own_bins(run, fold, config) if enough else None


def model_bins(run: RunPaths, fold: Fold, arm: Arm, config: Config) -> Path | None:
    """Return the bins that an arm trains on, if it keeps every row and they are shared."""
    return shared_bins(run, fold, config) if keeps_everything(run, fold, arm) else None


# ---- For the summary and the report -----------------------------------------------------------------------


def arm_facts(run: RunPaths, arm: Arm) -> dict[str, Any]:
    """Return an arm's row for the comparison: rows and seconds summed over the folds."""
    folds = Dataset.of(run).folds
    selected = [selection_facts(run, fold, arm) or {} for fold in folds]
    trained = [read_record(run.root, f"{fold.prefix}model/{arm.name}") for fold in folds]

    def total(key: str) -> float:
        return sum(float(facts.get(key, 0)) for facts in selected)

    return {
        "arm": arm.name,
        "control": arm.control,
        "rows": int(total("rows")),
        "rows_fraction": total("rows") / (total("of_rows") or 1),
        "negatives_fraction": total("negatives") / (total("of_negatives") or 1),
        "train_seconds": round(sum(float(r.facts["train_seconds"]) for r in trained if r is not None), 3),
    }


def notices(run: RunPaths, arms: Sequence[Arm], *, tried: int = 0) -> list[str]:
    """Return what a careful user should know of a run, each once, in the order of the steps' names.

    Args:
        run: The run.
        arms: Its arms.
        tried: How many arms a search tried; 0: there was none.
    """
    dataset = Dataset.of(run)
    found = [
        f"the arms are the best of {tried} that were tried on the validation lists, so their figures on validation"
        " are too high, and the choice among them leans on luck; those on test are not chosen"
    ] * (tried > 0)
    found += dataset.notices
    kinds = [f"{kind}/{arm.name}" for kind in ("selection", "model") for arm in arms]
    if any(arm.needs_scores for arm in arms):
        kinds.append("initial")
    for name in sorted(f"{fold.prefix}{kind}" for fold in dataset.folds for kind in kinds):
        record = read_record(run.root, name)
        found += record.facts.get("notices", []) if record else []
    short = {
        arm.name: sum((selection_facts(run, fold, arm) or {}).get("shortfall", 0) for fold in dataset.folds)
        for arm in arms
    }
    if listed := ", ".join(f"{name} ({count:,})" for name, count in short.items() if count):
        found.append(
            f"fewer negatives than asked for, because of a guard, the strategy or the row limit: {listed}"
        )
    return list(dict.fromkeys(found))
