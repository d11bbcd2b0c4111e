"""Put context, guards and strategy together: SCORES -> SELECTION of one arm."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.core.errors import ConfigError
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.negatives import blocks, context
from pipeline.negatives.arms import Arm
from pipeline.negatives.budget import Budget
from pipeline.negatives.grades import grade
from pipeline.negatives.limits import too_long, within_limit
from pipeline.negatives.result import ExtraColumn
from pipeline.negatives.training import Training
from pipeline.ranker.fit import MAX_QUERY_ROWS

__all__ = ["Selector", "require", "run", "run_all", "select", "shortfall", "too_long"]

Floats = npt.NDArray[np.float64]


def select(
    scores: pl.DataFrame, arm: Arm, *, config: SelectConfig, seed: int, training: Training | None = None
) -> pl.DataFrame:
    """Return SELECTION of ``arm``, a row per row of ``scores`` in the same order; see :class:`Selector`."""
    return Selector(scores, arm, config=config, seed=seed, training=training).selection()


class Selector:
    """Decides for every training row whether an arm keeps it, with what weight, and why.

    Positives are always kept. A query that would still have more rows than LightGBM takes loses negatives at
    random until it fits (reason ``over limit``); the others keep their weights. No other row decides the
    outcome of a query than the query's own (but under `popularity`, which asks the other queries).

    It may choose again and again, as scores change, while its guards go by SCORES alone: those of a model that
    trains on the rows would hide the mistakes that a guard looks for.

    Args:
        scores: SCORES, any row order.
        arm: The arm.
        config: Parameters of the strategies.
        seed: Seed of the draws.
        training: JUDGMENTS of the rows, for the arms that read document ids or features.
        max_query_rows: Rows that a query may keep.

    Raises:
        ConfigError: The arm reads something that ``training`` does not have.
    """

    def __init__(
        self,
        scores: pl.DataFrame,
        arm: Arm,
        *,
        config: SelectConfig,
        seed: int,
        training: Training | None = None,
        max_query_rows: int = MAX_QUERY_ROWS,
    ) -> None:
        require(arm, config, () if training is None else training.columns)
        self._arm, self._seed, self._training = arm, seed, training
        self._result = arm.result(config)
        self._given = scores.select("row_id", "qid", "label", "score")
        rows = context.order(self._given, seed=seed)
        self._rows = rows.with_columns(excluded=self._excluded(rows, config))
        longest = self._rows["qid"].value_counts()["count"].max()
        self._limit = max_query_rows if isinstance(longest, int) and longest > max_query_rows else None

    def _excluded(self, rows: pl.DataFrame, config: SelectConfig) -> pl.Series:
        """Return why a guard excludes a row; null where none does."""
        exclusions = self._arm.exclusions(config)
        looked_at = context.build(rows, seed=self._seed)
        for each in exclusions:
            looked_at = self._with_extra_column(looked_at, each.extra_column)
        reasons = [pl.when(each.where).then(pl.lit(each.reason)) for each in exclusions]
        looked_at = looked_at.with_columns(excluded=pl.coalesce(pl.lit(None, pl.String), *reasons))
        return looked_at.select("excluded").collect(engine=context.ENGINE)["excluded"]

    def _with_extra_column(self, rows: pl.LazyFrame, column: ExtraColumn | None) -> pl.LazyFrame:
        """Add the column that a guard or the strategy asks for."""
        if column is None or self._training is None:
            return rows
        return column.add(rows.collect(engine=context.ENGINE), self._training).lazy()

    def selection(
        self, score: Floats | None = None, *, round: int = 0, first_kept_round: pl.Series | None = None
    ) -> pl.DataFrame:
        """Return SELECTION, in the order of SCORES.

        Args:
            score: Scores to choose by, in that order; None: those of SCORES.
            round: Number of the choice; each draws afresh what it draws.
            first_kept_round: For rows to keep whatever the choice, in that order: the round, from 1, that first
                kept the row; null elsewhere.
        """
        given = self._given if score is None else self._given.with_columns(score=score)
        names = ["neg_rank", "kept", "weight", "reason", *(["grade"] if self._arm.graded else [])]
        decided = self._decide(score, round, first_kept_round).select("place", *names).sort("place")
        return given.with_columns(decided.select(names).collect(engine=context.ENGINE))

    def selection_by(self, ranked: pl.DataFrame, *, round: int) -> pl.DataFrame:
        """Return SELECTION by other SCORES, and with the rows that they say were kept before."""
        found = self._given.select("row_id").join(ranked, on="row_id", how="left", maintain_order="left")
        first_kept_round = found["first_kept_round"] if self._arm.rounds > 1 else None
        return self.selection(found["score"].to_numpy(), round=round, first_kept_round=first_kept_round)

    def bagged(self, bags: int) -> pl.DataFrame:
        """Return SELECTION of several training sets in one, ``bags`` with a bit for each set that keeps the row.

        A row has weight and reason of the first set that keeps it: weights do not depend on the draws.
        """
        found = self.selection()
        columns = {name: found[name] for name in ("kept", "weight", "reason")}
        mask = columns["kept"].cast(pl.UInt32)
        for bag in range(1, bags):
            other = self.selection(round=bag)
            new = other["kept"] & ~columns["kept"]
            columns = {name: other[name].zip_with(new, column) for name, column in columns.items()}
            mask = mask | other["kept"].cast(pl.UInt32) * (1 << bag)
        return found.with_columns(**columns, bags=mask)

    def choose(
        self, score: Floats | None = None, *, round: int = 0, first_kept_round: pl.Series | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the places in SCORES of the rows that :meth:`selection` keeps, rising, and their weights."""
        rows = self._decide(score, round, first_kept_round).filter("kept").select("place", "weight")
        kept = rows.sort("place").collect(engine=context.ENGINE)
        return kept["place"].to_numpy().astype(np.int64), kept["weight"].to_numpy()

    def _decide(self, score: Floats | None, round: int, first_kept_round: pl.Series | None) -> pl.LazyFrame:
        """Return the context of the rows and what is kept, why, at what weight and in which grade."""
        rows, place = self._rows, self._rows["place"]
        if first_kept_round is not None:
            rows = rows.with_columns(first_kept_round=first_kept_round.gather(place))
        if score is not None:
            rows = context.hardest_first(rows.with_columns(score=pl.Series(score).gather(place)))
        lazy = context.build(rows, seed=self._seed, round=round)
        lazy = context.with_candidates(lazy, pl.col("excluded").is_not_null())
        lazy = self._with_result(self._with_extra_column(lazy, self._result.extra_column))
        if first_kept_round is not None:
            lazy = _with_rows_kept_earlier(lazy)
        if self._limit is not None:
            lazy = within_limit(lazy, seed=self._seed, limit=self._limit)
        weight = pl.when("candidate").then(self._result.weight).otherwise(1.0)
        return lazy.with_columns(weight=pl.when("kept").then(weight).otherwise(0.0).cast(pl.Float32))

    def _with_result(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Add what the strategy says of the candidates, and the guards and the labels of the other rows."""
        result, negative = self._result, pl.col("negative")
        of_negatives = pl.when("candidate").then(result.reason).otherwise("excluded")
        rows = rows.with_columns(
            kept=pl.when(negative).then(pl.col("candidate") & result.kept).otherwise(True),
            reason=pl.when(negative).then(of_negatives).otherwise(pl.lit("positive")),
        )
        if self._arm.graded and result.hard is not None:
            rows = rows.with_columns(grade=grade(result.hard))
        return rows


def _with_rows_kept_earlier(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the candidates that a round before this one kept, and say so."""
    earlier = ~pl.col("kept") & pl.col("candidate") & pl.col("first_kept_round").is_not_null()
    reason = pl.format("kept since round {}", "first_kept_round")
    return rows.with_columns(
        kept=pl.col("kept") | earlier, reason=pl.when(earlier).then(reason).otherwise("reason")
    )


def require(arm: Arm, config: SelectConfig, columns: Sequence[str]) -> None:
    """Raise :class:`ConfigError` if ``arm`` reads what a training split with these ``columns`` lacks."""
    reads = arm.reads(config)
    if "doc_id" in reads and "doc_id" not in columns:
        raise ConfigError(
            f"arm {arm.name!r} needs document ids, and the training data has none; give each row a comment"
            " like `#docid = D7` (in Parquet: a column doc_id), or leave the arm out"
        )
    if "features" in reads and not features_of(columns):
        raise ConfigError(f"arm {arm.name!r} needs features, and the training data has none")


def shortfall(selection: pl.DataFrame, budget: Budget) -> int:
    """Count the negatives that the budget asks for and a guard, the strategy or the limit left no room for."""
    negative = pl.col("label") == 0
    queries = selection.group_by("qid").agg(
        neg_count=negative.sum(), pos_count=(~negative).sum(), kept=(negative & pl.col("kept")).sum()
    )
    missing = budget.n.cast(pl.Int64) - pl.col("kept").cast(pl.Int64)
    return int(queries.select(missing.clip(lower_bound=0).sum()).item())


def run(
    scores: Path,
    out: Path,
    *,
    arm: Arm,
    config: SelectConfig,
    seed: int,
    files: Sequence[Path] = (),
    ranked: Path | None = None,
    round: int = 0,
    block_rows: int = blocks.ROWS,
) -> dict[str, Any]:
    """Read SCORES, write SELECTION of ``arm``; return how many rows it keeps and what it falls short of.

    Args:
        scores: SCORES.
        out: File to write.
        arm: The arm.
        config: Parameters of the strategies.
        seed: Seed of the draws.
        files: Parts of the training split, for the arms that read document ids or features.
        ranked: SCORES of the same rows to choose by, where only the guards go by ``scores``.
        round: Number of that choice.
        block_rows: About how many rows to choose from at once, where queries come whole.
    """
    qid = parts.schema_of([scores]).field("qid").type
    whole = ranked is not None or bool(arm.reads(config))
    given = blocks.read(scores, None if whole else block_rows)
    training = Training.of_files(files) if files else None
    selectors = (Selector(t, arm, config=config, seed=seed, training=training) for t in given)
    if ranked is None:
        selections = (each.bagged(arm.bags) for each in selectors)
    else:
        selections = (each.selection_by(pl.read_parquet(ranked), round=round) for each in selectors)
    return _write(selections, out, arm, qid=qid, block_rows=block_rows)


def run_all(files: Sequence[Path], out: Path, *, arm: Arm, config: SelectConfig, seed: int) -> dict[str, Any]:
    """Write SELECTION of `all`, which needs no scores; ``score`` and ``neg_rank`` are null."""
    keys = parts.read_keys(files).with_columns(score=pl.lit(None, dtype=pl.Float64))
    selection = Selector(keys, arm, config=config, seed=seed).selection()
    selection = selection.with_columns(neg_rank=pl.lit(None, dtype=pl.UInt32))
    return _write([selection], out, arm, qid=parts.schema_of(files).field("qid").type)


def _write(
    selections: Iterable[pl.DataFrame],
    out: Path,
    arm: Arm,
    *,
    qid: pa.DataType,
    block_rows: int = blocks.ROWS,
) -> dict[str, Any]:
    """Write SELECTION; return how many rows it keeps and what it falls short of."""
    negative, kept = pl.col("label") == 0, pl.col("kept")
    count = {
        "rows": kept.sum(),
        "of_rows": pl.len(),
        "negatives": (negative & kept).sum(),
        "of_negatives": negative.sum(),
        "weighted": (kept & (pl.col("weight") != 1)).sum(),
    }
    counts: Counter[str] = Counter(dict.fromkeys([*count, "shortfall"], 0))
    reasons: Counter[str] = Counter()
    schema = tables.selection(qid=qid, bags=arm.bags > 1, graded=arm.graded)
    with blocks.open_writer(out, schema, rows=block_rows) as writer:
        for rows in selections:
            reasons.update(blocks.write(writer, rows, block_rows))
            counts.update(rows.select(**count).row(0, named=True))
            counts["shortfall"] += shortfall(rows, arm.budget)
    return {**counts, "weighted": counts["weighted"] > 0, "reasons": dict(sorted(reasons.items()))}
