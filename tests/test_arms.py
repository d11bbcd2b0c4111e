"""Names of arms, and the arms of a run."""

import pytest

from pipeline.config import SelectConfig
from pipeline.errors import ConfigError
from pipeline.negatives.arms import Arm, panel, parse
from pipeline.negatives.strategies import STRATEGIES


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("all", Arm("all")),
        ("all-guard75", Arm("all", 1.0, 0.75)),
        ("random-20", Arm("random", 0.2)),
        ("top-0.5", Arm("top", 0.005)),
        ("semi-hard-12.5", Arm("semi-hard", 0.125)),
        ("mixed-20-guard75", Arm("mixed", 0.2, 0.75)),
        ("mixed-100-guard0", Arm("mixed", 1.0, 0.0)),
        ("semi-hard-0.7-guard99.9", Arm("semi-hard", 0.007, 0.999)),
        ("top-33.33333333333333", Arm("top", 1 / 3)),
        ("top-0.00001", Arm("top", 1e-7)),
    ],
)
def test_names_round_trip(name, arm):
    """A name gives the arm with exactly that share, and the arm gives the name."""
    assert parse(name) == arm
    assert arm.name == name


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"all"}))
def test_every_fraction_has_a_name_of_its_own(strategy):
    """A thousand shares, and neighbours that differ in the last digit, read back as the same floats."""
    shares = [k / 1000 for k in range(1, 1001)] + [0.1 + 0.2, 0.3, 1 / 3, 0.333333, 0.3333333]
    for share in shares:
        assert parse(Arm(strategy, share, share).name) == Arm(strategy, share, share)
    assert len({Arm(strategy, share).name for share in shares}) == len(set(shares))


@pytest.mark.parametrize(
    ("written", "name"), [("top", "top-100"), ("top-020.0", "top-20"), ("all-100", "all")]
)
def test_other_spellings_have_one_name(written, name):
    """A missing percentage is 100, and zeros that say nothing go."""
    assert parse(written).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpo-20", "no strategy 'tpo'. Did you mean 'top'?"),
        ("semihard-20", "no strategy 'semihard'. Did you mean 'semi-hard'?"),
        ("zzz", "no strategy 'zzz'. There is: all, mixed, random, semi-hard, top."),
        ("", "no strategy ''. There is: all, mixed, random, semi-hard, top."),
        ("mixed-20-gaurd75", "like mixed-20-guard75"),
        ("mixed-guard75-20", "like mixed-20-guard75"),
        ("top--5", "like mixed-20-guard75"),
        ("top-0", "above 0 and at most 100"),
        ("top-0.0", "above 0 and at most 100"),
        ("top-100.1", "above 0 and at most 100"),
        ("mixed-20-guard101", "at most 100"),
        ("all-20", "'all' keeps every negative; did you mean random-20?"),
    ],
)
def test_mistakes_in_a_name(name, message):
    """Each mistake is one line that says what exists or how to write it."""
    with pytest.raises(ConfigError) as caught:
        parse(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_is_random_at_the_same_fraction():
    """The baseline and a control have none; a guarded random arm is no control."""
    assert parse("mixed-12.5-guard75").control == "random-12.5"
    assert parse("random-20-guard75").control == "random-20"
    assert parse("random-20").control is None
    assert parse("all").control is parse("all-guard75").control is None


def test_options_are_those_of_the_strategy():
    """A strategy gets its own parameters from the settings and no others."""
    config = SelectConfig(skip=0.02, hard_share=0.25)
    assert parse("all").options(config) == {}
    assert parse("top-20-guard50").options(config) == {"fraction": 0.2}
    assert parse("semi-hard-20").options(config) == {"fraction": 0.2, "skip": 0.02}
    assert parse("mixed-20").options(config) == {"fraction": 0.2, "hard_share": 0.25}


def names(*args, **settings):
    """Return the names of a panel."""
    return [arm.name for arm in panel(SelectConfig(**settings), *args)]


def test_panel_of_the_settings():
    """The baseline, then by fraction the control and the others."""
    assert names(fractions=(0.05, 0.1), strategies=("top", "mixed-guard75")) == [
        "all", "random-5", "top-5", "mixed-5-guard75", "random-10", "top-10", "mixed-10-guard75",
    ]  # fmt: skip


def test_default_panel():
    """Four fractions times four strategies, and the baseline."""
    assert len(names()) == 17
    assert len(set(names())) == 17


def test_controls_join_arms_by_name():
    """Arms by name bring the baseline and each one's control, once, in the order of the fractions."""
    assert names(["top-20", "mixed-10", "top-20", "random-20"]) == [
        "all",
        "random-10",
        "mixed-10",
        "random-20",
        "top-20",
    ]
    assert names(["all"]) == ["all"]
    assert names(["all-guard75"]) == ["all", "all-guard75"]


def test_a_fraction_by_name_and_by_setting_is_one():
    """0.7 % in a name is the share 0.007, not its neighbour: its control is there once."""
    assert [arm.fraction for arm in panel(SelectConfig(), ["top-0.7", "random-0.7"])] == [1.0, 0.007, 0.007]


def test_controls_are_there_without_strategies():
    """An empty list of strategies, or `all` alone, still compares the fractions with each other."""
    for strategies in ((), ("all",), ("random",)):
        assert names(fractions=(0.1, 0.2), strategies=strategies) == ["all", "random-10", "random-20"]


def test_a_guarded_baseline_is_an_arm_of_its_own():
    """`all-guard50` has no fraction: it is there once, after the fractions."""
    assert names(fractions=(0.1, 0.2), strategies=("all-guard50", "top")) == [
        "all", "random-10", "top-10", "random-20", "top-20", "all-guard50",
    ]  # fmt: skip


def test_percentages_do_not_belong_into_strategies():
    """A fraction inside select.strategies is refused, with where it goes."""
    with pytest.raises(ConfigError, match=r"'top-20' has a percentage; those go in select.fractions"):
        panel(SelectConfig(strategies=("top-20",)))


def test_two_arms_never_share_a_name():
    """Fractions that agree in their first digits keep files of their own."""
    found = names(fractions=(0.333333, 0.3333333), strategies=("top",))
    assert len(found) == len(set(found)) == 5
