"""Names of arms, and the arms of a run."""

import pytest

from pipeline.core.config import SelectConfig
from pipeline.core.errors import ConfigError
from pipeline.negatives.arms import Arm, panel, parse, preferred
from pipeline.negatives.budget import Budget
from pipeline.negatives.strategies import STRATEGIES


def share(of):
    """Return the budget that is a share of the negatives."""
    return Budget("", of)


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("all", Arm("all")),
        ("all-guard75", Arm("all", share(1.0), (("guard", 0.75),))),
        ("random-20", Arm("random", share(0.2))),
        ("top-0.5", Arm("top", share(0.005))),
        ("semi-hard-12.5", Arm("semi-hard", share(0.125))),
        ("mixed-20-guard75", Arm("mixed", share(0.2), (("guard", 0.75),))),
        ("mixed-100-guard0", Arm("mixed", share(1.0), (("guard", 0.0),))),
        ("semi-hard-0.7-guard99.9", Arm("semi-hard", share(0.007), (("guard", 0.999),))),
        ("top-33.33333333333333", Arm("top", share(1 / 3))),
        ("top-n19", Arm("top", Budget("n", 19))),
        ("random-p3", Arm("random", Budget("p", 3))),
        ("mixed-unweighted-p0.5", Arm("mixed-unweighted", Budget("p", 0.5))),
        ("mixed-20-skip5", Arm("mixed", share(0.2), (("skip", 0.05),))),
        (
            "top-n3-guard50-neardup-skip0.5",
            Arm("top", Budget("n", 3), (("guard", 0.5), ("neardup", None), ("skip", 0.005))),
        ),
        ("all-neardup", Arm("all", guards=(("neardup", None),))),
        ("distance-weighted-20-neardup", Arm("distance-weighted", share(0.2), (("neardup", None),))),
        ("top-0.00001", Arm("top", share(1e-7))),
        ("top-20-dynamic5", Arm("top", share(0.2), reselect_every=5)),
        (
            "mixed-n9-guard75-skip5-dynamic10",
            Arm("mixed", Budget("n", 9), (("guard", 0.75), ("skip", 0.05)), 10),
        ),
        (
            "false-positive-20-guard75-rounds3",
            Arm("false-positive", share(0.2), (("guard", 0.75),), rounds=3),
        ),
        (
            "mixed-20-guard75-graded-bag4",
            Arm("mixed", share(0.2), (("guard", 0.75),), bags=4, graded=True),
        ),
        ("mixed-unweighted-p3-graded", Arm("mixed-unweighted", Budget("p", 3), graded=True)),
        ("top-n19-rounds2", Arm("top", Budget("n", 19), rounds=2)),
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
    for of in shares:
        arm = Arm(strategy, share(of), (("guard", of), ("skip", of)))
        assert parse(arm.name) == arm
    assert len({Arm(strategy, share(of)).name for of in shares}) == len(set(shares))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("top", "top-100"),
        ("top-020.0", "top-20"),
        ("all-100", "all"),
        ("top-n019.0", "top-n19"),
        ("top-p3.50", "top-p3.5"),
        ("top-20-guardmax", "top-20-guard100"),
        ("top-dynamic005", "top-100-dynamic5"),
        ("top-20-skip5-neardup-guard75", "top-20-guard75-neardup-skip5"),
    ],
)
def test_other_spellings_have_one_name(written, name):
    """A missing percentage is 100, and zeros that say nothing go; guards have an order."""
    assert parse(written).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpo-20", "no strategy 'tpo'. Did you mean 'top'?"),
        ("semihard-20", "no strategy 'semihard'. Did you mean 'semi-hard'?"),
        ("zzz", "no strategy 'zzz'. There is: all, distance-weighted, false-positive, margin, mixed, "),
        ("", "no strategy ''. There is: all, distance-weighted, "),
        ("mixed-20-gaurd75", "like mixed-20-guard75"),
        ("mixed-guard75-20", "like mixed-20-guard75"),
        ("top--5", "like mixed-20-guard75"),
        ("top-0", "above 0 and at most 100"),
        ("top-0.0", "above 0 and at most 100"),
        ("top-100.1", "above 0 and at most 100"),
        ("mixed-20-guard101", "at most 100"),
        (
            "top-20-dynamic",
            "then -graded, then -dynamicTREES, -roundsRANKERS or -bagSETS, like mixed-20-guard75",
        ),
        ("top-20-dynamic5-guard75", "like mixed-20-guard75"),
        ("top-20-dynamic2.5", "like mixed-20-guard75"),
        ("mixed-20-bag1", "-bag takes a number of training sets from 2 to 32"),
        ("mixed-20-bag33", "-bag takes a number of training sets from 2 to 32"),
        ("top-20-bag4", "'top' draws nothing, so its 4 training sets would be the same"),
        ("all-bag4", "'all' draws nothing"),
        ("top-20-dynamic0", "-dynamic takes a number of trees from 1 to 100,000"),
        ("top-20-dynamic100001", "-dynamic takes a number of trees from 1 to 100,000"),
        ("all-guard75-dynamic5", "'all' keeps the same rows every time; leave -dynamic5 out"),
        ("top-20-rounds1", "-rounds takes a number of rankers from 2 to 100"),
        ("top-20-rounds101", "-rounds takes a number of rankers from 2 to 100"),
        (
            "mixed-20-rounds3",
            "'mixed' does not go by scores alone; take false-positive, or leave -rounds3 out",
        ),
        ("all-guard75-rounds3", "'all' does not go by scores alone"),
        ("top-20-dynamic5-rounds3", "-dynamic5 and -rounds3 do not go together; leave one of them out"),
        ("top-20-rounds3-bag4", "-rounds3 and -bag4 do not go together; leave one of them out"),
        ("mixed-20-dynamic5-bag4", "-dynamic5 and -bag4 do not go together; leave one of them out"),
        ("top-20-bag4-rounds3", "like mixed-20-guard75"),
        ("mixed-20-bag4-graded", "like mixed-20-guard75"),
        (
            "top-20-graded",
            "'top' does not keep hard negatives apart from easy ones; leave -graded out, or take",
        ),
        ("all-graded", "or take one of mixed, mixed-unweighted"),
        ("mixed-20-graded-dynamic5", "-graded and -dynamic5 do not go together; leave one of them out"),
        ("mixed-20-skip101", "percentage of -skip must be at most 100"),
        ("mixed-20-guard", "like mixed-20-guard75"),
        ("mixed-20-skip", "like mixed-20-guard75"),
        ("mixed-20-skipmax", "like mixed-20-guard75"),
        ("mixed-20-neardup90", "like mixed-20-guard75"),
        ("mixed-20-guard50-guard75", "-guard can be given once"),
        ("top-n0", "whole number of negatives from 1 to 10,000"),
        ("top-n2.5", "whole number of negatives from 1 to 10,000"),
        ("top-n10001", "whole number of negatives from 1 to 10,000"),
        ("top-p0", "above 0 and at most 10,000"),
        ("top-q3", "like mixed-20-guard75"),
        ("all-n19", "'all' keeps every negative; did you mean random-n19?"),
        ("all-20", "'all' keeps every negative; did you mean random-20?"),
    ],
)
def test_mistakes_in_a_name(name, message):
    """Each mistake is one line that says what exists or how to write it."""
    with pytest.raises(ConfigError) as caught:
        parse(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_is_random_with_the_same_budget():
    """The baseline and a control have none; a guarded random arm is no control."""
    assert parse("mixed-12.5-guard75").control == "random-12.5"
    assert parse("random-20-guard75").control == "random-20"
    assert parse("random-20").control is parse("random-n19").control is None
    assert parse("top-n19-skip5").control == "random-n19"
    assert parse("top-p3").control == "random-p3"
    assert parse("top-20-dynamic5").control == parse("random-20-dynamic5").control == "random-20"
    assert parse("all").control is parse("all-guard75").control is None


def test_options_are_those_of_the_strategy():
    """A strategy gets its own parameters from the settings and no others."""
    config = SelectConfig(skip=0.02, hard_share=0.25)
    assert parse("all").options(config) == {}
    assert parse("top-20-guard50").options(config) == {}
    assert parse("semi-hard-20").options(config) == {"skip": 0.02}
    assert parse("mixed-20-neardup").options(config) == {"hard_share": 0.25, "similarity": 0.95}


def test_what_an_arm_reads():
    """Scores are enough for most; `popularity` reads document ids, `ohem` and the near-duplicates features."""
    assert parse("mixed-20-guard75-skip5").reads(SelectConfig()) == set()
    assert parse("popularity-20-neardup").reads(SelectConfig()) == {"doc_id", "features"}
    assert parse("ohem-20").reads(SelectConfig()) == {"features"}


def names(*args, **settings):
    """Return the names of a panel."""
    return [arm.name for arm in panel(SelectConfig(**settings), *args)]


def test_panel_of_the_settings():
    """The baseline, then by fraction the control and the others."""
    assert names(fractions=(0.05, 0.1), strategies=("top", "mixed-guard75")) == [
        "all",
        "random-5",
        "top-5",
        "mixed-5-guard75",
        "random-10",
        "top-10",
        "mixed-10-guard75",
    ]
    assert names(fractions=(0.05,), strategies=("mixed-guard75-dynamic10",)) == [
        "all",
        "random-5",
        "mixed-5-guard75-dynamic10",
    ]


def test_default_panel():
    """Three fractions times five strategies, and the baseline."""
    assert len(names()) == 16
    assert len(set(names())) == 16
    assert "mixed-10-guard75-bag2" in names()


def test_arms_by_name_are_all_there_is():
    """Neither the baseline nor a control joins; each name once, in the order of any panel."""
    assert names(["mixed-20-guard75"]) == ["mixed-20-guard75"]
    assert names(["top-20", "mixed-10", "top-20", "random-20"]) == ["mixed-10", "random-20", "top-20"]
    assert names(["all-guard75", "top-n3", "top-20", "all"]) == ["all", "top-20", "top-n3", "all-guard75"]


def test_only_the_baseline_needs_no_scores():
    """Random arms do not choose by score, but their selections show it."""
    assert not parse("all").needs_scores
    assert all(parse(name).needs_scores for name in ("all-guard75", "random-20", "random-100", "top-100"))


def test_a_fraction_by_name_and_by_setting_is_one():
    """0.7 % in a name is the share 0.007, not its neighbour: it is the control's budget too."""
    assert [arm.budget.amount for arm in panel(SelectConfig(), ["top-0.7", "random-0.7"])] == [0.007, 0.007]


def test_controls_are_there_without_strategies():
    """An empty list of strategies, or `all` alone, still compares the fractions with each other."""
    for strategies in ((), ("all",), ("random",)):
        assert names(fractions=(0.1, 0.2), strategies=strategies) == ["all", "random-10", "random-20"]


def test_a_guarded_baseline_is_an_arm_of_its_own():
    """`all-guard50` has no fraction: it is there once, after the fractions."""
    assert names(fractions=(0.1, 0.2), strategies=("all-guard50", "top")) == [
        "all",
        "random-10",
        "top-10",
        "random-20",
        "top-20",
        "all-guard50",
    ]


def test_percentages_do_not_belong_into_strategies():
    """A fraction inside select.strategies is refused, with where it goes."""
    with pytest.raises(ConfigError, match=r"'top-20' has a percentage; those go in select.fractions"):
        panel(SelectConfig(strategies=("top-20",)))


def test_two_arms_never_share_a_name():
    """Fractions that agree in their first digits keep files of their own."""
    found = names(fractions=(0.333333, 0.3333333), strategies=("top",))
    assert len(found) == len(set(found)) == 5


def test_counts_come_after_the_fractions():
    """Budgets of the settings: shares, then numbers, then numbers per positive, each with its control."""
    found = names(fractions=(0.2,), counts=("p3", "n20", "n3"), strategies=("top-skip5",))
    assert found == [
        "all",
        "random-20",
        "top-20-skip5",
        "random-n3",
        "top-n3-skip5",
        "random-n20",
        "top-n20-skip5",
        "random-p3",
        "top-p3-skip5",
    ]
    assert names(fractions=(), counts=("n1",), strategies=()) == ["all", "random-n1"]


def test_counts_do_not_belong_into_strategies():
    """A count inside select.strategies is refused, with where it goes; so is one out of range."""
    with pytest.raises(ConfigError, match=r"'top-n3' has a count; those go in select.counts"):
        panel(SelectConfig(strategies=("top-n3",)))
    with pytest.raises(ConfigError, match=r"^select.counts: n is a whole number"):
        panel(SelectConfig(counts=("n0",)))


@pytest.mark.parametrize(
    ("name", "expected"), [("top-20", 200.0), ("top-n3", 30.0), ("top-n500", 1000.0), ("top-p2.5", 50.0)]
)
def test_expected_size(name, expected):
    """Of 1,000 negatives in 10 queries with 20 positives."""
    assert parse(name).budget.expected(negatives=1000, positives=20, queries=10) == expected


def test_the_preferred_arm_is_an_arm():
    """Its name may have its guards in any order, and one that is none is an error that names the setting."""
    config = SelectConfig(prefer="mixed-5-skip2-guard75-bag4")
    assert preferred(config) == parse("mixed-5-guard75-skip2-bag4")
    with pytest.raises(ConfigError, match=r"^select\.prefer: no strategy 'mixt'"):
        preferred(SelectConfig(prefer="mixt-5"))
