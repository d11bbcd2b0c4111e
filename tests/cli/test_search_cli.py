"""What `--search` says and shows."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.samples import write_letor_source

Run = Callable[..., tuple[int, str, str]]
SETTINGS = [
    "ranker.trees=5", "ranker.min_rows_per_leaf=5", "score.folds=2", "evaluate.resamples=100",
    'search.strategies=["random", "top"]', 'search.guards=["", "guard75"]', "search.fractions=[0.2, 0.4]",
    "search.bags=[1]", "search.keep=1",
]  # fmt: skip


def test_a_search_is_shown_before_the_summary(ranksieve: Run, tmp_path: Path, quick: None) -> None:
    """The table of what was tried, the arms that survived, a note, and in JSON every trial."""
    source, root = write_letor_source(tmp_path / "source"), tmp_path / "run"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["run", source, "--plain", "--out", root, *settings]
    code, out, err = ranksieve(*command, "--search")
    assert code == 0, err
    tried, _, summary = out.partition("* trained with all trees")
    assert "of the 8 arms tried" in " ".join(tried.split())
    assert tried.count("\n* ") == 1
    assert "best of 8 that were tried on the validation lists" in " ".join(summary.split())
    assert "same command with --search" not in out
    code, out, err = ranksieve("report", root, "--plain", "--search", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [row["kept"] for row in document["search"] if row["rung"] == 2].count(True) == 1
    code, out, _ = ranksieve("inspect", root)
    assert code == 0
    assert "search" in out
    code, out, _ = ranksieve("inspect", root / "search.parquet")
    assert code == 0
    assert "search.parquet: SEARCH" in out
    assert "rungs" in out


def test_a_run_of_the_panel_says_how_to_widen_it(ranksieve: Run, tmp_path: Path, quick: None) -> None:
    """Its last line counts what a search would try; one of named arms was meant to be narrow."""
    source, root = write_letor_source(tmp_path / "source"), tmp_path / "run"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["run", source, "--plain", "--out", root, *settings]
    strategies = ["--set", 'select.strategies=["random"]', "--set", "select.fractions=[0.2]"]
    code, out, err = ranksieve(*command, *strategies)
    assert code == 0, err
    assert " ".join(out.splitlines()[-1].split()) == "wider the same command with --search tries 8 arms"
    code, out, _ = ranksieve(*command, "--arms", "all,random-20")
    assert code == 0
    assert "--search" not in out


def test_search_is_in_the_help_and_refuses_named_arms(ranksieve: Run, tmp_path: Path) -> None:
    """`run --help` says what it does; with `--arms` it is one line and exit code 2."""
    code, out, _ = ranksieve("run", "--help")
    assert code == 0
    assert "--search" in out
    assert "validation lists" in " ".join(out.split())
    source = write_letor_source(tmp_path / "source")
    code, _, err = ranksieve("run", source, "--plain", "--search", "--arms", "all", "--out", tmp_path / "run")
    assert code == 2
    assert err == "ranksieve: a search finds the arms itself; leave out --arms or --search\n"
