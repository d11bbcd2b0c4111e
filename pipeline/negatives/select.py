"""Put context, guard and strategy together: SCORES -> SELECTION of one arm."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.core import rng, tables
from pipeline.core.config import SelectConfig
from pipeline.core.errors import ConfigError, SourceError
from pipeline.core.tables import features_of
from pipeline.dataset import parts
from pipeline.negatives import blocks, context, counting
from pipeline.negatives.arms import Arm
from pipeline.negatives.budget import Budget
from pipeline.negatives.result import REASON, Counts, Need, one, said
from pipeline.negatives.grades import grade
from pipeline.negatives.training import Training
from pipeline.ranker.fit import MAX_QUERY_ROWS


def select(
    scores: pl.DataFrame, arm: Arm, *, config: SelectConfig, seed: int, training: Training | None = None
) -> pl.DataFrame:
    """Decide for every training row whether ``arm`` keeps it, with what weight, and why.

    Positives are always kept. A query that would still have more rows than LightGBM takes loses negatives at
    random, each with the same chance, until it fits (reason ``over limit``); the others keep their weights.

    Args:
        scores: SCORES, any row order.
        arm: Strategy, budget and guards.
        config: Parameters of the strategies.
        seed: Seed of the draws.
        training: JUDGMENTS of the rows, for the arms that read document ids or features.

    Returns:
        SELECTION, one row per row of ``scores``, in the same order; no other row decides the outcome of a
        query than the query's own (but under `popularity`, which asks the other queries).

    Raises:
        ConfigError: The arm reads something that ``training`` does not have.
    """
    return Selector(scores, arm, config=config, seed=seed, training=training).selection()


class Selector:
    """Chooses among the same rows again and again, as their scores change; the guards have looked once.

    The guards go by SCORES, in which a query's rows have the scores of a model that never saw it: those of a
    model that trains on the rows would hide the mistakes that a guard looks for.

    Args:
        scores: SCORES, any row order.
        arm: Strategy, budget and guards.
        config: Parameters of the strategies.
        seed: Seed of the draws.
        training: JUDGMENTS of the rows, for the arms that read document ids or features.

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
    ) -> None:
        require(arm, config, () if training is None else training.columns)
        self._seed, self._training, self._choice = seed, training, arm.choice(config, n=pl.col("n"))
        self._grade = ["grade"] if arm.graded else []
        self.layout = context.Layout(scores, seed=seed)
        self._long = bool(self.layout.sizes.max(initial=0) > MAX_QUERY_ROWS)
        self._n = self.layout.counts(scores["label"]).select(n=arm.budget.n)["n"]
        self._rows, self._guarded = scores, bool(arm.guards)
        if asides := arm.asides(config):
            order = self._order
            rows = self._with_needs(context.plan(scores, self.layout, order), [a.need for a in asides])
            why = pl.coalesce(pl.lit(None, REASON), *(pl.when(a.where).then(said(a.reason)) for a in asides))
            aside = rows.select(aside=why).collect(engine=context.ENGINE)
            self._rows = scores.with_columns(aside["aside"].gather(_back(order)))
        need = self._choice.need
        self._needs = [] if need is None or need.once else [need]
        if need is not None and need.once and training is not None:
            self._rows = need.add(self._rows, training)

    @cached_property
    def _order(self) -> context.Places:
        """The places of the rows, hardest first by SCORES."""
        return self.layout.hardest_first(self._rows["score"].to_numpy())

    def selection(
        self,
        score: npt.NDArray[np.float64] | None = None,
        *,
        round: int = 0,
        first_kept_round: pl.Series | None = None,
    ) -> pl.DataFrame:
        """Return SELECTION.

        Args:
            score: Scores to choose by, in the order of SCORES; None: those of SCORES.
            round: Number of the choice; each draws afresh what it draws.
            first_kept_round: Rows to keep whatever the choice, in the order of SCORES: the round, from 1, that first
                kept the row, null elsewhere; the reason of those that are not chosen again says it.
        """
        return self.decided(score, round=round, first_kept_round=first_kept_round).with_columns(
            pl.col("reason").cast(pl.String)
        )

    def decided(
        self,
        score: npt.NDArray[np.float64] | None = None,
        *,
        round: int = 0,
        first_kept_round: pl.Series | None = None,
    ) -> pl.DataFrame:
        """Return SELECTION as :meth:`selection` does, its reasons :data:`~pipeline.negatives.result.REASON`."""
        names = ["neg_rank", "kept", "weight", "reason", *self._grade]
        given = self._rows.select("row_id", "qid", "label", "score")
        given = given if score is None else given.with_columns(score=score)
        if self._choice.by_rank and self.layout.whole and not self._long:
            # To put all columns in order and back would take twice as long as to rank and choose.
            rows = self._planned(None, score, round, first_kept_round)
            return given.with_columns(rows.select(names).collect(engine=context.ENGINE))
        found, order = self._chosen(names, score, round, first_kept_round)
        # Nulls take as long to carry along as all the rest.
        found = found.with_columns(pl.col("neg_rank").fill_null(0)).select(pl.all().gather(_back(order)))
        return given.with_columns(found).with_columns(neg_rank=pl.when(pl.col("label") == 0).then("neg_rank"))

    def bagged(self, bags: int) -> pl.DataFrame:
        """Return SELECTION of several training sets in one, with ``bags``; reasons as :meth:`decided`.

        A row has weight and reason of the first set that keeps it: weights do not depend on the draws.
        """
        found = self.decided()
        columns = {name: found[name] for name in ("kept", "weight", "reason")}
        mask = columns["kept"].cast(pl.UInt32)
        for bag in range(1, bags):
            other = self.decided(round=bag)
            new = other["kept"] & ~columns["kept"]
            columns = {name: other[name].zip_with(new, column) for name, column in columns.items()}
            mask = mask | other["kept"].cast(pl.UInt32) * (1 << bag)
        return found.with_columns(**columns, bags=mask)

    def shortfall(self, kept_negatives: pl.Series) -> int:
        """Return how many negatives a choice is short of what the budget asks for: :func:`shortfall`."""
        return _shortfall(self._n, self.layout.sums(context.flags(kept_negatives)))

    def choose(
        self,
        score: npt.NDArray[np.float64] | None = None,
        *,
        round: int = 0,
        first_kept_round: pl.Series | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the places in SCORES of the rows that :meth:`selection` keeps, rising, and their weights."""
        counts = self._choice.counts
        if counts is not None and not self._long and not (counts.weighted and first_kept_round is not None):
            return self._counted(counts, score, round, first_kept_round)
        rows, order = self._chosen(["kept", "weight"], score, round, first_kept_round)
        weight = np.empty(rows.height, dtype=np.float32)
        weight[order] = rows["weight"].to_numpy()
        places = np.sort(order[context.flags(rows["kept"])]).astype(np.int64)
        return places, weight[places]

    def _counted(
        self,
        counts: Counts,
        score: npt.NDArray[np.float64] | None,
        round: int,
        first_kept_round: pl.Series | None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return what :meth:`choose` does, by the numbers of the strategy: see :mod:`pipeline.negatives.counting`."""
        order = self._order if score is None else self.layout.hardest_first_again(score)
        may = self._candidate[order]
        asked = {"window": counts.window, "lot": counts.lot}
        if asked := {name: column for name, column in asked.items() if column is not None}:
            rows = self._context(score, order, round)
            found = rows.select(**asked).collect(engine=context.ENGINE)
            if counts.window is not None:
                may = may & context.flags(found["window"])
        lots = None if counts.lot is None else -found["lot"].to_numpy()
        chosen = counting.choose(
            self.layout.starts, may, self._numbers,
            lambda at: self.layout.lots(order[at], round=round) if lots is None else lots[at],
        )  # fmt: skip
        kept = ~self._negative
        kept[order[chosen.hard]] = kept[order[chosen.drawn]] = True
        if first_kept_round is not None:
            kept |= self._candidate & context.flags(first_kept_round.is_not_null())
        weight = np.ones(len(kept), dtype=np.float32)
        if counts.weighted:
            weight[order[chosen.drawn]] = chosen.stands_for
        return np.flatnonzero(kept), weight[kept]

    @cached_property
    def _negative(self) -> npt.NDArray[np.bool_]:
        return context.flags(self._rows["label"] == 0)

    @cached_property
    def _candidate(self) -> npt.NDArray[np.bool_]:
        return (
            self._negative & context.flags(self._rows["aside"].is_null()) if self._guarded else self._negative
        )

    @cached_property
    def _numbers(self) -> counting.Numbers:
        """How many rows of each query the strategy keeps and draws."""
        queries = self.layout.counts(self._rows["label"]).with_columns(n=self._n)
        return counting.numbers(self._choice.counts or Counts(), queries)

    def _context(
        self,
        score: npt.NDArray[np.float64] | None,
        order: context.Places | None,
        round: int,
        **more: pl.Series,
    ) -> pl.LazyFrame:
        """Return the rows in ``order`` with all that a strategy may read."""
        scores = self._rows if score is None else self._rows.with_columns(score=score)
        rows = context.plan(scores.with_columns(**more), self.layout, order, round=round)
        rows = context.with_candidates(rows, pl.col("aside").is_not_null() if self._guarded else None)
        return rows.with_columns(n=context.of_query(self._n))

    def _chosen(
        self,
        names: Sequence[str],
        score: npt.NDArray[np.float64] | None,
        round: int,
        first_kept_round: pl.Series | None,
    ) -> tuple[pl.DataFrame, context.Places]:
        """Return columns of SELECTION, hardest first, and the places of these rows."""
        order = self._order if score is None else self.layout.hardest_first(score)
        rows = self._planned(order, score, round, first_kept_round)
        if not self._long:
            return rows.select(names).collect(engine=context.ENGINE), order
        more = {"row_id", "qid", "negative", "pos_count", "kept", "weight", "reason", *names}
        found = _within_limit(rows.select(more).collect(engine=context.ENGINE), seed=self._seed)
        return found.select(names), order

    def _planned(
        self,
        order: context.Places | None,
        score: npt.NDArray[np.float64] | None,
        round: int,
        first_kept_round: pl.Series | None,
    ) -> pl.LazyFrame:
        """Return the context and SELECTION of the rows in ``order``; None: as they are."""
        rows = self._context(
            score,
            order,
            round,
            **({} if first_kept_round is None else {"first_kept_round": first_kept_round}),
        )
        return self._with_choice(
            self._with_needs(rows, self._needs), kept_before=first_kept_round is not None
        )

    def _with_choice(self, rows: pl.LazyFrame, *, kept_before: bool) -> pl.LazyFrame:
        """Add what is kept, why, at what weight and in which grade."""
        choice = self._choice
        aside = pl.col("aside") if self._guarded else pl.lit(None, REASON)
        reason = (
            pl.when(~pl.col("negative")).then(said("positive"))
            .when("candidate").then(choice.reason.cast(REASON))
            .otherwise(aside)
        )  # fmt: skip
        kept = pl.when("negative").then(pl.col("candidate") & choice.kept).otherwise(True)
        rows = rows.with_columns(kept=kept, reason=reason)
        if self._grade and choice.hard is not None:
            rows = rows.with_columns(grade=grade(choice.hard))
        if kept_before:
            earlier = ~pl.col("kept") & pl.col("candidate") & pl.col("first_kept_round").is_not_null()
            why = pl.format("kept since round {}", "first_kept_round").cast(REASON)
            why = pl.when(earlier).then(why).otherwise("reason")
            rows = rows.with_columns(kept=pl.col("kept") | earlier, reason=why)
        kept = pl.col("kept")
        if choice.weight.meta.eq(one()):
            # A tenth of the time that a cast takes.
            return rows.with_columns(weight=pl.when(kept).then(one()).otherwise(pl.lit(0.0, pl.Float32)))
        weight = pl.when(pl.col("candidate")).then(choice.weight).otherwise(1.0)
        return rows.with_columns(weight=pl.when(kept).then(weight).otherwise(0.0).cast(pl.Float32))

    def _with_needs(self, rows: pl.LazyFrame, needs: Iterable[Need | None]) -> pl.LazyFrame:
        """Add the columns that guards or a strategy ask for."""
        for need in needs:
            if need is not None and self._training is not None:
                rows = need.add(rows.collect(engine=context.ENGINE), self._training).lazy()
        return rows


def _back(order: context.Places) -> pl.Series:
    """Return where each row is in ``order``."""
    back = np.empty(len(order), dtype=np.uint32)
    back[order] = np.arange(len(order), dtype=np.uint32)
    return pl.Series(back)


def require(arm: Arm, config: SelectConfig, columns: Sequence[str]) -> None:
    """Raise what ``arm`` reads and a training split with these ``columns`` does not have.

    Raises:
        ConfigError: Document ids or features are missing.
    """
    reads = arm.reads(config)
    if "doc_id" in reads and "doc_id" not in columns:
        raise ConfigError(
            f"arm {arm.name!r} needs document ids, and the training data has none; give each row a comment"
            " like `#docid = D7` (in Parquet: a column doc_id), or leave the arm out"
        )
    if "features" in reads and not features_of(columns):
        raise ConfigError(f"arm {arm.name!r} needs features, and the training data has none")


def _within_limit(rows: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Drop kept negatives at random where a query has more rows than LightGBM takes."""
    longest = rows.filter("kept").group_by("qid").len()["len"].max()
    if not isinstance(longest, int) or longest <= MAX_QUERY_ROWS:
        return rows
    room = MAX_QUERY_ROWS - pl.col("pos_count").cast(pl.Int64)
    # A draw of its own: those a strategy drew are the lowest in ``draw``, and would all stay.
    lots = pl.Series("lot", rng.uniform(rows["row_id"].to_numpy(), seed=seed, stream="limit"))
    place = pl.col("lot").rank("ordinal").over("qid", "kept", "negative")
    rows = rows.with_columns(lots).with_columns(over=pl.col("kept") & pl.col("negative") & (place > room))
    return rows.with_columns(
        kept=pl.col("kept") & ~pl.col("over"),
        weight=pl.when("over").then(pl.lit(0.0, dtype=pl.Float32)).otherwise("weight"),
        reason=pl.when("over").then(said("over limit")).otherwise("reason"),
    )


def shortfall(selection: pl.DataFrame, budget: Budget) -> int:
    """Count the negatives that the budget asks for and a guard, the strategy or the limit left no room for."""
    layout = context.Layout(selection, seed=0)
    n = layout.counts(selection["label"]).select(n=budget.n)["n"]
    return _shortfall(n, layout.sums(context.flags((selection["label"] == 0) & selection["kept"])))


def _shortfall(n: pl.Series, kept: npt.NDArray[np.uint32]) -> int:
    """Return how many of ``n`` negatives a query are missing, over all queries."""
    return int(np.maximum(n.to_numpy().astype(np.int64) - kept, 0).sum())


def too_long(keys: pl.DataFrame, where: Path) -> list[str]:
    """Return a notice for queries LightGBM cannot take whole.

    Raises:
        SourceError: A query's positives alone are too many.
    """
    counts = keys.group_by("qid").agg(pl.len().alias("rows"), (pl.col("label") > 0).sum().alias("positives"))
    long = counts.filter(pl.col("rows") > MAX_QUERY_ROWS).sort("rows", "qid", descending=True)
    if long.is_empty():
        return []
    query, rows, _ = long.row(0)
    hopeless = long.filter(pl.col("positives") > MAX_QUERY_ROWS)
    if not hopeless.is_empty():
        raise SourceError(
            f"query {hopeless['qid'][0]} has {hopeless['positives'][0]:,} relevant rows, and LightGBM takes"
            f" {MAX_QUERY_ROWS:,} rows per query; split the query or drop it",
            file=where,
        )
    more = f" and {long.height - 1} more" if long.height > 1 else ""
    return [
        f"query {query} ({rows:,} rows){more} is longer than the {MAX_QUERY_ROWS:,} rows LightGBM takes; where a"
        " selection does not make it fit, negatives are left out at random (reason `over limit`)"
    ]


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
) -> dict[str, Any]:
    """Read SCORES, write SELECTION of ``arm``; returns how many rows it keeps and what it falls short of.

    Args:
        scores: SCORES.
        out: File to write.
        arm: Strategy, budget and guards.
        config: Parameters of the strategies.
        seed: Seed of the draws.
        files: Parts of the training split, for the arms that read document ids or features.
        ranked: SCORES of the same rows to choose by, where only the guards go by ``scores``.
        round: Number of the choice, for an arm that makes several.
    """
    qid = parts.schema_of([scores]).field("qid").type
    starts = None if ranked or arm.reads(config) else blocks.query_starts(scores)
    if starts is not None:
        some = (Selector(rows, arm, config=config, seed=seed) for rows in blocks.read(scores, starts))
        return _written(((_decided(each, arm), each) for each in some), out, arm, qid=qid)
    training = Training.of_files(files) if files else None
    table = pl.read_parquet(scores)
    score = first_kept_round = None
    if ranked is not None:
        found = table.select("row_id").join(
            pl.read_parquet(ranked), on="row_id", how="left", maintain_order="left"
        )
        score = found["score"].to_numpy()
        first_kept_round = found["first_kept_round"] if arm.rounds > 1 else None
    selector = Selector(table, arm, config=config, seed=seed, training=training)
    rows = _decided(selector, arm, score, round=round, first_kept_round=first_kept_round)
    return _written([(rows, selector)], out, arm, qid=qid)


def _decided(
    selector: Selector, arm: Arm, score: npt.NDArray[np.float64] | None = None, **choice: Any
) -> pl.DataFrame:
    return selector.bagged(arm.bags) if arm.bags > 1 else selector.decided(score, **choice)


def run_all(files: Sequence[Path], out: Path, *, arm: Arm, config: SelectConfig, seed: int) -> dict[str, Any]:
    """Write SELECTION of an arm that needs no scores; ``score`` and ``neg_rank`` are null.

    Args:
        files: Parts of the training split.
        out: File to write.
        arm: The arm: `all`.
        config: Parameters of the strategies.
        seed: Seed of the draws that shorten a query longer than LightGBM takes.
    """
    keys = parts.read_keys(files).with_columns(score=pl.lit(None, dtype=pl.Float64))
    selector = Selector(keys, arm, config=config, seed=seed)
    rows = selector.decided().with_columns(neg_rank=pl.lit(None, dtype=pl.UInt32))
    return _written([(rows, selector)], out, arm, qid=parts.schema_of(files).field("qid").type)


def _written(
    pieces: Iterable[tuple[pl.DataFrame, Selector]], out: Path, arm: Arm, *, qid: pa.DataType
) -> dict[str, Any]:
    """Write SELECTION; return how many rows it keeps and what it falls short of."""
    names = ("rows", "of_rows", "negatives", "of_negatives", "weighted", "shortfall")
    facts = dict.fromkeys(names, 0)
    reasons: Counter[str] = Counter()
    with blocks.Writer(out, tables.selection(qid=qid, bags=arm.bags > 1, graded=arm.graded)) as writer:
        for rows, selector in pieces:
            reasons.update(writer.write(rows))
            negative, kept = rows["label"] == 0, rows["kept"]
            kept_negatives = negative & kept
            facts["rows"] += int(kept.sum())
            facts["of_rows"] += rows.height
            facts["negatives"] += int(kept_negatives.sum())
            facts["of_negatives"] += int(negative.sum())
            facts["weighted"] += int((kept & (rows["weight"] != 1)).sum())
            facts["shortfall"] += selector.shortfall(kept_negatives)
    return facts | {"weighted": facts["weighted"] > 0, "reasons": dict(sorted(reasons.items()))}
