"""`ranksieve inspect` and `ranksieve export` as a user meets them."""

import json
import shutil
from pathlib import Path

import pytest


def test_inspect_shows_a_run(ranksieve, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps and the summary are on standard output and nothing is on standard error."""
    code, out, err = ranksieve("inspect", small_run)
    assert (code, err) == (0, "")
    assert "NDCG on the 12 test queries" in out
    assert "selection" in out


def test_inspect_json_is_what_a_script_reads(ranksieve, small_run: Path) -> None:
    """Standard output is one JSON document, for a run, a dataset and a file."""
    for name, kind in (
        ("", "run"),
        ("dataset", "dataset"),
        ("scores.parquet", "file"),
        ("selection", "files"),
    ):
        code, out, err = ranksieve("inspect", small_run / name, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["kind"] == kind


def test_inspect_check_reads_all_outputs(ranksieve, small_run: Path) -> None:
    """With --check no output is left uncompared."""
    code, out, _ = ranksieve("inspect", small_run, "--check", "--json")
    assert code == 0
    assert json.loads(out)["unchecked"]["files"] == 0


def test_mistakes_are_one_line_and_exit_code_2(ranksieve, small_run: Path, tmp_path: Path) -> None:
    """A missing path, a file of another kind, an unknown arm: one line on stderr, nothing on stdout."""
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    for arguments in (
        ("inspect", tmp_path / "gone"),
        ("inspect", tmp_path / "notes.txt"),
        ("inspect", tmp_path),
        ("export", small_run, "--arm", "randon-40", "--format", "letor", "--out", tmp_path / "out"),
        ("export", tmp_path, "--arm", "all", "--format", "letor", "--out", tmp_path / "out"),
        ("export", small_run, "--arm", "all", "--format", "letor", "--out", tmp_path),
    ):
        code, out, err = ranksieve(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert err.startswith("ranksieve: ")


@pytest.mark.parametrize("kind", ["letor", "lightgbm", "trec"])
def test_export_says_what_it_wrote(ranksieve, small_run: Path, tmp_path: Path, kind: str) -> None:
    """The files named on standard output are there; --json names the same."""
    out_dir = tmp_path / "out"
    arguments = ("export", small_run, "--arm", "random-40", "--format", kind, "--out", out_dir)
    code, out, err = ranksieve(*arguments)
    assert (code, err) == (0, "")
    files = sorted(file.name for file in out_dir.iterdir())
    assert all(name in out for name in files)
    code, out, _ = ranksieve(*arguments, "--json")
    assert (code, json.loads(out)["files"]) == (0, files)


def test_export_works_on_a_run_that_was_moved(
    ranksieve, small_run: Path, tmp_path: Path, monkeypatch
) -> None:
    """A run copied elsewhere and named by a relative path is exported all the same."""
    shutil.copytree(small_run, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    code, _, err = ranksieve("export", "moved", "--arm", "random-40", "--format", "trec", "--out", "out")
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "test.run").is_file()
