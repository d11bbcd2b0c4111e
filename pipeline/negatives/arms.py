"""Arms: named ways to prepare the training set, such as ``all``, ``random-20`` or ``mixed-20-guard75``."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pipeline.config import SelectConfig
from pipeline.errors import ConfigError, did_you_mean
from pipeline.negatives.strategies import STRATEGIES

BASELINE: Final = "all"
CONTROL: Final = "random"
_SPECIFICATION: Final = re.compile(
    r"(?P<strategy>[a-z]+(?:-[a-z]+)*?)(?:-(?P<percent>\d+(?:\.\d+)?))?(?:-guard(?P<guard>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Arm:
    """One way to prepare the training set.

    Attributes:
        strategy: A key of :data:`~pipeline.negatives.strategies.STRATEGIES`.
        fraction: Share of each query's negatives to keep; 1 for `all`.
        guard: Set aside the negatives above this quantile of their query's positives; None: no guard.
    """

    strategy: str
    fraction: float = 1.0
    guard: float | None = None

    @property
    def name(self) -> str:
        """The arm's name, such as ``mixed-20-guard75``: also the name of its files."""
        percent = "" if self.strategy == BASELINE else f"-{_percent(self.fraction)}"
        return f"{self.strategy}{percent}" + ("" if self.guard is None else f"-guard{_percent(self.guard)}")

    @property
    def control(self) -> str | None:
        """The random arm at the same fraction; None for the baseline and for a control itself."""
        control = Arm(CONTROL, self.fraction).name
        return None if self.strategy == BASELINE or self.name == control else control

    def options(self, config: SelectConfig) -> dict[str, Any]:
        """Return the keyword parameters of the arm's strategy."""
        known = {"fraction": self.fraction, "skip": config.skip, "hard_share": config.hard_share}
        return {name: known[name] for name in inspect.signature(STRATEGIES[self.strategy]).parameters}


def _percent(share: float) -> str:
    """Write a share as a percentage that reads back as the same float, so that no two arms share a file."""
    digits = f"{Decimal(repr(share)).scaleb(2):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _share(percent: str | None) -> float | None:
    return None if percent is None else float(Decimal(percent).scaleb(-2))


def parse(name: str) -> Arm:
    """Read an arm's name; a strategy without a fraction gets 1.

    Raises:
        ConfigError: No such strategy, a fraction or guard out of range, or a fraction of `all`.
    """
    match = _SPECIFICATION.fullmatch(name)
    strategy = match["strategy"] if match else name
    if match is None and any(name.startswith(f"{known}-") for known in STRATEGIES):
        raise ConfigError(
            f"arm {name!r}: write STRATEGY-PERCENT or STRATEGY-PERCENT-guardPERCENTILE, like mixed-20-guard75"
        )
    if match is None or strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{did_you_mean(strategy, STRATEGIES)}")
    fraction, guard = _share(match["percent"]), _share(match["guard"])
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"arm {name!r}: the percentage of negatives must be above 0 and at most 100")
    if guard is not None and guard > 1:
        raise ConfigError(f"arm {name!r}: the guard's percentile must be at most 100")
    if strategy == BASELINE and fraction not in (None, 1):
        raise ConfigError(
            f"arm {name!r}: {BASELINE!r} keeps every negative; did you mean {CONTROL}-{match['percent']}?"
        )
    return Arm(strategy, 1.0 if fraction is None else fraction, guard)


def panel(config: SelectConfig, names: Iterable[str] = ()) -> list[Arm]:
    """Return the arms of a run: the baseline, then by fraction the control and the others.

    Args:
        config: The fractions and strategies of the panel.
        names: Arms by name instead; the baseline and each arm's control join them.
    """
    arms = [parse(name) for name in names]
    fractions = {arm.fraction for arm in arms if arm.strategy != BASELINE}
    if not arms:
        kinds = [parse(name) for name in config.strategies]
        for name, kind in zip(config.strategies, kinds, strict=True):
            if kind.fraction != 1:
                raise ConfigError(
                    f"select.strategies: {name!r} has a percentage; those go in select.fractions"
                )
        fractions = set(config.fractions)
        arms = [
            kind if kind.strategy == BASELINE else Arm(kind.strategy, fraction, kind.guard)
            for fraction in config.fractions
            for kind in kinds
        ]
    wanted = [Arm(BASELINE)]
    for fraction in sorted(fractions):
        wanted.append(Arm(CONTROL, fraction))
        wanted += [arm for arm in arms if arm.fraction == fraction and arm.strategy != BASELINE]
    wanted += [arm for arm in arms if arm.strategy == BASELINE]
    return list(dict.fromkeys(wanted))
