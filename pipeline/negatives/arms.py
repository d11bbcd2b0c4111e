"""Arms: named ways to prepare the training set, such as ``all``, ``random-20`` or ``mixed-20-guard75``."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
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
    return f"{round(share * 100, 6):g}"


def parse(name: str) -> Arm:
    """Read an arm's name; a strategy without a fraction gets 1.

    Raises:
        ConfigError: No such strategy, or a fraction or guard out of range.
    """
    match = _SPECIFICATION.fullmatch(name)
    strategy = match["strategy"] if match else name
    if match is None or strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{did_you_mean(strategy, STRATEGIES)}")
    fraction = float(match["percent"]) / 100 if match["percent"] else 1.0
    guard = float(match["guard"]) / 100 if match["guard"] else None
    if not 0 < fraction <= 1:
        raise ConfigError(f"arm {name!r}: the percentage of negatives must be above 0 and at most 100")
    if guard is not None and guard > 1:
        raise ConfigError(f"arm {name!r}: the guard's percentile must be at most 100")
    return Arm(strategy, fraction, guard)


def panel(config: SelectConfig, names: Iterable[str] = ()) -> list[Arm]:
    """Return the arms of a run: the baseline, then by fraction the control and the others.

    Args:
        config: The fractions and strategies of the panel.
        names: Arms by name instead; the baseline and each arm's control join them.
    """
    arms = [parse(name) for name in names]
    if not arms:
        kinds = [parse(name) for name in config.strategies]
        for name, kind in zip(config.strategies, kinds, strict=True):
            if kind.fraction != 1:
                raise ConfigError(
                    f"select.strategies: {name!r} has a percentage; those go in select.fractions"
                )
        arms = [
            Arm(kind.strategy, fraction, kind.guard)
            for fraction in config.fractions
            for kind in kinds
            if kind.strategy != BASELINE
        ]
    fractions = sorted({arm.fraction for arm in arms if arm.strategy != BASELINE})
    wanted = [Arm(BASELINE)]
    for fraction in fractions:
        wanted.append(Arm(CONTROL, fraction))
        wanted += [arm for arm in arms if arm.fraction == fraction]
    wanted += [arm for arm in arms if arm.strategy == BASELINE]
    return list(dict.fromkeys(wanted))
