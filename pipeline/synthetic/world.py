"""Made-up ranking data in the shape of the public sets: a query's rows, from a seed and the query's number.

Hidden traits of a document, near normal and independent, decide its relevance: one by itself, one that counts
only where another is high, the lesser of two, and chance. A feature shows one trait, more or less clearly, or
none. No feature alone orders a list well; a model of many features does, and more queries teach it more.

Every number is drawn by :mod:`pipeline.core.rng` from the seed, what it is for, and the query and document it
belongs to: a query's rows never depend on how many others there are, on blocks or on threads. Only sums,
products, quotients and square roots are computed, which IEEE 754 rounds alike on every machine. A preset's
columns are the same for every seed, so that what is learnt from one seed holds for another.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.core.rng import hashed, stream_key, uniform, uniform_of
from pipeline.synthetic.presets import Preset

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ABSENT: Final = -(2**63)
"""Stands for a feature that the row does not name."""
SENTINEL: Final = ABSENT + 1
"""Stands for the number that Istella's files hold where a value is missing."""

_TRAITS = 8  # the last two show in features and have no part in relevance
_DOC_BITS = 20
_BELL_SCALE = 5.3867332730395905  # gives quantiles of Tukey's lambda distribution variance 1
_REAL, _COUNT, _UNIT, _FLAG, _QUERY = range(5)


@dataclass(frozen=True)
class Rows:
    """The rows of some queries, one after another."""

    qid: Ints  # shape (rows,): the query's number
    label: Ints  # shape (rows,)
    values: Ints  # shape (features, rows): times ten to the column's decimals, or ABSENT or SENTINEL
    decimals: Ints  # shape (features,)


def query_lengths(preset: Preset, queries: Ints, *, seed: int) -> Ints:
    """Return how many documents each query has: at least 1, ``preset.documents`` on average."""
    if preset.steady:
        return np.full(len(queries), preset.documents, np.int64)
    share = uniform(queries, seed=seed, stream=f"{preset.name}/length/a")
    share += uniform(queries, seed=seed, stream=f"{preset.name}/length/b")
    return np.asarray(1 + np.floor(share * (preset.documents - 0.5)), np.int64)


def make_rows(preset: Preset, queries: Ints, *, seed: int) -> Rows:
    """Return the rows of the queries with these numbers, which count from 1."""
    count = query_lengths(preset, queries, seed=seed)
    qid = np.repeat(queries, count)
    document = np.arange(len(qid)) - np.repeat(np.cumsum(count) - count, count)
    draws = _Draws(preset.name, seed, hashed(qid << _DOC_BITS | document), hashed(qid << _DOC_BITS))
    traits = [draws.bell(f"trait/{number}") for number in range(_TRAITS)]
    grade = np.searchsorted(_thresholds(preset), _relevance(preset, draws, traits), side="right")
    if preset.unjudged:
        grade[draws.uniform("unjudged") < preset.unjudged] = 0
    columns = _columns(preset)
    values = np.empty((preset.features, len(qid)), np.int64)
    for column in range(preset.features):
        _fill(values[column], column, columns, draws, traits)
    return Rows(qid, grade.astype(np.int64), values, columns.decimals)


@dataclass(frozen=True)
class _Draws:
    """The draws of one block of rows; ``rows`` and ``queries`` are the hashed keys of each row."""

    name: str
    seed: int
    rows: npt.NDArray[np.uint64]
    queries: npt.NDArray[np.uint64]

    def uniform(self, stream: str) -> Floats:
        """Draw a number in [0, 1) for every row."""
        return uniform_of(self.rows, key=stream_key(self.seed, f"{self.name}/{stream}"))

    def bell(self, stream: str) -> Floats:
        """Draw a near-normal number for every row."""
        return bell(self.uniform(stream))

    def bell_of_query(self, stream: str) -> Floats:
        """Draw a near-normal number for every query, repeated for its rows."""
        return bell(uniform_of(self.queries, key=stream_key(self.seed, f"{self.name}/{stream}")))


def bell(u: Floats) -> Floats:
    """Return quantiles of Tukey's lambda distribution (1/8), scaled to variance 1: near normal, kurtosis 3.06."""
    low = np.sqrt(np.sqrt(np.sqrt(u)))
    high = np.sqrt(np.sqrt(np.sqrt(1.0 - u)))
    return np.asarray((low - high) * _BELL_SCALE, np.float64)


def _relevance(preset: Preset, draws: _Draws, t: list[Floats]) -> Floats:
    """Return how relevant each document is; :func:`_thresholds` turns that into labels."""
    gated = np.where(t[2] > 0, 1.2 * t[3], -0.3 * t[3])
    luck = preset.noise * draws.bell("noise") + 0.5 * draws.bell_of_query("ease")
    return np.asarray(t[0] + 0.7 * t[1] + gated + 0.8 * np.minimum(t[4], t[5]) + luck, np.float64)


@lru_cache
def _thresholds(preset: Preset) -> Floats:
    """Return the lowest relevance of each label from 1, from 2^17 documents that no seed's data holds."""
    ids = np.arange(1 << 17)
    draws = _Draws("thresholds", 0, hashed(ids), hashed(ids >> 6 << _DOC_BITS))
    found = _relevance(preset, draws, [draws.bell(f"trait/{number}") for number in range(_TRAITS)])
    below = np.cumsum(preset.shares)[:-1]
    return np.asarray(np.sort(found)[np.floor(below * len(found)).astype(np.int64)])


@dataclass(frozen=True)
class _Columns:
    """What each column holds, as arrays of shape ``(features,)``."""

    kind: Ints  # _REAL to _QUERY
    trait: Ints
    clearness: Floats  # correlation with the trait
    spread: Floats  # scale
    shift: Floats  # offset
    decimals: Ints
    present: Floats  # share of the rows that name it
    sentinel: npt.NDArray[np.bool_]


@lru_cache
def _columns(preset: Preset) -> _Columns:
    """Draw what each column of a preset holds, the same for every seed."""
    ids = np.arange(preset.features)

    def draw(what: str) -> Floats:
        return uniform(ids, seed=0, stream=f"{preset.name}/columns/{what}")

    kind = np.searchsorted(np.cumsum(preset.kinds)[:-1], draw("kind"), side="right")
    least, most = preset.decimals
    digits = np.where(kind == _UNIT, least + np.floor(draw("digits") * (most - least + 1)), 6)
    digits[(kind == _COUNT) | (kind == _FLAG)] = 0
    # Three columns of ten show nothing; the others show one trait, and most of them dimly.
    shown = 0.15 + (preset.clearest - 0.15) * draw("clear") * draw("clear/2")
    clearness = np.where(draw("blind") < 0.3, 0.0, shown)
    present = np.ones(preset.features)
    if preset.present < 1:
        present = np.clip(2 * preset.present * draw("present"), 0.01, 1)
    return _Columns(
        kind=kind.astype(np.int64),
        trait=np.floor(draw("trait") * _TRAITS).astype(np.int64),
        clearness=clearness,
        spread=0.5 + 4 * draw("spread") * draw("spread/2"),
        shift=4 * draw("shift") - 1,
        decimals=digits.astype(np.int64),
        present=present,
        sentinel=draw("sentinel") < preset.sentinel,
    )


def _fill(out: Ints, column: int, columns: _Columns, draws: _Draws, traits: list[Floats]) -> None:
    """Draw one column's values into ``out``."""
    kind, share = columns.kind[column], columns.present[column]
    named: Any = slice(None)
    if kind == _QUERY:
        x = draws.bell_of_query(f"{column}")
    elif share < 1:
        u = draws.uniform(f"{column}")
        named = np.flatnonzero(u < share)
        x = bell(u[named] / share)  # uniform again, given that it is below the share
    else:
        x = draws.bell(f"{column}")
    if kind != _QUERY and (clear := columns.clearness[column]):
        x = clear * traits[columns.trait[column]][named] + np.sqrt(1 - clear * clear) * x
    out[:] = ABSENT
    out[named] = _to_kind(x, column, columns)
    if columns.sentinel[column]:
        out[draws.uniform(f"{column}/sentinel") < 0.5] = SENTINEL


def _to_kind(x: Floats, column: int, columns: _Columns) -> Floats:
    """Turn near-normal numbers into a column's, times ten to its decimals."""
    kind, spread, shift = columns.kind[column], columns.spread[column], columns.shift[column]
    unit = 10.0 ** columns.decimals[column]
    if kind == _COUNT:
        high = np.maximum(x + 1, 0)
        found = np.floor(spread * spread * high * high)
    elif kind == _UNIT:
        found = np.floor((0.5 + 0.5 * x / (1 + np.abs(x))) * unit)
    elif kind == _FLAG:
        found = x > 1 - shift / 2
    else:
        found = np.rint((shift * spread + spread * x) * unit)
    return np.asarray(found, np.float64)
