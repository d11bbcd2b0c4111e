"""Paired resampling over queries: bootstrap intervals, sign-flip tests, Holm's correction.

One query is one draw, and all columns (arms, cutoffs) share the draws. Sums are taken in fixed point: each
value is rounded once to a multiple of 2^-k, so that every partial sum is an integer that float64 holds exactly.
So a matrix product gives the same bits on any number of threads, and ties between permutations, which decide a
p-value on few queries, are seen as ties.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from pipeline.evaluation.ndcg import Floats

ALPHA: Final = 0.05
"""Level below which a p-value counts as significant."""
BLOCK: Final = 1 << 21
"""Numbers per block of draws: 16 MiB of float64."""


def bootstrap(
    values: Floats, *, seed: int | Sequence[int], resamples: int, block: int = BLOCK
) -> tuple[Floats, Floats]:
    """Return the 95 % percentile interval of each column's mean (Efron 1979), queries drawn with replacement.

    Args:
        values: (n, columns) float64 in [-1, 1], one row per query, none NaN.
        seed: Seed of ``numpy.random.default_rng``.
        resamples: Number of bootstrap samples.
        block: Numbers drawn at a time; the result does not depend on it.

    Returns:
        Lower and upper end, (columns,) each; NaN when there is no row.
    """
    n, columns = values.shape
    if n == 0:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    rng = np.random.default_rng(seed)
    fixed, scale = _fixed_point(values)
    sums = np.empty((resamples, columns))
    for start, size in _blocks(resamples, max(n, columns), block):
        drawn = rng.integers(0, n, (size, n))
        drawn += np.arange(size)[:, None] * n
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums[start : start + size] = times.astype(np.float64) @ fixed
    tail = (1.0 - 0.95) / 2.0
    low, high = np.quantile(sums, (tail, 1.0 - tail), axis=0) / (scale * n)
    return low, high


def sign_flip(
    differences: Floats, *, seed: int | Sequence[int], resamples: int, block: int = BLOCK
) -> Floats:
    """Return two-sided p-values of Fisher's paired randomisation test of a mean difference of zero.

    Under the null hypothesis each query's difference is as likely to have the other sign. With B random
    sign vectors, p = (1 + #{|D*| >= |D|}) / (1 + B), never zero (Phipson and Smyth 2010).

    Args:
        differences: (n, columns) float64 in [-1, 1], one row per query, none NaN.
        seed: Seed of ``numpy.random.default_rng``; the draws do not depend on the columns.
        resamples: B, the number of sign vectors.
        block: Numbers drawn at a time; the result does not depend on it.

    Returns:
        (columns,) float64; NaN when there is no row.
    """
    n, columns = differences.shape
    if n == 0:
        return np.full(columns, np.nan)
    rng = np.random.default_rng(seed)
    fixed, _ = _fixed_point(differences)
    total = fixed.sum(axis=0)
    # Each fixed value is off by at most half a unit, so both sums together by at most n units.
    reach = np.abs(total) - n
    reached = np.zeros(columns, dtype=np.int64)
    for _, size in _blocks(resamples, max(n, columns), block):
        words = rng.integers(0, 1 << 64, (size, -(-n // 64)), dtype=np.uint64)
        kept = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, count=n).astype(np.float64)
        reached += (np.abs(2.0 * (kept @ fixed) - total) >= reach).sum(axis=0)
    p: Floats = (1 + reached) / (1 + resamples)
    return p


def holm(p: Floats) -> Floats:
    """Return Holm's (1979) step-down adjusted p-values, one family per row of the last axis.

    No p-value is NaN unless its whole family is.
    """
    m = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    scaled = np.take_along_axis(p, order, axis=-1) * np.arange(m, 0, -1)
    stepped = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def _fixed_point(values: Floats) -> tuple[Floats, float]:
    """Return (n, columns) values as whole multiples of 1/scale, n of which sum below 2^52; and scale."""
    scale = float(np.ldexp(1.0, 52 - len(values).bit_length()))
    return np.rint(values * scale), scale


def _blocks(total: int, width: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of blocks of ``total`` draws of ``width`` numbers, about ``block`` numbers each."""
    step = max(1, block // width)
    for start in range(0, total, step):
        yield start, min(step, total - start)
