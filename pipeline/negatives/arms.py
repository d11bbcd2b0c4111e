"""Arms: named ways to prepare the training set, such as ``all``, ``random-20`` or ``mixed-20-guard75``."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from pipeline.core.config import SelectConfig
from pipeline.core.errors import ConfigError, did_you_mean
from pipeline.negatives.budget import EVERYTHING, Budget, format_percent, parse_percent
from pipeline.negatives.guards import GUARDS, Exclusion
from pipeline.negatives.result import StrategyResult
from pipeline.negatives.strategies import STRATEGIES

BASELINE: Final = "all"
CONTROL: Final = "random"
T = TypeVar("T")
_TRAINING: Final = {
    "dynamic": ("trees", 1, 100_000),
    "rounds": ("rankers", 2, 100),
    "bag": ("training sets", 2, 32),  # the column ``bags`` of SELECTION has a bit for each
}
"""Suffixes that say how to train, of which a name has at most one: what they count, from where to where."""
_GUARD: Final = re.compile(rf"-({'|'.join(GUARDS)})(\d+(?:\.\d+)?|max)?")
_NAME: Final = re.compile(
    rf"(?P<strategy>[a-z]+(?:-[a-z]+)*?)(?:-(?P<budget>[np]?\d+(?:\.\d+)?))?(?P<guards>(?:{_GUARD.pattern})*)"
    r"(?P<graded>-graded)?(?:-dynamic(?P<dynamic>\d+))?(?:-rounds(?P<rounds>\d+))?(?:-bag(?P<bag>\d+))?"
)
_USAGE: Final = (
    "write STRATEGY-PERCENT, STRATEGY-nCOUNT or STRATEGY-pPER_POSITIVE, then any of -guardPERCENTILE, -neardup"
    " and -skipPERCENT, then -graded, then -dynamicTREES, -roundsRANKERS or -bagSETS, like mixed-20-guard75-bag4"
)


@dataclass(frozen=True)
class Arm:
    """One way to prepare the training set.

    Attributes:
        strategy: A key of :data:`~pipeline.negatives.strategies.STRATEGIES`.
        budget: How many of each query's negatives to keep; everything for `all`.
        guards: Keys of :data:`~pipeline.negatives.guards.GUARDS`, in its order, each with its share or None.
        reselect_every: Trees between two choices of negatives; None: choose once.
        bags: Training sets to prepare, each with draws of its own; their rankers are averaged.
        rounds: Rankers to train one after the other, each on what the one before it adds to the choice.
        graded: Hard negatives are a grade of their own.
    """

    strategy: str
    budget: Budget = EVERYTHING
    guards: tuple[tuple[str, float | None], ...] = ()
    reselect_every: int | None = None
    bags: int = 1
    rounds: int = 1
    graded: bool = False

    @property
    def name(self) -> str:
        """The arm's name, such as ``mixed-20-guard75``: also the name of its files."""
        named = [self.strategy] if self.strategy == BASELINE else [self.strategy, self.budget.name]
        named += [guard if share is None else guard + format_percent(share) for guard, share in self.guards]
        named += ["graded"] if self.graded else []
        named += [] if self.reselect_every is None else [f"dynamic{self.reselect_every}"]
        named += [f"rounds{self.rounds}"] if self.rounds > 1 else []
        named += [f"bag{self.bags}"] if self.bags > 1 else []
        return "-".join(named)

    @property
    def chooses_again(self) -> bool:
        """Whether its own ranker decides what it trains on: it is selected and trained in one step."""
        return self.reselect_every is not None or self.rounds > 1

    @property
    def control(self) -> str | None:
        """The random arm with the same budget; None for the baseline and for a control itself."""
        control = Arm(CONTROL, self.budget).name
        return None if self.strategy == BASELINE or self.name == control else control

    @property
    def needs_scores(self) -> bool:
        """Whether initial rankers have to score the rows first; not for an arm that keeps them all."""
        return self != Arm(BASELINE)

    def result(self, config: SelectConfig) -> StrategyResult:
        """Return what the arm's strategy says of each candidate."""
        return _call_with_settings(STRATEGIES[self.strategy], config, n=self.budget.n)

    def exclusions(self, config: SelectConfig) -> list[Exclusion]:
        """Return what the arm's guards say of each negative."""
        return [_call_with_settings(GUARDS[guard], config, share=share) for guard, share in self.guards]

    def options(self, config: SelectConfig) -> dict[str, Any]:
        """Return the settings that decide the arm's outcome, by name."""
        functions = [STRATEGIES[self.strategy], *(GUARDS[guard] for guard, _ in self.guards)]
        names = {name for function in functions for name in _parameter_names(function)} - {"n", "share"}
        return {name: getattr(config, name) for name in sorted(names)}

    def reads(self, config: SelectConfig) -> set[str]:
        """Return what the arm needs of the training split beside the keys: ``doc_id``, ``features``."""
        columns = [each.extra_column for each in self.exclusions(config)]
        columns.append(self.result(config).extra_column)
        return {column.reads for column in columns if column is not None}

    def keeps_everything(self, facts: Mapping[str, Any]) -> bool:
        """Return whether, by the facts of its selection, the arm trains on the training split unchanged."""
        whole = facts["rows"] == facts["of_rows"] and not facts["weighted"]
        return bool(whole and self.bags == 1 and not self.graded)


def _parameter_names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _call_with_settings(function: Callable[..., T], config: SelectConfig, **given: Any) -> T:
    """Call a strategy or a guard with the parameters it takes: those given, and settings of the same name."""
    known = dict(config) | given
    return function(**{name: known[name] for name in _parameter_names(function)})


def preferred(config: SelectConfig) -> Arm:
    """Return the arm that ``select.prefer`` names, or raise as :func:`parse`."""
    try:
        return parse(config.prefer)
    except ConfigError as error:
        raise ConfigError(f"select.prefer: {error}") from None


def parse(name: str) -> Arm:
    """Read an arm's name; a strategy without a budget keeps 100 %, guards may come in any order.

    Raises:
        ConfigError: No such strategy, a budget or guard out of range, or a budget for `all`.
    """
    where, match = f"arm {name!r}", _NAME.fullmatch(name)
    strategy = match["strategy"] if match else name
    if match is None and any(name.startswith(f"{known}-") for known in STRATEGIES):
        raise ConfigError(f"{where}: {_USAGE}")
    if match is None or strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{did_you_mean(strategy, STRATEGIES)}")
    budget = EVERYTHING if match["budget"] is None else Budget.parse(match["budget"], where=where)
    if strategy == BASELINE and budget != EVERYTHING:
        raise ConfigError(
            f"{where}: {BASELINE!r} keeps every negative; did you mean {CONTROL}-{match['budget']}?"
        )
    training = _training_suffix(match, where=where)
    if match["graded"]:
        _require_gradable(strategy, training.get("dynamic"), where=where)
    return Arm(
        strategy,
        budget,
        guards=_guards(match["guards"], where=where),
        reselect_every=training.get("dynamic"),
        bags=training.get("bag", 1),
        rounds=training.get("rounds", 1),
        graded=match["graded"] is not None,
    )


def _default_result(strategy: str) -> StrategyResult:
    """Return what a strategy says of each candidate under the default settings."""
    return Arm(strategy).result(SelectConfig())


def _draws_at_random(strategy: str) -> bool:
    return "draw" in _default_result(strategy).kept.meta.root_names()


def can_be_bagged(arm: Arm) -> bool:
    """Return whether training sets of the arm would differ, and are drawn before it is trained."""
    return _draws_at_random(arm.strategy) and not arm.chooses_again


def _training_suffix(match: re.Match[str], *, where: str) -> dict[str, int]:
    """Read the suffix that says how to train, if there is one."""
    strategy, given = match["strategy"], {name: match[name] for name in _TRAINING if match[name]}
    suffixes = [f"-{name}{written}" for name, written in given.items()]
    if len(given) > 1:
        raise ConfigError(
            f"{where}: {suffixes[0]} and {suffixes[1]} do not go together; leave one of them out"
        )
    if not given:
        return {}
    [(name, written)] = given.items()
    (counted, low, high), draws = _TRAINING[name], _draws_at_random(strategy)
    if name == "dynamic" and strategy == BASELINE:
        why = f"{strategy!r} keeps the same rows every time; leave -dynamic{written} out"
    elif not low <= int(written) <= high:
        why = f"-{name} takes a number of {counted} from {low} to {high:,}"
    elif name == "rounds" and (draws or strategy == BASELINE):
        why = (
            f"-rounds adds what the scores choose, and {strategy!r} does not go by scores alone; take"
            f" false-positive, or leave -rounds{written} out"
        )
    elif name == "bag" and not draws:
        why = (
            f"{strategy!r} draws nothing, so its {written} training sets would be the same; leave"
            f" -bag{written} out"
        )
    else:
        return {name: int(written)}
    raise ConfigError(f"{where}: {why}")


def _require_gradable(strategy: str, reselect_every: int | None, *, where: str) -> None:
    """Raise why an arm cannot be graded."""
    able = [name for name in STRATEGIES if _default_result(name).hard is not None]
    if strategy not in able:
        raise ConfigError(
            f"{where}: {strategy!r} does not keep hard negatives apart from easy ones; leave -graded out, or"
            f" take one of {', '.join(able)}"
        )
    if reselect_every is not None:
        raise ConfigError(
            f"{where}: -graded and -dynamic{reselect_every} do not go together; leave one of them out"
        )


def _guards(suffix: str, *, where: str) -> tuple[tuple[str, float | None], ...]:
    """Read suffixes such as ``-guard75-skip5``, each at most once."""
    found: dict[str, float | None] = {}
    for guard, written in _GUARD.findall(suffix):
        takes_share = "share" in _parameter_names(GUARDS[guard])
        share = parse_percent("100" if written == "max" else written) if written else None
        if (share is not None) != takes_share or (written == "max" and guard != "guard"):
            raise ConfigError(f"{where}: {_USAGE}")
        if share is not None and share > 1:
            raise ConfigError(f"{where}: the percentage of -{guard} must be at most 100")
        if guard in found:
            raise ConfigError(f"{where}: -{guard} can be given once")
        found[guard] = share
    return tuple((guard, found[guard]) for guard in GUARDS if guard in found)


def panel(config: SelectConfig, names: Iterable[str] = ()) -> list[Arm]:
    """Return the arms of a run, each once: the baseline, then by budget the control and the others.

    Args:
        config: The panel's budgets and strategies, beside the baseline and the controls.
        names: Arms by name instead: these and no others.
    """
    arms = [parse(name) for name in names] or _panel_of_settings(config)

    def place(arm: Arm) -> tuple[int, Budget, bool]:
        """Put arms of a budget behind its control, as given, and guarded baselines last."""
        group = 1 if arm.strategy != BASELINE else 2 if arm.guards else 0
        return group, arm.budget, arm != Arm(CONTROL, arm.budget)

    return sorted(dict.fromkeys(arms), key=place)


def _panel_of_settings(config: SelectConfig) -> list[Arm]:
    """Return the panel of the settings, in any order and some arms more than once."""
    kinds = [parse(name) for name in config.strategies]
    for name, kind in zip(config.strategies, kinds, strict=True):
        if kind.budget != EVERYTHING:
            what, setting = ("count", "counts") if kind.budget.unit else ("percentage", "fractions")
            raise ConfigError(f"select.strategies: {name!r} has a {what}; those go in select.{setting}")
    budgets = {Budget("", fraction) for fraction in config.fractions}
    budgets |= {Budget.parse(count, where="select.counts") for count in config.counts}
    arms = [
        kind if kind.strategy == BASELINE else replace(kind, budget=budget)
        for budget in sorted(budgets)
        for kind in kinds
    ]
    return [Arm(BASELINE), *(Arm(CONTROL, budget) for budget in budgets), *arms]
