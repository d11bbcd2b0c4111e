"""Outputs appear whole or not at all, the lock tells who holds it, fingerprints are SHA-256."""

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.core.errors import BusyError, StorageError
from pipeline.core.files import (
    atomic_write,
    peak_memory_mb,
    remove_temporaries,
    sha256,
    write_text,
)
from pipeline.core.lock import lock_run
from pipeline.core.records import hashes_of
from tests.filesystem import fill, small_disk

COMMAND = "ranksieve run there"


def names(directory: Path) -> list[str]:
    """Every file and directory below ``directory``, relative, the lock left out."""
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.name != ".lock")


def spoil(*paths: Path, directory: bool = False) -> None:
    """Publish ``paths``, and fail when half of the first one is written."""
    with atomic_write(*paths) as made:
        if directory:
            made[0].mkdir()
        (made[0] / "part" if directory else made[0]).write_text("half")
        raise ZeroDivisionError


# ---- publish ---------------------------------------------------------------------------------------------


def test_published_file_appears_only_at_the_end(tmp_path: Path) -> None:
    """Until the body is over, the path holds what it held before."""
    path = tmp_path / "a" / "b.txt"
    with atomic_write(path) as [made]:
        made.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a", "a/b.txt"]


def test_published_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """Files of the old directory do not live on in the new one."""
    path = tmp_path / "set"
    path.mkdir()
    (path / "old").write_text("1")
    with atomic_write(path) as [made]:
        made.mkdir()
        (made / "new").write_text("2")
    assert names(tmp_path) == ["set", "set/new"]


@pytest.mark.parametrize("directory", [False, True])
def test_failure_leaves_the_last_good_output_and_nothing_else(tmp_path: Path, directory: bool) -> None:
    """An error in the body takes its half-made output with it."""
    path = tmp_path / "out"
    if directory:
        path.mkdir()
        (path / "part").write_text("good")
    else:
        path.write_text("good")
    before = names(tmp_path)
    with pytest.raises(ZeroDivisionError):
        spoil(path, directory=directory)
    assert names(tmp_path) == before
    assert (path / "part" if directory else path).read_text() == "good"


def test_outputs_of_one_step_appear_together(tmp_path: Path) -> None:
    """When the second output is not made, the first one does not appear either."""
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(ZeroDivisionError):
        spoil(one, two)
    assert names(tmp_path) == []


def test_a_forgotten_output_is_an_error(tmp_path: Path) -> None:
    """A body that writes nothing does not pass for one that did."""
    with pytest.raises(StorageError, match="out: "), atomic_write(tmp_path / "out"):
        pass


def test_publishing_over_a_link_to_a_directory_spares_its_target(tmp_path: Path) -> None:
    """Only the link is replaced; what it pointed to belongs to somebody else."""
    target, link = tmp_path / "theirs", tmp_path / "out"
    target.mkdir()
    (target / "file").write_text("theirs")
    link.symlink_to(target)
    with atomic_write(link) as [made]:
        made.mkdir()
        (made / "file").write_text("ours")
    assert (target / "file").read_text() == "theirs"
    assert (link / "file").read_text() == "ours"
    assert not link.is_symlink()


def test_a_failed_exchange_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the new directory cannot take its place, the old one is there again."""
    path = tmp_path / "set"
    path.mkdir()
    (path / "part").write_text("good")
    real = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith("-old"):
            raise OSError(errno.EIO, "Input/output error", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(StorageError, match="Input/output error"), atomic_write(path) as [made]:
        made.mkdir()
    assert names(tmp_path) == ["set", "set/part"]


def test_same_text_is_not_written_again(tmp_path: Path) -> None:
    """A file that already says so keeps its time; another text replaces it."""
    path = tmp_path / "config.toml"
    write_text(path, "a = 1\n")
    os.utime(path, ns=(1, 1))
    write_text(path, "a = 1\n")
    assert path.stat().st_mtime_ns == 1
    write_text(path, "a = 2\n")
    assert path.read_text() == "a = 2\n"


# ---- Errors of the disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_system_errors_become_one_line_about_the_final_path(tmp_path: Path, code: int, says: str) -> None:
    """The message says what to do, and names the file as the user knows it, not the temporary one."""
    path = tmp_path / "models" / "all.txt"
    with pytest.raises(StorageError) as caught, atomic_write(path) as [made]:
        raise OSError(code, os.strerror(code), str(made))
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_inside_a_temporary_directory_is_named_by_its_final_path(tmp_path: Path) -> None:
    """Dots elsewhere in the path are left alone."""
    path = tmp_path / "a.b" / "dataset"
    with pytest.raises(StorageError) as caught, atomic_write(path) as [made]:
        raise OSError(errno.ENOSPC, "No space left on device", str(made / "train" / "part-00000.parquet"))
    assert str(caught.value).startswith(f"{path}/train/part-00000.parquet: the disk is full")


def test_full_disk_keeps_the_last_good_file() -> None:
    """Writing beyond a small disk's space is a StorageError, and the old file is untouched."""
    with small_disk(megabytes=1) as disk:
        path = disk / "out.txt"
        write_text(path, "good")
        with pytest.raises(StorageError, match=r"out\.txt: the disk is full"):
            write_text(path, "x" * (2 << 20))
        assert path.read_text() == "good"
        assert names(disk) == ["out.txt"]


def test_a_disk_without_a_free_byte_cannot_be_held() -> None:
    """Not even the lock can say who holds it: that too is one line."""
    with small_disk(megabytes=1) as disk:
        run = disk / "run"
        run.mkdir()
        fill(disk / "other")
        with pytest.raises(StorageError, match="the disk is full"), lock_run(run, command=COMMAND):
            pass


def test_leftovers_that_fill_the_disk_are_swept_before_anything_is_written() -> None:
    """A run that died of a full disk by its own temporary files can be taken up again."""
    with small_disk(megabytes=1) as disk:
        run = disk / "run"
        run.mkdir()
        (run / ".lock").touch()
        fill(run / ".dataset.tmp-1-2")
        with lock_run(run, command=COMMAND):
            assert names(run) == []


def test_read_only_directory_is_a_storage_error() -> None:
    """A file system mounted read-only refuses the run in one line, with a way out."""
    with small_disk(megabytes=1, read_only=True) as disk:
        with pytest.raises(StorageError, match=r"read-only; choose another directory with --out"):
            write_text(disk / "out.txt", "x")
        with (
            pytest.raises(StorageError, match=r"read-only; choose another directory with --out"),
            lock_run(disk / "run", command=COMMAND),
        ):
            pass


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    """``--out`` below a file is one line."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="not a directory"),
        lock_run(tmp_path / "file" / "run", command=COMMAND),
    ):
        pass


# ---- sweep -----------------------------------------------------------------------------------------------


def test_sweep_removes_only_what_publish_leaves(tmp_path: Path) -> None:
    """Other hidden files, even with a similar name, are not ours to delete."""
    (tmp_path / "models").mkdir()
    (tmp_path / ".dataset.tmp-12-34" / ".staging").mkdir(parents=True)
    (tmp_path / ".dataset.tmp-12-34" / ".x.tmp-12-34").touch()
    (tmp_path / "models" / ".all.txt.tmp-12-34").touch()
    (tmp_path / "models" / ".initial-0.txt.tmp-12-34-rows").touch()
    (tmp_path / ".notes.tmp-mine").touch()
    (tmp_path / "plain.tmp-12-34").touch()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == [".notes.tmp-mine", "models", "plain.tmp-12-34"]


def test_sweep_puts_back_a_directory_whose_successor_never_came(tmp_path: Path) -> None:
    """Killed between the two renames, a run still has its last good directory."""
    old = tmp_path / ".dataset.tmp-12-34-old"
    old.mkdir()
    (old / "part").write_text("good")
    (tmp_path / ".dataset.tmp-12-34").mkdir()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["dataset", "dataset/part"]


def test_sweep_drops_the_old_directory_once_the_new_one_is_in(tmp_path: Path) -> None:
    """Killed after the renames, only the removal of the old directory is left to do."""
    (tmp_path / ".dataset.tmp-12-34-old").mkdir()
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "part").write_text("new")
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["dataset", "dataset/part"]


# ---- hold ------------------------------------------------------------------------------------------------


def test_the_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    """The message has the process, the command and the time."""
    clock = lambda: datetime(2024, 2, 29, 12, 30, 5, tzinfo=UTC)  # noqa: E731
    with (
        lock_run(tmp_path, command=COMMAND, clock=clock),
        pytest.raises(BusyError) as caught,
        lock_run(tmp_path, command="another"),
    ):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: in use by process {os.getpid()} ({COMMAND}) since 2024-02-29 12:30:05 UTC; "
        "wait for it to finish, or choose another directory with --out"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
def test_an_unreadable_lock_still_says_busy(tmp_path: Path, content: bytes) -> None:
    """Between taking the lock and writing to it, a holder has no name."""
    with lock_run(tmp_path, command=COMMAND):
        (tmp_path / ".lock").write_bytes(content)
        with (
            pytest.raises(BusyError, match="in use by another process"),
            lock_run(tmp_path, command="another"),
        ):
            pass


def test_the_lock_is_free_after_a_failure(tmp_path: Path) -> None:
    """An error inside gives the directory back, and comes out as it is."""
    with pytest.raises(FileNotFoundError), lock_run(tmp_path, command=COMMAND):
        raise FileNotFoundError
    with lock_run(tmp_path, command=COMMAND):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_killed_holder_releases_the_lock_and_its_leftovers_are_swept(tmp_path: Path) -> None:
    """SIGKILL leaves no lock behind that somebody would have to delete."""
    code = (
        "import sys, time; from pathlib import Path; from pipeline.core import files, lock\n"
        "root = Path(sys.argv[1])\n"
        "with lock.lock_run(root, command='victim'), files.atomic_write(root / 'out') as [made]:\n"
        "    made.write_text('half'); print('held', flush=True); time.sleep(60)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match=rf"process {victim.pid} \(victim\)"),
            lock_run(tmp_path, command=COMMAND),
        ):
            pass
        assert [name.startswith(".out.tmp-") for name in names(tmp_path)] == [True]
        victim.kill()
    with lock_run(tmp_path, command=COMMAND):
        assert names(tmp_path) == []


# ---- SHA-256 ----------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of two files."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("abc")
    (tmp_path / "tree" / "b").write_text("")
    return tmp_path / "tree"


def test_hashes_of_files_and_directories(tree: Path) -> None:
    """All files below a directory, by their name in the run; the values are those of FIPS 180-2 and of nothing."""
    of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(tree / "a") == of_abc
    assert hashes_of(tree.parent, [tree]) == {"tree/a": of_abc, "tree/b": of_nothing}
    assert hashes_of(tree / "elsewhere", [tree / "a"]) == {str(tree / "a"): of_abc}
    assert hashes_of(tree.parent, [tree / "a", tree / "gone"]) is None


def test_a_changed_file_is_read_again(tree: Path) -> None:
    """Another time or another size is another state."""
    os.utime(tree / "a", ns=(1, 1))
    first = sha256(tree / "a")
    (tree / "a").write_text("abd")
    os.utime(tree / "a", ns=(2, 2))
    assert sha256(tree / "a") != first


def test_peak_memory_is_of_this_process() -> None:
    """It is at least what is resident now, and below the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") >> 20
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert resident - 1 <= peak_memory_mb() < total
