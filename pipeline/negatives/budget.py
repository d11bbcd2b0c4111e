"""Budgets: how many of a query's negatives an arm keeps."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, Self, cast

import polars as pl

from pipeline.core.errors import ConfigError
from pipeline.negatives.result import ceil_count

Unit = Literal["", "n", "p"]

MAX_NEGATIVES: Final = 10_000
"""LightGBM takes no more rows per query, so a larger number would only look like a choice."""


@dataclass(frozen=True, order=True)
class Budget:
    """How many of a query's negatives to keep: 0.2, 19 or 3 in ``top-20``, ``top-n19`` and ``top-p3``.

    The unit is ``""`` for a share of them, ``n`` for a number, ``p`` for a number for each positive of the query.
    """

    unit: Unit
    amount: float

    @classmethod
    def parse(cls, text: str, *, where: str) -> Self:
        """Read ``20`` (a percentage), ``n19`` or ``p3``; :class:`ConfigError` says what is wrong and ``where``."""
        match = re.fullmatch(r"([np]?)(\d+(?:\.\d+)?)", text)
        if match is None:
            raise ConfigError(f"{where}: {text!r} is no budget; write n19 (negatives) or p3 (per positive)")
        unit, amount = cast(Unit, match[1]), float(match[2])
        if unit == "":
            amount = parse_percent(match[2])
            if not 0 < amount <= 1:
                raise ConfigError(f"{where}: the percentage of negatives must be above 0 and at most 100")
        elif unit == "n" and not (amount.is_integer() and 1 <= amount <= MAX_NEGATIVES):
            raise ConfigError(f"{where}: n is a whole number of negatives from 1 to {MAX_NEGATIVES:,}")
        elif unit == "p" and not 0 < amount <= MAX_NEGATIVES:
            raise ConfigError(
                f"{where}: p, negatives per positive, must be above 0 and at most {MAX_NEGATIVES:,}"
            )
        return cls(unit, amount)

    @property
    def name(self) -> str:
        """The budget in an arm's name: ``20``, ``n19``, ``p3``."""
        if self.unit == "":
            return format_percent(self.amount)
        return f"{self.unit}{_format_decimal(Decimal(repr(self.amount)))}"

    @property
    def n(self) -> pl.Expr:
        """Negatives to keep of each query: rounded up, and no more than there are."""
        whole = {"": pl.col("neg_count"), "n": pl.lit(1.0), "p": pl.col("pos_count")}
        return ceil_count(whole[self.unit] * self.amount)

    def expected(self, *, negatives: int, positives: int, queries: int) -> float:
        """Return the expected number of negatives kept in a split."""
        wanted = {"": self.amount * negatives, "n": self.amount * queries, "p": self.amount * positives}
        return min(wanted[self.unit], float(negatives))


EVERYTHING: Final = Budget("", 1.0)


def format_percent(share: float) -> str:
    """Write a share as a percentage that reads back as the same float, so that no two arms share a file."""
    return _format_decimal(Decimal(repr(share)).scaleb(2))


def parse_percent(percent: str) -> float:
    """Return the share that a percentage is, without the rounding of a division."""
    return float(Decimal(percent).scaleb(-2))


def _format_decimal(number: Decimal) -> str:
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
