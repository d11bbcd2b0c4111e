"""Made-up ranking data in the shape of the public sets: a query's rows, from a seed and the query's number.

Hidden traits of a document, near normal and independent, decide its relevance: one by itself, one that counts
only where another is high, the lesser of two, and chance. A feature sees one trait, more or less clearly, or
none. No feature alone orders a list well; a model of many features does, and more queries teach it more.

Every number is drawn by :mod:`pipeline.core.rng` from the seed, what it is for, and the query and document it
belongs to: a query's rows never depend on how many others there are, on blocks or on threads. Only sums,
products, quotients and square roots are computed, which IEEE 754 rounds alike on every machine. A preset's
columns are the same for every seed, so that what is learnt from one seed holds for another.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ConfigError, did_you_mean
from pipeline.core.rng import hashed, stream_key, uniform, uniform_of

ABSENT: Final = -(2**63)
"""Stands for a feature that the row does not name."""
SENTINEL: Final = ABSENT + 1
"""Stands for the number that Istella's files hold where a value is missing."""

MAX_DOCUMENTS: Final = 100_000
"""Most documents per query, on average: a query is made in one piece."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TRAITS = 8  # the last two show in features and have no part in relevance
_DOC_BITS = 20
_BELL_UNIT = 5.3867332730395905  # one over the standard deviation of what it is multiplied with below
_REAL, _COUNT, _UNIT, _FLAG, _QUERY = range(5)


@dataclass(frozen=True)
class Preset:
    """The shape of a data set.

    Attributes:
        name: What it is called; part of every draw.
        features: How many there are.
        documents: Per query, on average; most queries have between a third and five thirds of it.
        shares: Of the labels 0, 1, 2 ...; before some are unjudged.
        kinds: Shares of the columns that are real numbers, counts, within 0 to 1, flags, or one number per query.
        noise: How much chance has a part in relevance, beside traits of standard deviation 1.7.
        clearest: How well a column can show its trait: the highest correlation there may be.
        decimals: Digits that a number within 0 to 1 has, least and most.
        present: Share of the rows that name a feature, over all columns.
        sentinel: Share of the columns that hold the sentinel in about half of the rows.
        unjudged: Share of the relevant documents whose label is 0 all the same.
        steady: Whether every query has the same number of documents.
    """

    name: str
    features: int
    documents: int
    shares: tuple[float, ...]
    kinds: tuple[float, float, float, float, float]
    noise: float = 1.2
    clearest: float = 0.85
    decimals: tuple[int, int] = (6, 6)
    present: float = 1.0
    sentinel: float = 0.0
    unjudged: float = 0.0
    steady: bool = False


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset(
            "mslr", features=136, documents=120, shares=(0.52, 0.32, 0.13, 0.02, 0.01),
            kinds=(0.4, 0.35, 0.15, 0.05, 0.05),
        ),
        Preset(
            "yahoo", features=700, documents=24, shares=(0.26, 0.36, 0.28, 0.08, 0.02),
            kinds=(0, 0, 0.95, 0.05, 0), decimals=(3, 5), present=0.3,
        ),
        Preset(
            "istella", features=220, documents=315, shares=(0.97, 0.008, 0.01, 0.007, 0.005),
            kinds=(0.35, 0.4, 0.1, 0.1, 0.05), noise=0.3, sentinel=0.1,
        ),
        Preset(
            "long", features=60, documents=1000, shares=(0.97, 0.02, 0.01), kinds=(0.5, 0.3, 0.2, 0, 0),
            noise=0.3, clearest=0.97, unjudged=0.5, steady=True,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The rows of some queries, one after another.

    Attributes:
        qid: int64, shape ``(rows,)``: the query's number.
        label: int64, shape ``(rows,)``.
        values: int64, shape ``(features, rows)``: the value times ten to its column's decimals, or
            :data:`ABSENT` or :data:`SENTINEL`.
        decimals: int64, shape ``(features,)``.
    """

    qid: Ints
    label: Ints
    values: Ints
    decimals: Ints


def find(name: str, *, documents: int | None = None) -> Preset:
    """Return a preset, with another number of documents per query where one is given.

    Raises:
        ConfigError: There is no such preset, or the number is out of range.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}.{did_you_mean(name, PRESETS)}")
    if documents is None:
        return PRESETS[name]
    if not 1 <= documents <= MAX_DOCUMENTS:
        raise ConfigError(f"--docs {documents}: use 1 to {MAX_DOCUMENTS:,} documents per query")
    return replace(PRESETS[name], documents=documents)


def lengths(preset: Preset, queries: Ints, *, seed: int) -> Ints:
    """Return how many documents each query has: at least 1, ``preset.documents`` on average."""
    if preset.steady:
        return np.full(len(queries), preset.documents, np.int64)
    share = uniform(queries, seed=seed, stream=f"{preset.name}/length/a")
    share += uniform(queries, seed=seed, stream=f"{preset.name}/length/b")
    return np.asarray(1 + np.floor(share * (preset.documents - 0.5)), np.int64)


def make(preset: Preset, queries: Ints, *, seed: int) -> Rows:
    """Return the rows of ``queries``.

    Args:
        preset: The shape.
        queries: Numbers of queries, from 1, int64, shape ``(queries,)``.
        seed: Of every draw.
    """
    count = lengths(preset, queries, seed=seed)
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


class _Draws:
    """The draws of one block of rows."""

    def __init__(
        self, name: str, seed: int, rows: npt.NDArray[np.uint64], queries: npt.NDArray[np.uint64]
    ) -> None:
        self._name, self._seed, self._rows, self._queries = name, seed, rows, queries

    def uniform(self, stream: str) -> Floats:
        """Draw a number in [0, 1) for every row."""
        return uniform_of(self._rows, key=stream_key(self._seed, f"{self._name}/{stream}"))

    def bell(self, stream: str) -> Floats:
        """Draw a near-normal number for every row."""
        return bell(self.uniform(stream))

    def bell_of_query(self, stream: str) -> Floats:
        """Draw a near-normal number for every query, repeated for its rows."""
        return bell(uniform_of(self._queries, key=stream_key(self._seed, f"{self._name}/{stream}")))


def bell(u: Floats) -> Floats:
    """Return quantiles of Tukey's lambda distribution (1/8), scaled to variance 1: near normal, kurtosis 3.06."""
    low = np.sqrt(np.sqrt(np.sqrt(u)))
    high = np.sqrt(np.sqrt(np.sqrt(1.0 - u)))
    return np.asarray((low - high) * _BELL_UNIT, np.float64)


def _relevance(preset: Preset, draws: _Draws, t: list[Floats]) -> Floats:
    """Return how relevant each document is; its place in the distribution of all gives the label."""
    gated = np.where(t[2] > 0, 1.2 * t[3], -0.3 * t[3])
    luck = preset.noise * draws.bell("noise") + 0.5 * draws.bell_of_query("ease")
    return np.asarray(t[0] + 0.7 * t[1] + gated + 0.8 * np.minimum(t[4], t[5]) + luck, np.float64)


@lru_cache
def _thresholds(preset: Preset) -> Floats:
    """Return the relevance at which each label from 1 begins, from 2^17 documents of no seed's data."""
    ids = np.arange(1 << 17)
    draws = _Draws("thresholds", 0, hashed(ids), hashed(ids >> 6 << _DOC_BITS))
    found = _relevance(preset, draws, [draws.bell(f"trait/{number}") for number in range(_TRAITS)])
    below = np.cumsum(preset.shares)[:-1]
    return np.asarray(np.sort(found)[np.floor(below * len(found)).astype(np.int64)])


# ---- Columns ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """What each column holds; arrays of shape ``(features,)``."""

    kind: Ints
    trait: Ints
    clearness: Floats
    spread: Floats
    shift: Floats
    decimals: Ints
    present: Floats
    sentinel: npt.NDArray[np.bool_]


@lru_cache
def _columns(preset: Preset) -> _Columns:
    ids = np.arange(preset.features)

    def draw(what: str) -> Floats:
        return uniform(ids, seed=0, stream=f"{preset.name}/columns/{what}")

    kind = np.searchsorted(np.cumsum(preset.kinds)[:-1], draw("kind"), side="right")
    least, most = preset.decimals
    digits = np.where(kind == _UNIT, least + np.floor(draw("digits") * (most - least + 1)), 6)
    digits[(kind == _COUNT) | (kind == _FLAG)] = 0
    # Three columns of ten see nothing; the others see one trait, and most of them dimly.
    clearness = np.where(
        draw("blind") < 0.3, 0.0, 0.15 + (preset.clearest - 0.15) * draw("clear") * draw("clear/2")
    )
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
    """Write one column's values."""
    kind, share = columns.kind[column], columns.present[column]
    some: npt.NDArray[np.intp] | None = None
    if kind == _QUERY:
        x = draws.bell_of_query(f"{column}")
    elif share < 1:
        u = draws.uniform(f"{column}")
        some = np.flatnonzero(u < share)
        x = bell(u[some] / share)  # uniform again, given that it is below the share
    else:
        x = draws.bell(f"{column}")
    if kind != _QUERY and (clear := columns.clearness[column]):
        trait = traits[columns.trait[column]]
        x = clear * (trait if some is None else trait[some]) + np.sqrt(1 - clear * clear) * x
    found = _shaped(x, column, columns)
    if some is None:
        out[:] = found
    else:
        out[:] = ABSENT
        out[some] = found
    if columns.sentinel[column]:
        out[draws.uniform(f"{column}/sentinel") < 0.5] = SENTINEL


def _shaped(x: Floats, column: int, columns: _Columns) -> Floats:
    """Return a column's numbers, times ten to its decimals, from near-normal ones."""
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
