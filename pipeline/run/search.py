"""Successive halving: many candidate arms tried with few trees, the best of them with more.

A rung trains every candidate that is left with the same number of trees and ranks them by their mean NDCG on
the validation lists; one in ``reduction_factor`` goes on to the next, which trains that many times the trees. So
every rung costs about the same, and most of the work goes into arms that deserve it (Karnin, Koren and Somekh,
ICML 2013; for training by steps Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", AISTATS 2016). Those that survive are trained with all trees, as ordinary arms.

Validation lists choose here, once more when the survivors are compared: their validation NDCG is that of the
luckiest of many, hence too high. No trial sees a test list, so the test figures stay those of arms chosen
before looking. An arm that is slow at first and best in the end may be lost; more trees in the first rung
(fewer ``rungs``) make that less likely.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil, fsum
from pathlib import Path

import polars as pl

from pipeline.core import tables
from pipeline.core.config import SearchConfig, SelectConfig
from pipeline.core.errors import ConfigError
from pipeline.negatives import arms
from pipeline.negatives.arms import BASELINE, CONTROL, Arm
from pipeline.negatives.budget import EVERYTHING


def candidates(config: SearchConfig) -> list[Arm]:
    """Return the arms to try: strategies x guards x fractions x bags, those without scores left out.

    Raises:
        ConfigError: A strategy or a guard that does not exist, or no more arms than would survive anyway.
    """
    kinds = [_part("strategies", name, name) for name in config.strategies]
    guards = [_part("guards", name, f"{CONTROL}-{name}".removesuffix("-")) for name in config.guards]
    names = []
    for kind, guard, fraction, bags in product(kinds, guards, config.fractions, config.bags):
        if bags > 1 and not arms.can_be_bagged(kind):
            continue
        budget = kind.budget if kind.strategy == BASELINE else replace(kind.budget, amount=fraction)
        arm = replace(kind, budget=budget, guards=guard.guards, bags=bags)
        names += [arm.name] if arm.needs_scores else []
    found = arms.panel(SelectConfig(), names) if names else []
    if len(found) <= config.keep:
        raise ConfigError(
            f"search crosses to {len(found)} arms, and search.keep = {config.keep} would survive untried;"
            " give more strategies, guards or fractions"
        )
    return found


def _part(setting: str, given: str, name: str) -> Arm:
    """Read an entry of a setting, which may not say what another setting says."""
    try:
        arm = arms.parse(name)
    except ConfigError as error:
        raise ConfigError(f"search.{setting}: {error}") from None
    other = arm.guards if setting == "strategies" else replace(arm, guards=()) != Arm(CONTROL)
    if other or arm.budget != EVERYTHING or arm.bags > 1:
        raise ConfigError(
            f"search.{setting}: {given!r} says more than that; strategies, guards, fractions and bags are"
            " settings of their own, to be crossed"
        )
    return arm


def trees(config: SearchConfig, *, of: int) -> list[int]:
    """Return the trees of each rung: ``of`` (all trees) over powers of ``reduction_factor``, rising.

    A rung that would train no more than the one before it is left out.
    """
    counts = {ceil(of / config.reduction_factor**back) for back in range(1, config.rungs + 1)}
    return sorted(counts)


def survivors(config: SearchConfig, tried: int, *, last: bool) -> int:
    """Return how many of the candidates tried in a rung go on."""
    return config.keep if last else max(config.keep, ceil(tried / config.reduction_factor))


def promote(trials: pl.DataFrame, *, keep: int) -> pl.DataFrame:
    """Rank the trials of a rung and keep the best.

    Args:
        trials: One row per candidate in panel order: ``arm``, ``rows``, ``ndcg_vali`` (null where LightGBM
            failed) and ``model``, which is the same for rankers that are the same byte for byte.
        keep: Candidates to keep at most.

    Returns:
        The trials, best first, with ``kept``. Of equal NDCG the one with fewer rows is better, then the one
        that comes first. A candidate whose ranker is that of a better one (because a guard excluded nothing, say,
        or because there are too few rows to learn anything from) is not kept: it would teach nothing.
    """
    ranked = trials.with_row_index("place").sort(
        "ndcg_vali", "rows", "place", descending=[True, False, False], nulls_last=True
    )
    distinct = pl.col("model").is_first_distinct() | pl.col("model").is_null()
    able = pl.col("ndcg_vali").is_not_null() & distinct
    return ranked.with_columns(kept=able & (able.cum_sum() <= keep)).drop("place")


def mean_ndcg(files: Sequence[Path], *, cutoff: int) -> float:
    """Return the mean NDCG of METRICS over all queries with a relevant document.

    Raises:
        ConfigError: There is none.
    """
    metrics = pl.concat([pl.read_parquet(file) for file in files]).filter(cutoff=cutoff)
    values = metrics["ndcg"].drop_nulls().to_list()
    if not values:
        raise ConfigError(
            "no validation query has a relevant document, so a search has nothing to choose by; leave --search out"
        )
    return fsum(values) / len(values)


def concat_rungs(rungs: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return ranked rungs, which have ``trees`` besides, one below the other, as SEARCH."""
    numbered = [rung.with_columns(rung=pl.lit(number)) for number, rung in enumerate(rungs, start=1)]
    return pl.concat(numbered).select(tables.SEARCH.names)
