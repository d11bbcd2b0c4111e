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
    """The shape of a data set.

    Attributes:
        name: Its name; part of the key of every draw.
        features: Number of features.
        documents: Per query, on average; most queries have between a third and five thirds of it.
        shares: Share of each label 0, 1, 2 ..., before some become unjudged.
        kinds: Shares of the columns that hold real numbers, counts, numbers from 0 to 1, flags, and one number
            per query.
        noise: Weight of chance in the relevance, beside traits of standard deviation 1.7.
        clearest: Highest correlation between a column and the trait it shows.
        decimals: Fewest and most decimals of a number from 0 to 1.
        present: Share of the rows that name a feature, over all columns.
        sentinel: Share of the columns that hold the sentinel in about half of the rows.
        unjudged: Share of the relevant documents that are labelled 0 all the same.
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


# Name, features, documents, shares of the labels, kinds of the columns.
_MSLR = Preset("mslr", 136, 120, (0.52, 0.32, 0.13, 0.02, 0.01), (0.4, 0.35, 0.15, 0.05, 0.05))
_YAHOO = Preset(
    "yahoo", 700, 24, (0.26, 0.36, 0.28, 0.08, 0.02), (0, 0, 0.95, 0.05, 0), decimals=(3, 5), present=0.3
)
_ISTELLA = Preset(
    "istella",
    features=220,
    documents=315,
    shares=(0.97, 0.008, 0.01, 0.007, 0.005),
    kinds=(0.35, 0.4, 0.1, 0.1, 0.05),
    noise=0.3,
    sentinel=0.1,
)
_LONG = Preset(
    "long",
    features=60,
    documents=1000,
    shares=(0.97, 0.02, 0.01),
    kinds=(0.5, 0.3, 0.2, 0, 0),
    noise=0.3,
    clearest=0.97,
    unjudged=0.5,
    steady=True,
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
