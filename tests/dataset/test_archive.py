"""Packed sources: the same dataset as from the directory, every place named, nothing that leads elsewhere."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from flows.stages import run_pipeline
from pipeline.core.config import IngestConfig, SplitConfig
from pipeline.core.errors import SourceError, StorageError
from pipeline.core.files import atomic_write
from pipeline.core.records import read_record
from pipeline.dataset import ingest
from pipeline.dataset.sources import locate
from pipeline.run.execute import Stage
from pipeline.synthetic import generate
from tests.filesystem import small_disk
from tests.samples import write_letor_source

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst"]
Entries = Sequence[tuple[str, bytes]]


def compressed(data: bytes, kind: str) -> bytes:
    """Return a tar's bytes as its suffix says."""
    import bz2
    import lzma

    if kind in ("tar.gz", "tgz"):
        return gzip.compress(data)
    if kind == "tar.zst":
        return pa.compress(data, codec="zstd", asbytes=True)
    return {"tar": bytes, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}[kind](data)


def packed(path: Path, entries: Entries) -> Path:
    """Write an archive of the kind its name says, members in the given order; returns ``path``."""
    buffer = io.BytesIO()
    if path.suffix == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
            for name, data in entries:
                made.writestr(name, data)
        path.write_bytes(buffer.getvalue())
        return path
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(compressed(buffer.getvalue(), path.name.partition(".")[2]))
    return path


def entries_of(directory: Path, *, top: str = "", seed: int = 0) -> Entries:
    """Return the files below ``directory``, shuffled, under a top folder."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    random.Random(seed).shuffle(files)
    return [(f"{top}{file.relative_to(directory).as_posix()}", file.read_bytes()) for file in files]


def dataset(source: Path, out: Path, *, threads: int = 1) -> dict[str, bytes]:
    """Ingest a source; return the bytes of every file of its dataset."""
    settings = {"config": IngestConfig(), "split": SplitConfig(), "seed": 1, "threads": threads}
    ingest.run(locate(source), out, **settings)
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}


def as_splits(root: Path) -> Path:
    """Train, vali and test, one compressed in itself, beside a README."""
    write_letor_source(root)
    (root / "vali.txt.gz").write_bytes(gzip.compress((root / "vali.txt").read_bytes()))
    (root / "vali.txt").unlink()
    (root / "README.md").write_text("about")
    return root


def as_folds(root: Path) -> Path:
    """Three folds."""
    for fold in (1, 2, 3):
        write_letor_source(root / f"Fold{fold}", queries=6, documents=4, seed=fold)
    return root


def as_partitions(root: Path) -> Path:
    """S1 to S5, whose row ids go on from one to the next."""
    root.mkdir()
    for number in range(1, 6):
        lines = [f"{row % 3} qid:{number}0{row // 3} 1:{row} 2:0.{number}\n" for row in range(9)]
        (root / f"S{number}.txt").write_text("".join(lines))
    return root


def as_parquet(root: Path) -> Path:
    """Parquet: train in two parts, the others in one."""
    generate.run("long", root, rows=100, documents=5, kind="parquet")
    train = pl.read_parquet(root / "train.parquet")
    (root / "train.parquet").unlink()
    (root / "train").mkdir()
    for number, part in enumerate((train[:25], train[25:])):
        part.write_parquet(root / "train" / f"part-{number}.parquet")
    return root


def as_file(root: Path) -> Path:
    """One file, which is split by query."""
    write_letor_source(root)
    for other in ("vali", "test"):
        (root / f"{other}.txt").unlink()
    return root


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [as_splits, as_folds, as_partitions, as_parquet, as_file])
def test_the_same_dataset_as_from_the_directory(
    tmp_path: Path, kind: str, make: Callable[[Path], Path]
) -> None:
    """Every layout, in every kind of archive, members in any order, below a top folder: the same bytes."""
    source = make(tmp_path / "source")
    archived = packed(tmp_path / f"set.{kind}", entries_of(source, top="./some set/"))
    assert dataset(archived, tmp_path / "a", threads=2) == dataset(source, tmp_path / "b")


def test_only_data_counts(tmp_path: Path) -> None:
    """Hidden files, macOS's own folder and empty directories do not hide the layout."""
    source = as_splits(tmp_path / "source")
    extra = [("__MACOSX/set/._train.txt", b"x"), ("set/.DS_Store", b"x"), ("set/._train.txt", b"x")]
    archived = packed(tmp_path / "set.zip", [*extra, *entries_of(source, top="set/")])
    with zipfile.ZipFile(archived, "a") as made:
        made.writestr("set/empty/", b"")
    assert dataset(archived, tmp_path / "a") == dataset(source, tmp_path / "b")


def test_one_file_of_any_name(tmp_path: Path) -> None:
    """An archive of one data file is like that file."""
    (tmp_path / "mine.txt").write_text("".join(f"{i % 2} qid:{i // 4} 1:{i}\n" for i in range(80)))
    data = (tmp_path / "mine.txt").read_bytes()
    archived = packed(tmp_path / "a.tar.gz", [("x/about.pdf", b"%"), ("x/mine.txt", data)])
    assert locate(archived).layout == "file"
    assert dataset(archived, tmp_path / "a") == dataset(tmp_path / "mine.txt", tmp_path / "b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", ["", ".gz"])
def test_a_bad_line_is_named_by_archive_member_line_and_column(tmp_path: Path, kind: str, inner: str) -> None:
    """As if the archive were a directory."""
    text = b"1 qid:1 1:3\n0 qid:1 1:x\n"
    data = gzip.compress(text) if inner else text
    archived = packed(tmp_path / f"set.{kind}", [("d/train.txt" + inner, data)])
    with pytest.raises(SourceError) as caught:
        dataset(archived, tmp_path / "out")
    assert str(caught.value).startswith(f"{archived}/d/train.txt{inner}:2:11: value 'x' of feature 1")


def test_a_bad_row_of_packed_parquet_is_named_by_archive_and_member(tmp_path: Path) -> None:
    """The copy that is read is not what the message speaks of."""
    buffer = io.BytesIO()
    pl.DataFrame({"qid": [1, 1], "label": [0, 99], "f1": [1.0, 2.0]}).write_parquet(buffer)
    for data, what in ((buffer.getvalue(), "row 1: label 99"), (b"PAR1?", "not a readable Parquet file")):
        archived = packed(tmp_path / "set.zip", [("train.parquet", data)])
        with pytest.raises(SourceError) as caught:
            dataset(archived, tmp_path / f"out{len(data)}")
        assert str(caught.value).startswith(f"{archived}/train.parquet: {what}")


# ---- What is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["/etc/train.txt", "../train.txt", "a/../../train.txt", "C:\\train.txt", "..\\train.txt", "C:x"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    """Absolute names and names with .. are an error, wherever the data is."""
    good = [("train.txt", b"1 qid:1 1:1\n"), ("test.txt", b"1 qid:1 1:1\n")]
    archived = packed(tmp_path / f"set.{kind}", [*good, (name, b"1 qid:1 1:1\n")])
    with pytest.raises(SourceError, match="leads out of the archive"):
        locate(archived)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("suffix", ["tar", "tar.zst"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes, suffix: str) -> None:
    """What is no plain file is an error that names it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("train.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    (tmp_path / f"a.{suffix}").write_bytes(compressed(buffer.getvalue(), suffix))
    with pytest.raises(SourceError, match=r"member 'train.txt' is a link, a device or sparse"):
        locate(tmp_path / f"a.{suffix}")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    """A symbolic link is one by its Unix mode."""
    info = zipfile.ZipInfo("train.txt")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match=r"member 'train.txt' is a link"):
        locate(tmp_path / "a.zip")


def test_what_a_zip_cannot_hand_over_is_refused(tmp_path: Path) -> None:
    """An encrypted member, one compressed in another way: named before any work."""
    archived = packed(tmp_path / "a.zip", [("train.txt", b"1 qid:1 1:1\n")])
    good = archived.read_bytes()
    central = good.index(b"PK\x01\x02")
    for offset, value, what in ((8, 1, "is encrypted"), (10, 99, "is compressed by method 99")):
        bad = bytearray(good)
        bad[central + offset] = value
        archived.write_bytes(bad)
        with pytest.raises(SourceError, match=f"member 'train.txt' {what}"):
            locate(archived)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two is meant cannot be known."""
    line = b"1 qid:1 1:1\n"
    archived = packed(tmp_path / "a.tar", [("train.txt", line), ("./train.txt", line)])
    with pytest.raises(SourceError, match=r"holds './train.txt' twice"):
        locate(archived)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    """Cut short, empty, or something else under an archive's name: an error about the archive, of one line."""
    data = [(f"{name}.txt", random.Random(1).randbytes(3000).hex().encode()) for name in ("train", "test")]
    good = packed(tmp_path / f"good.{kind}", data).read_bytes()
    for number, bad in enumerate((good[: len(good) // 2], b"", b"1 qid:1 1:1\n" * 50)):
        archived = tmp_path / f"bad{number}.{kind}"
        archived.write_bytes(bad)
        with pytest.raises(SourceError) as caught:
            locate(archived)
        assert str(caught.value).startswith(f"{archived}: truncated or corrupt archive (")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_damage_found_while_reading_names_the_member(tmp_path: Path, kind: str) -> None:
    """A checksum that is wrong, or a file that shrank since it was listed: rows before it were fine."""
    text = b"".join(b"%d qid:%d 1:%d\n" % (i % 2, i // 9, i) for i in range(30_000))
    archived = packed(tmp_path / f"a.{kind}", [("train.txt", text), ("test.txt", text)])
    source = locate(archived)
    data = bytearray(archived.read_bytes())
    if kind == "zip":
        data[data.index(b"PK\x01\x02") - 1000] ^= 0xFF
    else:
        del data[len(data) // 4 :]
    archived.write_bytes(data)
    with pytest.raises(
        SourceError, match=rf"a\.{kind}/(train|test)\.txt(:\d+)?: (truncated|label|expected|feature|value)"
    ):
        ingest.run(source, tmp_path / "out", config=IngestConfig(), split=SplitConfig(), seed=1)


@pytest.mark.parametrize("suffix", ["rar", "7z"])
def test_archives_of_other_kinds(tmp_path: Path, suffix: str) -> None:
    """The answer is what to do."""
    (tmp_path / f"MQ2008.{suffix}").write_bytes(b"Rar!")
    with pytest.raises(SourceError, match="cannot be read in place; unpack it"):
        locate(tmp_path / f"MQ2008.{suffix}")


def test_an_archive_without_data_says_what_it_has(tmp_path: Path) -> None:
    """The names at the place where the layout was looked for."""
    archived = packed(tmp_path / "a.zip", [("top/one/x.txt", b""), ("top/two/y.txt", b"")])
    with pytest.raises(SourceError, match=r"a\.zip/top: no train/vali/test files.* it has: one, two"):
        locate(archived)


# ---- How it is read ----------------------------------------------------------------------------------------


def test_what_is_unpacked_goes_with_the_dataset_in_the_making(tmp_path: Path) -> None:
    """Nothing but the dataset is left, and nothing at all where a line is bad."""
    archived = packed(tmp_path / "a.tar.gz", entries_of(as_folds(tmp_path / "source")))
    dataset(archived, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Fold1",
        "Fold2",
        "Fold3",
        "dataset.json",
    ]
    bad = packed(tmp_path / "bad.tar.gz", [("train.txt", b"1 qid:1 1:x\n")])
    with pytest.raises(SourceError), atomic_write(tmp_path / "run" / "dataset") as [made]:
        dataset(bad, made)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tar.zst"])
def test_a_disk_without_room_is_named_before_anything_is_unpacked(tmp_path: Path, kind: str) -> None:
    """What the data takes, what there is, and what to do: one line. A README that is not read needs no room."""
    text = b"1 qid:1 1:1 # some text\n" * 200_000
    archived = packed(tmp_path / f"a.{kind}", [("train.txt", text), ("README", text * 3)])
    with small_disk(megabytes=1) as disk:
        with pytest.raises(
            StorageError, match=r"unpacks to 5 MB and the disk of --out has 1 MB free"
        ) as caught:
            dataset(archived, disk / "out")
        assert str(caught.value).startswith(f"{archived}: ")
        assert not any(path.is_file() for path in disk.rglob("*"))


@pytest.mark.parametrize("kind", KINDS)
def test_progress_counts_the_archives_bytes(tmp_path: Path, kind: str) -> None:
    """What is told while unpacking and reading adds up to the archive's size, but for what is not read."""
    text = random.Random(1).randbytes(80_000).hex().encode()
    lines = b"".join(b"1 qid:1 1:1 # %b\n" % text[i : i + 50] for i in range(0, len(text), 50))
    archived = packed(tmp_path / f"a.{kind}", [(f"{name}.txt", lines) for name in ("train", "test", "vali")])
    told: list[int] = []
    settings = {"config": IngestConfig(), "split": SplitConfig(), "seed": 1}
    ingest.run(locate(archived), tmp_path / "out", **settings, advance=told.append)
    assert min(told) > 0
    assert 0.9 * archived.stat().st_size < sum(told) <= archived.stat().st_size


def test_a_run_remembers_the_archive(tmp_path: Path) -> None:
    """The manifest has the archive's SHA-256; a second run on it does nothing, a changed archive is read."""
    from pipeline.core.config import parse

    def run() -> tuple[list[str], dict[str, dict[str, str]]]:
        states: list[str] = []
        root = tmp_path / "run"
        tell = lambda event: states.append(event.state)  # noqa: E731
        run_pipeline(archived, root, config=parse({}), last_stage=Stage.INGEST, progress=tell)
        return [state for state in states if state != "advance"], read_record(root, "ingest").inputs

    source = as_splits(tmp_path / "source")
    archived = packed(tmp_path / "a.tar", entries_of(source))
    states, inputs = run()
    assert states == ["start", "done"]
    assert {name for files in inputs.values() for name in files} == {str(archived)}
    assert run()[0] == ["start", "kept"]
    (source / "test.txt").write_text("1 qid:9999 1:1\n")
    packed(archived, entries_of(source))
    assert run()[0] == ["start", "done"]
