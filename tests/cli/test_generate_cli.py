"""`ranksieve generate` as a user meets it."""

import json
from pathlib import Path

import pytest


def test_what_was_made_is_said(ranksieve, tmp_path: Path) -> None:
    """Files, rows and label shares are on standard output; --json says the same to a script."""
    code, out, err = ranksieve("generate", "mslr", "--rows", 600, "--docs", 10, "--out", tmp_path / "set")
    assert (code, err) == (0, "")
    assert "test.txt, train.txt, vali.txt" in out
    assert "labels  0: " in out
    asked = (
        "generate",
        "mslr",
        "--bytes",
        "1 MB",
        "--gzip",
        "--seed",
        3,
        "--out",
        tmp_path / "two",
        "--json",
    )
    code, out, err = ranksieve(*asked)
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert (facts["seed"], facts["files"][1:]) == (3, ["test.txt.gz", "train.txt.gz", "vali.txt.gz"])
    assert facts["text_bytes"] >= 10**6


def test_a_set_is_a_source(ranksieve, tmp_path: Path) -> None:
    """What generate makes, ingest reads, in either format, to the same dataset."""
    for kind in ("letor", "parquet"):
        where = tmp_path / kind
        asked = ("--rows", 500, "--docs", 9, "--format", kind, "--out", where / "source")
        assert ranksieve("generate", "istella", *asked)[0] == 0
        sentinel = ("--set", "ingest.sentinel=1.79769313486e+308")
        assert ranksieve("ingest", where / "source", "--out", where / "run", "--plain", *sentinel)[0] == 0
    text, table = (
        sorted((tmp_path / kind / "run/dataset").rglob("*.parquet")) for kind in ("letor", "parquet")
    )
    assert [file.read_bytes() for file in text] == [file.read_bytes() for file in table]
    assert len(text) == 3


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("mlsr", "--rows", 5), "no preset 'mlsr'. Did you mean 'mslr'?"),
        (("mslr",), "give --rows or --bytes"),
        (("mslr", "--bytes", "much"), "--bytes much: not a size"),
        (("mslr", "--bytes", "1MB", "--format", "parquet"), "--bytes counts bytes of text"),
    ],
)
def test_mistakes(ranksieve, tmp_path: Path, arguments: tuple[object, ...], what: str) -> None:
    """A mistake is one line on standard error and exit code 2."""
    code, out, err = ranksieve("generate", *arguments, "--out", tmp_path / "set")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err
