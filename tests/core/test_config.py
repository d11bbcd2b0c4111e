"""Settings: wrong ones are one line that names the setting, and TOML goes in and out unchanged."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.core import config
from pipeline.core.config import Config, override, parse, read_toml, to_toml
from pipeline.core.errors import ConfigError


def test_nothing_given_is_the_default() -> None:
    """An empty document is valid, and is the documented default."""
    assert parse({}) == Config()
    assert parse({}).ranker.trees == 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "no setting 'sed'. Did you mean 'seed'?"),
        ({"ranker": {"tres": 1}}, "no setting 'ranker.tres'. Did you mean 'trees'?"),
        ({"ranker": 5}, "'ranker' is a group of settings, such as ranker.NAME=VALUE"),
        (
            {"ranker": {"trees": 0}},
            "ranker.trees: Input should be greater than or equal to 1 (given: 0)",
        ),
        ({"seed": "x"}, "(given: 'x')"),
        ({"seed": -1}, "seed: "),
        ({"seed": 2**31}, "seed: "),
        ({"ingest": {"missing": "none"}}, "ingest.missing: "),
        ({"ingest": {"sentinel": float("nan")}}, "ingest.sentinel: NaN is missing already"),
        ({"score": {"scoring": "oof"}}, "score.scoring: "),
        ({"score": {"folds": 1}}, "score.folds: "),
        ({"select": {"fractions": []}}, "select.fractions must be a rising list"),
        ({"select": {"fractions": [0.2, 0.1]}}, "select.fractions must be a rising list"),
        ({"select": {"fractions": [0.1, 0.1]}}, "select.fractions must be a rising list"),
        ({"select": {"fractions": [0.0]}}, "select.fractions.0: "),
        ({"select": {"fractions": [1.5]}}, "select.fractions.0: "),
        ({"select": {"fractions": 0.1}}, "select.fractions: "),
        ({"evaluate": {"cutoffs": [10, 5]}}, "evaluate.cutoffs must be a rising list"),
        ({"evaluate": {"cutoffs": [0]}}, "evaluate.cutoffs.0: "),
        ({"split": {"vali": 0.5, "test": 0.5}}, "split.vali + split.test must leave queries to train on"),
        ({"split": {"vali": 0}}, "split.vali: "),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(values: dict[str, Any], message: str) -> None:
    """The line begins with the place it came from."""
    with pytest.raises(ConfigError) as caught:
        parse(values, where="my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_infinity_can_be_a_sentinel() -> None:
    """A set that writes inf for missing values can say so."""
    assert parse({"ingest": {"sentinel": float("inf")}}).ingest.sentinel == float("inf")


def test_settings_cannot_be_changed_later() -> None:
    """A model is frozen: what the manifest says cannot drift from what ran."""
    with pytest.raises(ValueError, match="frozen"):
        Config().ranker.trees = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("ranker.trees=300", ("ranker", "trees"), 300),
        ("ranker.learning_rate=0.05", ("ranker", "learning_rate"), 0.05),
        ("ingest.missing=nan", ("ingest", "missing"), float("nan")),
        ("ingest.missing='nan'", ("ingest", "missing"), "nan"),
        ("ranker.device=gpu", ("ranker", "device"), "gpu"),
        ("select.fractions=[0.1, 0.2]", ("select", "fractions"), [0.1, 0.2]),
        (" seed = 7", ("seed",), 7),
        ("seed=", ("seed",), ""),
        ("ingest.sentinel=1.79769313486e+308", ("ingest", "sentinel"), 1.79769313486e308),
    ],
)
def test_override_reads_toml_values_and_bare_words(setting: str, path: tuple[str, ...], value: Any) -> None:
    """A value is TOML where it can be, else the text itself."""
    found: Any = override({}, [setting])
    for part in path:
        found = found[part]
    assert found == pytest.approx(value, nan_ok=True) if isinstance(value, float) else found == value


def test_nan_as_a_policy_needs_no_quotes() -> None:
    """``--set ingest.missing=nan`` means the policy, although nan is also a TOML number."""
    assert parse(override({}, ["ingest.missing=nan"])).ingest.missing == "nan"


def test_override_leaves_what_it_was_given_alone() -> None:
    """The values of the file stay as read; later settings win over earlier ones."""
    values: dict[str, Any] = {"ranker": {"trees": 5, "leaves": 3}}
    merged = override(values, ["ranker.trees=6", "ranker.trees=7"])
    assert merged == {"ranker": {"trees": 7, "leaves": 3}}
    assert values == {"ranker": {"trees": 5, "leaves": 3}}


@pytest.mark.parametrize("setting", ["seed", "=1", "  =1"])
def test_override_without_key_or_value_is_explained(setting: str) -> None:
    """What to write is in the message."""
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        override({}, [setting])


def test_override_below_a_single_value_is_explained() -> None:
    """``seed`` is not a group."""
    with pytest.raises(ConfigError, match="'seed' is a single value"):
        override({"seed": 1}, ["seed.x=1"])


@pytest.mark.parametrize("setting", ["..=1", "ranker.=1", "ranker.trees.x=1", "seed.x=1"])
def test_odd_keys_end_in_a_config_error(setting: str) -> None:
    """No spelling of a key gets past validation or ends in another error."""
    with pytest.raises(ConfigError):
        parse(override({}, [setting]))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a = ", "not a readable TOML file"), (b"\xff", "not a readable TOML file")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Syntax and encoding errors name the file."""
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_toml(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    """Neither ends in an error of the system."""
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_toml(tmp_path / "my.toml")
    with pytest.raises(ConfigError, match="not a readable TOML file"):
        read_toml(tmp_path)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Configurations over the range of each kind of setting."""
    rising = st.lists(
        st.floats(0, 1, exclude_min=True, allow_subnormal=False), min_size=1, max_size=4, unique=True
    )
    return parse(
        {
            "seed": draw(st.integers(0, 2**31 - 1)),
            "ingest": {
                "missing": draw(st.sampled_from(["zero", "nan"])),
                **draw(st.fixed_dictionaries({}, optional={"sentinel": st.floats(allow_nan=False)})),
            },
            "ranker": {"learning_rate": draw(st.floats(1e-6, 10)), "trees": draw(st.integers(1, 100_000))},
            "select": {"fractions": sorted(draw(rising))},
            "evaluate": {"cutoffs": sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=5)))},
        }
    )


@given(configs())
def test_toml_out_and_in_again_is_the_same(settings: Config) -> None:
    """config.toml of a run, given back with --config, is the same configuration."""
    assert parse(tomllib.loads(to_toml(settings))) == settings


def test_every_setting_is_documented() -> None:
    """Prefect shows the descriptions, so none may be missing."""
    groups = [
        kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    missing = [
        f"{group.__name__}.{name}"
        for group in groups
        for name, field in group.model_fields.items()
        if name not in config.docstrings_of(group) and not isinstance(field.default, BaseModel)
    ]
    assert missing == []
