"""The shapes that made-up data can have, named after the public sets they resemble."""

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from pipeline.core.errors import ConfigError, did_you_mean

Format = Literal["letor", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

MAX_DOCUMENTS: Final = 100_000
"""Most documents per query, on average: a query is made in one piece."""


@dataclass(frozen=True)
class Preset:
    """The shape of a data set. A column holds real numbers, counts, numbers from 0 to 1, flags or one per query."""

    name: str  # part of the key of every draw
    features: int
    documents: int  # per query, on average; most queries have between a third and five thirds of it
    shares: tuple[float, ...]  # of each label 0, 1, 2 ..., before some become unjudged
    kinds: tuple[float, float, float, float, float]  # share of the columns of each kind
    noise: float = 1.2  # weight of chance in the relevance, beside traits of standard deviation 1.7
    clearest: float = 0.85  # highest correlation between a column and the trait it shows
    decimals: tuple[int, int] = (6, 6)  # fewest and most of a number from 0 to 1
    present: float = 1.0  # share of the rows that name a feature, over all columns
    sentinel: float = 0.0  # share of the columns that hold the sentinel in about half of the rows
    unjudged: float = 0.0  # share of the relevant documents that are labelled 0 all the same
    steady: bool = False  # whether every query has the same number of documents


# Name, features, documents, shares of the labels, kinds of the columns.
_MSLR = Preset("mslr", 136, 120, (0.52, 0.32, 0.13, 0.02, 0.01), (0.4, 0.35, 0.15, 0.05, 0.05))
_YAHOO = Preset(
    "yahoo", 700, 24, (0.26, 0.36, 0.28, 0.08, 0.02), (0, 0, 0.95, 0.05, 0), decimals=(3, 5), present=0.3
)
_ISTELLA = Preset(
    "istella",
    220,
    315,
    (0.97, 0.008, 0.01, 0.007, 0.005),
    (0.35, 0.4, 0.1, 0.1, 0.05),
    noise=0.3,
    sentinel=0.1,
)
_LONG = Preset(
    "long", 60, 1000, (0.97, 0.02, 0.01), (0.5, 0.3, 0.2, 0, 0), 0.3, clearest=0.97, unjudged=0.5, steady=True
)
PRESETS: Final = {preset.name: preset for preset in (_MSLR, _YAHOO, _ISTELLA, _LONG)}


def find_preset(name: str, *, documents: int | None = None) -> Preset:
    """Return a preset, with another number of documents per query if one is given.

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
