"""Every mistake a user can make is one line on stderr and exit code 2, and what was there stays."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import commands as cli
from tests.samples import write_letor_source

Run = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Check for exit code 2 and one line on stderr that has ``words``."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("ranksieve: ")
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("1 1:3 2:3", 3, "expected qid:ID"),
        ("1 qid: 1:3", 3, "has no query id"),
        ("1 qid:3 0:3", 9, "feature index 0"),
        ("1 qid:3 1:3 1:4", 13, "repeated"),
        ("1 qid:3 1:abc", 11, "'abc' of feature 1 is not a number"),
        ("1 qid:3 1:NULL", 11, "NULL"),
        ("-1 qid:3 1:3", 1, "'-1' is negative"),
        ("1.5 qid:3 1:3", 1, "'1.5' is a fraction"),
        ("31 qid:3 1:3", 1, "'31' is above 30"),
        ("x qid:3 1:3", 1, "'x' is not a number"),
    ],
)
def test_bad_line_is_named_by_file_line_and_column(
    ranksieve: Run, tmp_path: Path, line: str, column: int, words: str
) -> None:
    """A malformed line deep in a split is reported where it stands."""
    source = write_letor_source(tmp_path / "source")
    file = source / "vali.txt"
    good = file.read_text().splitlines()
    file.write_text("\n".join([*good, line, *good]))
    result = ranksieve("run", source, "--plain", "--out", tmp_path / "run")
    refused(result, f"{file}:{len(good) + 1}:{column}: ", words)
    assert not (tmp_path / "run" / "dataset").exists()


def test_files_that_are_no_letor_text(ranksieve: Run, tmp_path: Path) -> None:
    """Missing, empty, binary and truncated files are each told apart."""
    out = ["--plain", "--out", tmp_path / "run"]
    refused(ranksieve("run", tmp_path / "nothing.txt", *out), "nothing.txt: no such file")
    (tmp_path / "empty.txt").write_bytes(b"")
    refused(ranksieve("run", tmp_path / "empty.txt", *out), "empty.txt: holds no rows")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 40)
    refused(ranksieve("run", tmp_path / "binary.txt", *out), "looks like a binary file")
    text = (write_letor_source(tmp_path / "source") / "train.txt").read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(text)[:-200])
    refused(ranksieve("run", tmp_path / "cut.txt.gz", *out), "cut.txt.gz", "truncated or corrupt")
    (tmp_path / "not.parquet").write_bytes(text)
    refused(ranksieve("run", tmp_path / "not.parquet", *out), "not.parquet", "Parquet")


@pytest.mark.parametrize(("digit", "words"), [("0", "no relevant row"), ("1", "no negatives")])
def test_sets_without_contrast_leave_the_last_good_dataset(
    ranksieve: Run, tmp_path: Path, digit: str, words: str
) -> None:
    """Labels that are all 0, or never 0, leave nothing to learn or to select; the old dataset stays."""
    source = write_letor_source(tmp_path / "source")
    assert ranksieve("ingest", source, "--plain", "--out", tmp_path / "run")[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    file = source / "train.txt"
    file.write_text("".join(digit + line[1:] + "\n" for line in file.read_text().splitlines()))
    refused(ranksieve("run", source, "--plain", "--out", tmp_path / "run"), str(source), words)
    assert {file: file.read_bytes() for file in before} == before


def test_directories_that_cannot_be_used(ranksieve: Run, tmp_path: Path) -> None:
    """A directory without data, a path through a file, and a run that is none."""
    source = write_letor_source(tmp_path / "source")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").write_text("hello")
    refused(ranksieve("run", tmp_path / "other", "--plain"), "no train/vali/test files", "notes.md")
    below_a_file = source / "train.txt" / "run"
    refused(ranksieve("run", source, "--plain", "--out", below_a_file), "train.txt", "--out")
    refused(ranksieve("score", tmp_path / "other", "--plain"), "not a run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "ranker.treees=5"], "Did you mean 'trees'?"),
        (["--set", "ranker.trees=0"], "ranker.trees"),
        (["--set", "ranker.trees"], "KEY=VALUE"),
        (["--config", "nowhere.toml"], "nowhere.toml: no such configuration file"),
        (["--arms", "topp-10"], "Did you mean 'top'?"),
        (["--arms", "top-200"], "at most 100"),
        (["--set", "score.folds=50"], "score.folds = 50"),
        (["--set", "ranker.device=cuda"], "NVIDIA"),
    ],
)
def test_settings_that_do_not_exist_or_fit(
    ranksieve: Run, tmp_path: Path, options: list[str], words: str
) -> None:
    """A wrong setting, arm or device is named before any long work."""
    source = write_letor_source(tmp_path / "source")
    code, _, err = ranksieve("run", source, "--plain", "--out", tmp_path / "run", *options)
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith("ranksieve: ")]
    assert words in line


def test_schedule_without_a_server(ranksieve: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule needs a server that is up; the message says how to start one."""
    monkeypatch.setenv("PREFECT_API_URL", "")
    source = write_letor_source(tmp_path / "source")
    refused(ranksieve("serve", source, "--cron", "0 2 * * *"), "prefect server start")


def test_every_command_has_help(ranksieve: Run) -> None:
    """The list of commands describes each of them."""
    code, out, _ = ranksieve("--help")
    assert code == 0
    for name in cli.cli.commands:
        [line] = [line for line in out.splitlines() if line.strip().startswith(f"{name} ")]
        assert len(line.split()) > 3
