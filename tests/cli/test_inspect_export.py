"""`ranksieve inspect` and `ranksieve export` as a user meets them."""

import io
import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from flows.cli.inspect_screen import show
from pipeline.inspect.look import inspect


def shown(path: Path, width: int) -> list[str]:
    """Return the lines that `inspect` shows on a screen of some width, without colour."""
    out = io.StringIO()
    show(Console(file=out, width=width, no_color=True), inspect(path))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def cells(line: str) -> list[str]:
    """Return the cells of a table's row: what two spaces or more keep apart."""
    return re.split(r"\s{2,}", line.strip())


def test_inspect_shows_a_run(ranksieve, small_run: Path) -> None:
    """The steps and the summary are on standard output and nothing is on standard error."""
    code, out, err = ranksieve("inspect", small_run)
    assert (code, err) == (0, "")
    assert "NDCG on the 12 test queries" in out
    assert "selection" in out


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize(
    "name",
    [
        *("", "dataset", "scores.parquet", "selection", "selection/all.parquet"),
        *("prepared/random-40", "metrics.parquet", "summary.parquet"),
    ],
)
def test_inspect_fits_the_screen(small_run: Path, name: str, width: int) -> None:
    """No line but a path is longer than the screen is wide, and no cell is cut."""
    lines = shown(small_run / name, width)
    assert max(len(line) for line in lines if str(small_run.parent) not in line) <= width
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_inspect_shows_the_labels_of_each_split_at_any_width(small_run: Path, width: int) -> None:
    """Every label's rows are there, a line per split, below the splits' sizes."""
    lines = shown(small_run / "dataset", width)
    train = pl.read_parquet(small_run / "dataset" / "train")
    counts = train["label"].value_counts().sort("label").rows()
    assert cells(lines[lines.index("rows by label") + 1]) == [
        "train",
        ", ".join(f"{label}: {rows:,}" for label, rows in counts),
    ]
    split = next(line for line in lines if line.startswith("train"))
    assert cells(split)[:3] == ["train", f"{train.height:,}", f"{train['qid'].n_unique()}"]


def test_inspect_shows_the_same_table_as_a_run(small_run: Path) -> None:
    """The recommended arm has its star, every arm its row; what has no room at 80 columns is named."""
    wide, narrow = shown(small_run, 140), shown(small_run, 80)
    heads = {
        width: next(cells(line) for line in text if line.startswith("arm "))
        for width, text in (("wide", wide), ("narrow", narrow))
    }
    assert heads["wide"] == ["arm", "rows", "share", "train s", "@3", "@10", "vs all", "p Holm", "vs random"]
    assert {"arm", "share", "@10", "vs all", "p Holm", "vs random"} <= set(heads["narrow"])
    left_out = [head for head in heads["wide"] if head not in heads["narrow"]]
    assert f"not shown at this width: {', '.join(left_out)}" in narrow
    summary = pl.read_parquet(small_run / "summary.parquet").filter(split="test", cutoff=10)
    for arm, recommended in summary.select("arm", "recommended").iter_rows():
        assert any(line.startswith(f"{'*' if recommended else ' '} {arm} ") for line in narrow)


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
