"""Settings: one frozen model per stage, TOML in and TOML out.

Thread counts are not settings: they never change a result, so they belong to the machine, not to the run.
"""

import ast
import inspect
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from itertools import pairwise
from math import ceil, isnan
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import CoreSchema

from pipeline.core.errors import ConfigError, did_you_mean

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[str, Field(pattern=r"^[np]\d+(\.\d+)?$")]
Device = Literal["cpu", "gpu", "cuda"]
Compression = Literal["zstd", "lz4", "none"]


def docstrings_of(settings: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each setting of a model that has one."""
    [definition] = ast.parse(inspect.getsource(settings)).body
    found = {}
    for statement, below in pairwise(definition.body):  # type: ignore[attr-defined]
        if isinstance(statement, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(statement.target)] = inspect.cleandoc(ast.literal_eval(below.value))
    return found


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe each setting by its docstring, in forms; reading source would slow every start down."""
        described: dict[str, Any] = handler.resolve_ref_schema(handler(schema))
        for name, text in docstrings_of(cls).items():
            described["properties"][name]["description"] = text
        return described


def _nan_word(value: object) -> object:
    """Read ``missing = nan``, a number in TOML, as the policy of that name."""
    return "nan" if isinstance(value, float) and isnan(value) else value


class IngestConfig(_Settings):
    """SOURCE -> JUDGMENTS."""

    missing: Annotated[Literal["zero", "nan"], BeforeValidator(_nan_word)] = "zero"
    """What a feature that a line does not name becomes: 0, or NaN."""
    sentinel: float | None = None
    """A value that means "missing" and becomes NaN; Istella writes 1.79769313486e+308."""
    compression: Compression = "zstd"
    """How the Parquet files of the dataset, and of the sets prepared from it, are compressed (zstd at level 1)."""

    @model_validator(mode="after")
    def _sentinel_is_a_number(self) -> Self:
        if self.sentinel is not None and isnan(self.sentinel):
            raise ValueError("ingest.sentinel: NaN is missing already; give a number, or leave it out")
        return self


class SplitConfig(_Settings):
    """A source that is one file: its queries are split at random, by seed."""

    vali: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the queries for validation."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the queries for the test."""

    @model_validator(mode="after")
    def _leaves_training_queries(self) -> Self:
        if self.vali + self.test >= 1:
            raise ValueError("split.vali + split.test must leave queries to train on (below 1)")
        return self


class RankerConfig(_Settings):
    """LambdaMART, the same for the initial rankers and for every arm."""

    trees: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Boosting rounds (the most, with early stopping)."""
    leaves: Annotated[int, Field(ge=2, le=65_536)] | None = None
    """Leaves per tree; unset: 7 for a training split of less than 200,000 rows, 15 below a million, else 31."""
    min_rows_per_leaf: Annotated[int, Field(ge=1)] | None = None
    """Training rows a leaf must hold; unset: a fiftieth of those of the training split, at most 200."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Shrinkage of each tree."""
    truncation: Annotated[int, Field(ge=1)] = 30
    """Pairs reach down to this rank (LightGBM's ``lambdarank_truncation_level``)."""
    max_bin: Annotated[int, Field(ge=2, le=65_535)] = 255
    """Histogram bins per feature."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Stop after this many rounds without a better validation NDCG; 0: train all trees."""
    bag_trees: Share | None = None
    """Share of ``trees`` that each ranker of a bagged arm trains; unset: one over the root of their number, which
    for ``-bag4`` is half."""
    device: Device = "cpu"
    """``cpu``, ``gpu`` (OpenCL) or ``cuda`` (a LightGBM built for it)."""

    def for_rows(self, rows: int) -> "RankerConfig":
        """Return the settings, none unset, for a training split of ``rows`` rows and the arms made from it."""
        leaves = self.leaves or (7 if rows < 200_000 else 15 if rows < 1_000_000 else 31)
        min_rows = self.min_rows_per_leaf or min(max(rows // 50, 1), 200)
        return self.model_copy(update={"leaves": leaves, "min_rows_per_leaf": min_rows})

    def in_a_bag(self, bags: int) -> "RankerConfig":
        """Return the settings of each ranker of an arm of so many bags."""
        share = 1 if bags == 1 else self.bag_trees or bags**-0.5
        return self.model_copy(update={"trees": max(ceil(self.trees * share - 1e-9), 1), "bag_trees": None})


class ScoreConfig(_Settings):
    """Initial rankers -> SCORES."""

    scoring: Literal["out-of-fold", "in-sample"] = "out-of-fold"
    """``out-of-fold``: every training row is scored by a model that never saw its query. ``in-sample``:
    one model scores what it was trained on, as in Lucchese et al. 2017."""
    folds: Annotated[int, Field(ge=2, le=100)] = 2
    """Folds of a repeat: each is scored by a model trained on the others."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 2
    """How often the queries are split into folds anew; a row's score is the mean over the repeats."""
    trees: Annotated[int, Field(ge=1, le=100_000)] | None = 25
    """Boosting rounds of an initial ranker, at most ``ranker.trees``; unset: as many as that."""
    negatives: Share = 0.2
    """Share of each query's negatives, drawn at random, that an initial ranker trains on. It scores them
    all."""
    negatives_at_least: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Negatives of each query that an initial ranker trains on even where that is a larger share."""


_PANEL = ("random", "top", "mixed-guard75", "mixed-guard75-bag2", "mixed-guard100-bag2")


class SelectConfig(_Settings):
    """SCORES -> SELECTION: the panel of arms, which `all` is part of; `--arms` names others in its place."""

    fractions: tuple[Share, ...] = (0.05, 0.1, 0.2)
    """Shares of each query's negatives to keep."""
    counts: tuple[Count, ...] = ()
    """Other budgets to try beside the shares: ``n19`` keeps 19 negatives of each query, ``p3`` three for
    each of its positives."""
    strategies: tuple[str, ...] = _PANEL
    """Strategies to try at every budget, with their guards; ``-guardQ`` sets aside the negatives that
    outscore the Q-th percentile of their query's positives, ``-bagN`` averages the rankers of N training sets
    drawn anew. `random` is always there: it is the control."""
    prefer: str = "mixed-10-guard75-bag2"
    """The arm to recommend where it is in the panel and the validation lists do not speak against it."""
    skip: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """`semi-hard`: share of the hardest negatives to pass over."""
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`mixed`, `mixed-unweighted`: share of the kept negatives that are the hardest; the others are drawn
    at random."""
    hard_gain: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """``-graded``: gain of a hard negative, where that of an easy one is 0 and of a positive at least 1."""
    margin: Annotated[float, Field(gt=0, le=100)] = 1.0
    """`margin`: how far below the median positive a negative may score, in standard deviations of the
    query's scores."""
    temperature: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    """`softmax`: standard deviations of score that make a negative e times as likely to be drawn."""
    bins: Annotated[int, Field(ge=1, le=1000)] = 10
    """`distance-weighted`: intervals of the histogram that estimates the density of a query's scores."""
    clip: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0
    """`distance-weighted`: largest weight of a negative; 1 is the weight where the density is uniform."""
    power: Annotated[float, Field(ge=0, le=10)] = 0.75
    """`popularity`: power of the number of queries that list the document; 0 draws uniformly."""
    similarity: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """`ohem`, ``-neardup``: cosine of standardised features above which two rows of a query are much
    alike."""

    @model_validator(mode="after")
    def _fractions_rise(self) -> Self:
        if any(a >= b for a, b in pairwise(self.fractions)) or not (self.fractions or self.counts):
            raise ValueError("select.fractions must be a rising list, such as [0.05, 0.1]")
        return self


class SearchConfig(_Settings):
    """``--search``: strategies x guards x fractions x bags, by successive halving on the validation lists."""

    strategies: tuple[str, ...] = ("random", "top", "semi-hard", "mixed")
    """Strategies to cross."""
    guards: tuple[str, ...] = ("", "guard50", "guard75")
    """Guards to cross them with, such as ``guard75`` or ``guard75-neardup``; an empty one is no guard."""
    fractions: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.4)
    """Shares of each query's negatives to cross them with."""
    bags: tuple[Annotated[int, Field(ge=1, le=32)], ...] = (1, 2)
    """Training sets whose rankers are averaged (``-bagN``); more than 1 for strategies that draw at random."""
    rungs: Annotated[int, Field(ge=1, le=8)] = 2
    """Rounds of trials; the arms that survive them are then trained with all trees."""
    reduction_factor: Annotated[int, Field(ge=2, le=10)] = 3
    """Each rung keeps the best of every so many candidates, and trains so many times the trees of the last."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """Arms that survive the last rung."""


class EvaluateConfig(_Settings):
    """Model + split -> METRICS, and METRICS -> SUMMARY."""

    cutoffs: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = (1, 3, 5, 10)
    """Ranks at which NDCG is cut; the last one decides."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Random sign flips and bootstrap samples behind p-values and intervals."""

    @model_validator(mode="after")
    def _cutoffs_rise(self) -> Self:
        if not self.cutoffs or any(a >= b for a, b in pairwise(self.cutoffs)):
            raise ValueError("evaluate.cutoffs must be a rising list, such as [1, 3, 5, 10]")
        return self


class Config(_Settings):
    """Everything that decides a run's bytes, besides the data."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    """Seed of every random choice."""
    ingest: IngestConfig = IngestConfig()
    split: SplitConfig = SplitConfig()
    ranker: RankerConfig = RankerConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()
    search: SearchConfig = SearchConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def _explain(error: ValidationError, where: str) -> ConfigError:
    """Turn pydantic's first complaint into one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *group, name = map(str, first["loc"])
        model: Any = Config.model_fields[group[0]].annotation if group else Config
        near = did_you_mean(name, model.model_fields)
        return ConfigError(f"{where}: no setting {key!r}.{near}")
    if first["type"] == "value_error":  # raised by a validator above, which names its setting
        return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}")
    if first["type"] == "model_type":
        return ConfigError(f"{where}: {key!r} is a group of settings, such as {key}.NAME=VALUE")
    return ConfigError(f"{where}: {key}: {first['msg']} (given: {first['input']!r})")


def parse(values: dict[str, Any], *, where: str = "configuration") -> Config:
    """Validate nested ``values``; raises :class:`ConfigError` naming the setting that is wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested values; raises :class:`ConfigError` naming file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}") from None


def override(values: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``KEY=VALUE`` settings (dotted keys, TOML values, bare words are strings) to nested values."""
    merged = deepcopy(values)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}: write KEY=VALUE, such as ranker.trees=300")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        *groups, last = key.strip().split(".")
        target = merged
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {setting}: {group!r} is a single value, not a group of settings")
        target[last] = value
    return merged


def to_toml(config: Config) -> str:
    """Return every setting, resolved, as TOML; settings that are unset (None) are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
