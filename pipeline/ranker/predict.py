"""Scores of the rows of Parquet parts, by models of LightGBM's.

:mod:`pipeline.ranker.trees` follows the trees, with the same bits in a fraction of the time and without importing
LightGBM; models with trees of a kind that it does not know are left to LightGBM.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.core.errors import StorageError, TableError
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.ranker import trees as tree_scores

Floats = npt.NDArray[np.float64]


def predict(
    models: Sequence[Path], files: Sequence[Path], folds: Sequence[pl.DataFrame] = (), *, threads: int
) -> pl.DataFrame:
    """Score every row of Parquet parts, a row group at a time.

    Args:
        models: LightGBM model files.
        files: The parts.
        folds: For each repeat ``qid, fold``: which of the repeat's models, which stand one repeat after the other,
            scores a query. The score is the mean over the repeats. None: the first model scores all.
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
    wanted = sorted({number for model in opened for number in model.features})
    scored = []
    for table in parts.row_groups(files, columns=["row_id", "qid", "label", *(features[n] for n in wanted)]):
        frame = pl.DataFrame(table)
        keys, group = frame.select("row_id", "qid", "label"), _Group(frame, features, wanted)
        fold = pl.Series("fold", np.full(len(keys), -1, dtype=np.int16))
        if not folds:
            scores = opened[0].scores(group, None, threads)
        else:
            scores, each = np.zeros(len(keys)), len(opened) // len(folds)
            for number, repeat in reversed(list(enumerate(folds))):
                fold = keys.join(repeat, on="qid", how="left", maintain_order="left")["fold"]
                _require_model(keys, fold, each)
                for place in range(each):
                    at = np.flatnonzero(fold.to_numpy() == place)
                    if len(at):
                        scores[at] += opened[number * each + place].scores(group, at, threads)
            scores /= len(folds)
        scored.append(keys.with_columns(pl.Series("score", scores), fold))
    return pl.concat(scored)


class _Group:
    """The features of a row group: those that are wanted, by number.

    Args:
        frame: Columns of the wanted features, float32 [rows].
        features: Names of all features, by number.
        wanted: Numbers.
    """

    def __init__(self, frame: pl.DataFrame, features: Sequence[str], wanted: Sequence[int]) -> None:
        self.columns = {number: frame[features[number]].to_numpy() for number in wanted}
        self.rows = frame.height

    @cached_property
    def matrix(self) -> npt.NDArray[np.float32]:
        """All features, [rows, features], where all are wanted."""
        return np.column_stack(list(self.columns.values()))


class _Model:
    """A model file, opened.

    Args:
        path: The file.
        features: How many features the rows have.
    """

    def __init__(self, path: Path, features: int) -> None:
        text = _text(path)
        self._trees = tree_scores.of_model(text, features=features)
        self._booster: Any = _booster(path, text) if self._trees is None else None
        self.features = (
            set(range(features))
            if self._trees is None
            else {n for tree in self._trees for n in tree.features}
        )

    def scores(self, group: _Group, at: npt.NDArray[np.int64] | None, threads: int) -> Floats:
        """Return the scores of a row group's rows at some places; None: of all."""
        if self._trees is None:
            matrix = group.matrix if at is None else group.matrix[at]
            scores: Floats = self._booster.predict(matrix, num_threads=threads, raw_score=True)
            return scores
        columns = {n: group.columns[n] if at is None else group.columns[n][at] for n in self.features}
        rows = group.rows if at is None else len(at)
        return tree_scores.total(columns, self._trees, rows=rows, threads=threads)


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
