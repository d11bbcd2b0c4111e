"""Errors a user reads: one line, the place first, and they survive a trip between processes."""

import pickle
from pathlib import Path

import pytest

from pipeline.core import errors
from pipeline.core.errors import RanksieveError, SourceError, did_you_mean

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RanksieveError) and kind is not RanksieveError
]


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ({}, "a.txt: bad"),
        ({"line": 3}, "a.txt:3: bad"),
        ({"line": 3, "column": 7}, "a.txt:3:7: bad"),
    ],
)
def test_source_error_names_the_place_as_compilers_do(where: dict[str, int], shown: str) -> None:
    """File, line and column come first, in the form that editors jump to."""
    assert str(SourceError("bad", file="a.txt", **where)) == shown


def test_source_error_keeps_its_parts_across_processes() -> None:
    """Pickling gives the same message and the same parts."""
    error = SourceError("bad", file=Path("a.txt"), line=3, column=7)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.what, again.file, again.line, again.column) == ("bad", Path("a.txt"), 3, 7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_in_the_drawn_tree(kind: type[RanksieveError]) -> None:
    """The tree in the module's docstring lists every error there is, and each has one sentence of its own."""
    assert f"── {kind.__name__}" in (errors.__doc__ or "")
    assert (kind.__doc__ or "").strip()


def test_did_you_mean_names_the_nearest() -> None:
    """A slip of one letter is answered with the name it was meant to be."""
    assert did_you_mean("ranodm", ["top", "random"]) == " Did you mean 'random'?"


def test_did_you_mean_lists_what_there_is_when_nothing_is_near() -> None:
    """A name like no other is answered with all names, sorted."""
    assert did_you_mean("zzz", ["top", "random"]) == " There is: random, top."
