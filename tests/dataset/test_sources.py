"""Every form a SOURCE may have, and what is wrong with one that has none."""

import os
from pathlib import Path

import pytest

from pipeline.core.errors import SourceError
from pipeline.dataset.sources import Source, SplitSource, is_parquet, locate
from tests.filesystem import small_disk


def make(root: Path, *names: str) -> Path:
    """Make empty files (and directories, for names with a slash at the end); returns ``root``."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def found(source: Source) -> dict[str, list[str]]:
    """The files of each split, relative to the source."""
    return {
        split.name: [file.relative_to(source.path).as_posix() for file in split.files]
        for split in source.splits
    }


# ---- train, vali, test -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "vali", "test"),
    [
        ("train.txt", "vali.txt", "test.txt"),
        ("Train.txt", "Vali.TXT", "TEST.txt"),
        ("train.txt.gz", "valid.txt.bz2", "test.txt.zst"),
        ("training.xz", "validation", "testing.letor"),
        ("mslr.train.txt", "mslr.val.txt", "mslr.test.txt"),
        ("set1_train.svm", "set1_dev.svmlight", "set1_test.libsvm"),
        ("web-train.dat", "web-vali.tsv", "web-test.txt"),
        ("train.parquet", "vali.pq", "test.PARQUET"),
        ("train.txt", "vali.parquet", "test.txt.gz"),
    ],
)
def test_three_files_under_their_spellings(tmp_path: Path, train: str, vali: str, test: str) -> None:
    """Prefixes, case, compression and the usual names of validation lists are understood."""
    source = locate(make(tmp_path, train, vali, test, "README.md", "notes.pdf", "train.json"))
    assert source.layout == "splits"
    assert found(source) == {"train": [train], "vali": [vali], "test": [test]}
    assert [split.hold_out for split in source.splits] == [(), (), ()]


def test_missing_vali_is_held_out_of_train(tmp_path: Path) -> None:
    """Train and test are enough."""
    source = locate(make(tmp_path, "train.txt", "test.txt"))
    assert source.splits == (
        SplitSource("train", (tmp_path / "train.txt",), hold_out=("vali",)),
        SplitSource("test", (tmp_path / "test.txt",)),
    )


def test_train_alone_is_split_in_three(tmp_path: Path) -> None:
    """A directory with nothing but train holds out both other splits."""
    [train] = locate(make(tmp_path, "train.txt")).splits
    assert train.hold_out == ("vali", "test")


def test_parquet_parts_in_place_of_files(tmp_path: Path) -> None:
    """Directories of parts are read in the order of their names; what is no part is passed over."""
    make(tmp_path, "train/part-1.parquet", "train/part-0.parquet", "train/_SUCCESS", "train/.part.parquet")
    source = locate(make(tmp_path, "vali.parquet/a.parquet", "test/x.pq", "dataset.json"))
    assert found(source) == {
        "train": ["train/part-0.parquet", "train/part-1.parquet"],
        "vali": ["vali.parquet/a.parquet"],
        "test": ["test/x.pq"],
    }


def test_hidden_files_and_empty_directories_are_no_data(tmp_path: Path) -> None:
    """A directory `train` without parts, beside `train.txt`, is not in the way."""
    source = locate(make(tmp_path, "train/", ".vali.txt", "train.txt", "test.txt"))
    assert found(source) == {"train": ["train.txt"], "test": ["test.txt"]}


# ---- Folds and partitions --------------------------------------------------------------------------------


def test_five_folds(tmp_path: Path) -> None:
    """Each fold has its three splits; LETOR's partitions beside them are not read twice."""
    names = [f"Fold{n}/{split}.txt" for n in range(1, 6) for split in ("train", "vali", "test")]
    source = locate(make(tmp_path, *names, *[f"S{n}.txt" for n in range(1, 6)]))
    assert source.layout == "folds"
    assert [split.name for split in source.splits] == [name.removesuffix(".txt") for name in names]
    assert source.files == tuple(tmp_path / name for name in names)


def test_more_than_nine_folds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Fold10 comes after Fold9, not after Fold1."""
    source = locate(make(tmp_path, *[f"fold{n:02}/train.txt" for n in range(1, 11)]))
    assert [split.name for split in source.splits] == [f"Fold{n}/train" for n in range(1, 11)]
    assert source.splits[9].hold_out == ("Fold10/vali", "Fold10/test")


@pytest.mark.parametrize(
    "form", ["S{}.txt", "s{}.txt.gz", "S{}/part-0.parquet", "S{}.parquet", "mq2008_S{}.txt"]
)
def test_five_partitions(tmp_path: Path, form: str) -> None:
    """S1 to S5, one split each."""
    names = [form.format(n) for n in range(1, 6)]
    source = locate(make(tmp_path, *names))
    assert source.layout == "partitions"
    assert found(source) == {f"S{n}": [name] for n, name in enumerate(names, start=1)}


def test_files_that_only_look_like_a_partition_do_not_hide_the_splits(tmp_path: Path) -> None:
    """One file named like S1 beside train, vali and test is something else."""
    source = locate(make(tmp_path, "train.txt", "vali.txt", "test.txt", "baseline_s1.txt"))
    assert source.layout == "splits"


# ---- One file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.txt", "data.txt.gz", "data.parquet", "data"])
def test_one_file_holds_out_vali_and_test(tmp_path: Path, name: str) -> None:
    """Any file named on the command line is taken, whatever it is called."""
    source = locate(make(tmp_path, name) / name)
    assert source == Source(
        tmp_path / name, "file", (SplitSource("train", (tmp_path / name,), hold_out=("vali", "test")),)
    )


def test_a_directory_of_parquet_parts_is_one_file(tmp_path: Path) -> None:
    """What other tools write as `data.parquet/` is split by query, like one file."""
    source = locate(make(tmp_path / "data.parquet", "part-1.parquet", "part-0.parquet", "_SUCCESS"))
    assert source.layout == "file"
    assert found(source) == {"train": ["part-0.parquet", "part-1.parquet"]}
    assert source.splits[0].hold_out == ("vali", "test")


@pytest.mark.parametrize(
    ("name", "expected"), [("a.parquet", True), ("a.PQ", True), ("a.txt", False), ("parquet", False)]
)
def test_parquet_is_told_by_its_name(name: str, expected: bool) -> None:
    """The suffix decides, in any case."""
    assert is_parquet(Path(name)) is expected


# ---- What is wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no train/vali/test files, Fold1..Fold5 or S1..S5 here; it has: nothing"),
        (["a.csv", "b.json"], "Fold1..Fold5 or S1..S5 here; it has: a.csv, b.json"),
        (["train.txt", "vali.txt"], "train and vali are there, but no test file such as test.txt"),
        (["vali.txt", "test.txt"], "no train file such as train.txt beside vali.txt"),
        (["train.txt", "train.txt.gz", "test.txt"], "two files for 'train': train.txt and train.txt.gz"),
        (["set1.train.txt", "set2.train.txt"], "two files for 'train': set1.train.txt and set2.train.txt"),
        (["train.txt", "vali.txt", "valid.txt"], "two files for 'vali': vali.txt and valid.txt"),
        (["S1.txt", "S2.txt", "S4.txt"], "LETOR partitions need all of S1 to S5; missing: S3, S5"),
        (["S1.txt", "S1.txt.gz"], "two files for 's1'"),
        (
            ["Fold1/train.txt", "Fold3/train.txt"],
            "has Fold3 and no Fold2; to run on one fold, name its directory",
        ),
        (["Fold2/train.txt"], "has Fold2 and no Fold1"),
        (["Fold1/train.txt", "fold01/train.txt"], "Fold1 and fold01 are the same fold; keep one"),
        (["Fold1/train.txt", "Fold2/"], "no train file such as train.txt"),
        (["Fold1/train.txt", "Fold1/vali.txt"], "no test file such as test.txt"),
    ],
)
def test_incomplete_or_ambiguous_directories(tmp_path: Path, names: list[str], message: str) -> None:
    """The message names the directory, what is there and what is missing."""
    root = make(tmp_path / "data", *names)
    with pytest.raises(SourceError) as caught:
        locate(root)
    assert str(caught.value).startswith(str(root))
    assert message in str(caught.value)


def test_nothing_there_names_what_is_beside(tmp_path: Path) -> None:
    """A slip in the last name of a path is easy to see."""
    make(tmp_path, "mq2008.txt", "mslr/")
    with pytest.raises(SourceError) as caught:
        locate(tmp_path / "mq2007.txt")
    assert str(caught.value) == (
        f"{tmp_path / 'mq2007.txt'}: no such file or directory; {tmp_path} has: mq2008.txt, mslr"
    )


def test_no_parent_either(tmp_path: Path) -> None:
    """A path of which nothing exists has no neighbours to name."""
    with pytest.raises(SourceError, match=r"no such file or directory$"):
        locate(tmp_path / "a" / "b")


def test_a_name_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    """What the system refuses to look up is a SourceError too."""
    with pytest.raises(SourceError, match="File name too long"):
        locate(tmp_path / ("x" * 300))


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    """A source is read more than once: fingerprint first, rows later."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="neither a file nor a directory"):
        locate(tmp_path / "pipe")


def test_a_source_on_a_read_only_disk_is_found() -> None:
    """Nothing is written where the source lies."""
    with small_disk(megabytes=1, read_only=True) as disk, pytest.raises(SourceError, match="it has: nothing"):
        locate(disk)
