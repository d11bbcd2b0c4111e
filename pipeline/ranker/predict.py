"""Scores of the rows of Parquet parts by LightGBM models.

:mod:`pipeline.ranker.trees` follows the trees, with the same bits in less time and without importing LightGBM;
models with trees of a kind that it does not know are left to LightGBM.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core.errors import StorageError, TableError
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import trees

Floats = npt.NDArray[np.float64]


def predict(
    models: Sequence[Path], files: Sequence[Path], folds: Sequence[pl.DataFrame] = (), *, threads: int
) -> pl.DataFrame:
    """Score every row of Parquet parts, a row group at a time.

    Args:
        models: LightGBM model files, those of the first repeat first.
        files: The parts.
        folds: For each repeat ``qid, fold``: which of the repeat's models scores a query. The score is the mean
            over the repeats. Empty: the first model scores all rows.
        threads: Threads that predict; the scores do not depend on it.

    Returns:
        ``row_id, qid, label, score, fold`` (float64, int16; the first repeat's fold, -1 without), in the parts'
        order.

    Raises:
        StorageError: A model file or a part is damaged.
        TableError: ``folds`` gives a query no model.
    """
    features = features_of(parts.schema_of(files).names)
    opened = [_Model(path, len(features)) for path in (models if folds else models[:1])]
    wanted = sorted(set().union(*(model.features for model in opened)))
    scored = []
    for table in parts.row_groups(files, columns=["row_id", "qid", "label", *(features[n] for n in wanted)]):
        frame = pl.DataFrame(table)
        keys = frame.select("row_id", "qid", "label")
        columns = {number: frame[features[number]].to_numpy() for number in wanted}
        if folds:
            scores, fold = _out_of_fold(opened, columns, keys, folds, threads)
        else:
            scores = opened[0].scores(columns, keys.height, threads)
            fold = pl.Series("fold", np.full(keys.height, -1, dtype=np.int16))
        scored.append(keys.with_columns(pl.Series("score", scores), fold))
    return pl.concat(scored)


def _out_of_fold(
    models: "Sequence[_Model]",
    columns: Mapping[int, trees.Column],
    keys: pl.DataFrame,
    folds: Sequence[pl.DataFrame],
    threads: int,
) -> tuple[Floats, pl.Series]:
    """Return the mean over the repeats of each row's score by its query's model, and the first repeat's folds."""
    total, models_each = np.zeros(keys.height), len(models) // len(folds)
    for repeat, assigned in reversed(list(enumerate(folds))):
        fold = keys.join(assigned, on="qid", how="left", maintain_order="left")["fold"]
        _require_model(keys, fold, models_each)
        for number in range(models_each):
            rows = np.flatnonzero(fold.to_numpy() == number)
            if len(rows):
                model = models[repeat * models_each + number]
                some = {feature: columns[feature][rows] for feature in model.features}
                total[rows] += model.scores(some, len(rows), threads)
    return total / len(folds), fold


class _Model:
    """A model file, opened, for rows with some number of features; ``features`` are those it compares."""

    def __init__(self, path: Path, features: int) -> None:
        text = _text(path)
        self._trees = trees.parse(text, features=features)
        self._booster: Any = _booster(path, text) if self._trees is None else None
        self.features = set(range(features)) if self._trees is None else trees.features_of(self._trees)

    def scores(self, columns: Mapping[int, trees.Column], rows: int, threads: int) -> Floats:
        """Return the scores of rows, given at least the model's features by number."""
        if self._trees is None:
            matrix = np.column_stack([columns[number] for number in sorted(self.features)])
            found: Floats = self._booster.predict(matrix, num_threads=threads, raw_score=True)
            return found
        score = np.zeros(rows)
        trees.add(score, self._trees, columns, threads=threads)
        return score


def _require_model(keys: pl.DataFrame, fold: pl.Series, models: int) -> None:
    without = keys["qid"].filter(~fold.is_between(0, models - 1).fill_null(False))
    if len(without):
        raise TableError(
            f"folds: query {without[0]!r} has none of the {models} models; assign folds to all queries again"
        )


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    # LightGBM takes a model that is cut short, and predicts 0 with it or reads beyond its end.
    if not (text.startswith("tree\n") and "\nend of parameters\n" in text):
        raise _damaged(path, "it is empty, cut short or something else")
    return text


def _booster(path: Path, text: str) -> Any:
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise _damaged(path, str(error).splitlines()[0]) from error


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(f"{path}: not a LightGBM model ({reason}); delete it and run again")
