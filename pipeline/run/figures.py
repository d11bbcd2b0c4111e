"""What a run found out, for its summary and its report: rows, seconds and notices, from records."""

from collections.abc import Sequence
from typing import Any

from pipeline.core.config import Config
from pipeline.core.paths import RunPaths
from pipeline.core.records import read_record
from pipeline.negatives.arms import Arm
from pipeline.run.scope import Dataset, in_folds


def arm_figures(run: RunPaths, arm: Arm, config: Config) -> dict[str, Any]:
    """Return an arm's row for the comparison: rows and seconds summed over the folds."""
    scopes = in_folds(run, arm, config)
    selected, trained = [of.selection or {} for of in scopes], [of.model_record for of in scopes]

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


def notices(run: RunPaths, arms: Sequence[Arm], config: Config, *, tried: int = 0) -> list[str]:
    """Return what a careful user should know of a run, each once; ``tried``: how many arms a search tried."""
    dataset = Dataset.of(run)
    found = [
        f"the arms are the best of {tried} that were tried on the validation lists, so their figures on validation"
        " are too high, and the choice among them leans on luck; those on test are not chosen"
    ] * (tried > 0)
    found += dataset.document["notices"]
    kinds = [f"{kind}/{arm.name}" for kind in ("selection", "model") for arm in arms]
    if any(arm.needs_scores for arm in arms):
        kinds.append("initial")
    for name in sorted(f"{fold.prefix}{kind}" for fold in dataset.folds for kind in kinds):
        record = read_record(run.root, name)
        found += record.facts.get("notices", []) if record else []
    short = {
        arm.name: sum((of.selection or {}).get("shortfall", 0) for of in in_folds(run, arm, config))
        for arm in arms
    }
    if listed := ", ".join(f"{name} ({count:,})" for name, count in short.items() if count):
        found.append(
            f"fewer negatives than asked for, because of a guard, the strategy or the row limit: {listed}"
        )
    return list(dict.fromkeys(found))
