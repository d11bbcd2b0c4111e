"""A step is done once: again only when an input, a parameter, a version or an output changed."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import records as module
from pipeline.core.errors import StorageError
from pipeline.core.records import Done, Facts, Manifest


class Run:
    """A run of one step that copies its inputs into ``out``."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.source = root, root / "out.txt", root / "source.txt"
        self.source.write_text("abc")
        self.did = 0

    def work(self, made: list[Path]) -> Facts:
        self.did += 1
        made[0].write_text(self.source.read_text())
        return {"size": 3, "peak_memory_mb": 12}

    def do(self, manifest: Manifest | None = None, **changes: Any) -> Done:
        step: dict[str, Any] = {
            "inputs": {"source": self.source},
            "parameters": {"a": (1, 2.5), "b": None},
            "outputs": [self.out],
            **changes,
        }
        return (manifest or Manifest(self.root / "manifest.json")).do("copy", self.work, **step)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One step, done."""
    run = Run(tmp_path)
    assert run.do() == Done({"size": 3}, ran=True)
    return run


def test_a_done_step_is_kept(run: Run) -> None:
    """A second process finds the facts of the first, and touches nothing."""
    before = {path: path.stat().st_mtime_ns for path in run.root.iterdir()}
    assert run.do() == Done({"size": 3}, ran=False)
    assert run.did == 1
    assert {path: path.stat().st_mtime_ns for path in run.root.iterdir()} == before


def test_the_record_says_what_was_done(run: Run) -> None:
    """Inputs and outputs by SHA-256, relative to the run; parameters, versions, seconds, memory."""
    document = json.loads((run.root / "manifest.json").read_text())
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    record = document["steps"]["copy"]
    assert record["inputs"] == {"source": {"source.txt": sha}}
    assert record["outputs"] == {"out.txt": sha}
    assert record["parameters"] == {"a": [1, 2.5], "b": None}
    assert record["versions"] == module.versions()
    assert record["peak_memory_mb"] == 12
    assert 0 <= record["seconds"] < 60
    assert record["facts"] == {"size": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.source.write_text("abd"),
        lambda run: run.out.unlink(),
        lambda run: run.out.write_text("abx"),
        lambda run: run.out.write_text(""),
        lambda run: (run.out.unlink(), run.out.mkdir()),
        lambda run: (run.root / "manifest.json").unlink(),
    ],
    ids=[
        "input altered",
        "output gone",
        "output altered",
        "output cut",
        "output a directory",
        "manifest gone",
    ],
)
def test_whatever_is_not_as_it_was_runs_again(run: Run, change: Callable[[Run], object]) -> None:
    """After the change the step runs once, and then is kept again."""
    change(run)
    assert run.do().ran
    assert run.out.read_text() == run.source.read_text()
    assert not run.do().ran


def test_a_touched_file_is_not_a_changed_one(run: Run) -> None:
    """Bytes decide, not times."""
    for path in (run.source, run.out):
        os.utime(path, ns=(1, 1))
    assert not run.do().ran


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"a": (1, 2.5), "b": 0}},
        {"parameters": {"a": (1, 2.5)}},
        {"parameters": {"a": (2.5, 1), "b": None}},
    ],
)
def test_other_parameters_run_again(run: Run, changes: dict[str, Any]) -> None:
    """Another value, a missing one, another order."""
    assert run.do(**changes).ran


def test_other_versions_run_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgraded library may give other bytes."""
    monkeypatch.setattr(module, "version", lambda name: "0.0")
    assert run.do().ran


def test_the_same_files_in_other_roles_run_again(run: Run) -> None:
    """Two inputs that change places are two other inputs."""
    other = run.root / "other.txt"
    other.write_text("xyz")
    assert run.do(inputs={"one": run.source, "two": other}).ran
    assert run.do(inputs={"one": other, "two": run.source}).ran
    assert not run.do(inputs={"one": other, "two": run.source}).ran


def test_a_moved_source_is_the_same_source(run: Run, tmp_path: Path) -> None:
    """What counts is the bytes, wherever they lie."""
    moved = tmp_path / "elsewhere" / "source.txt"
    moved.parent.mkdir()
    run.source.rename(moved)
    run.source = moved
    assert not run.do().ran


def test_a_moved_run_is_the_same_run(run: Run, tmp_path: Path) -> None:
    """Names in the manifest are relative to it."""
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    run.root, run.out, run.source = moved, moved / "out.txt", moved / "source.txt"
    assert not run.do().ran


def test_an_added_part_in_a_directory_output_runs_again(tmp_path: Path) -> None:
    """A stray part would be read as data, so it does not pass for intact."""
    run = Run(tmp_path)
    run.out = tmp_path / "set"

    def work(made: list[Path]) -> Facts:
        made[0].mkdir()
        (made[0] / "part-0").write_text("0")
        return {}

    run.work = work  # type: ignore[method-assign]
    assert run.do().ran
    (run.out / "part-1").write_text("1")
    assert run.do().ran
    assert [path.name for path in run.out.iterdir()] == ["part-0"]
    assert not run.do().ran


def test_a_failed_step_keeps_the_last_good_record(run: Run) -> None:
    """Work that raises leaves output, record and manifest as they were."""
    manifest = (run.root / "manifest.json").read_bytes()
    good = run.work

    def work(made: list[Path]) -> Facts:
        made[0].write_text("half")
        raise ZeroDivisionError

    run.work = work  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run.do(parameters={})
    assert (run.root / "manifest.json").read_bytes() == manifest
    assert sorted(path.name for path in run.root.iterdir()) == ["manifest.json", "out.txt", "source.txt"]
    run.work = good  # type: ignore[method-assign]
    assert not run.do().ran


def test_intact_is_about_outputs_alone(run: Run) -> None:
    """An input that is gone does not make an output damaged."""
    run.source.unlink()
    assert Manifest(run.root / "manifest.json").is_intact("copy", [run.out])
    run.out.write_text("abx")
    assert not Manifest(run.root / "manifest.json").is_intact("copy", [run.out])


def test_facts_of_a_step_that_never_ran(run: Run) -> None:
    """Facts come from the record, or there are none."""
    manifest = Manifest(run.root / "manifest.json")
    assert manifest.facts("copy") == {"size": 3}
    assert manifest.facts("other") is None
    assert list(manifest.steps()) == ["copy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable"),
        (b"{", "not readable"),
        (b"\xff\xfe", "not readable"),
        (b"[]", "another version of ranksieve"),
        (b'{"format": 99, "steps": {}}', "another version of ranksieve"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 1, "steps": []}', "damaged"),
        (b'{"format": 1, "steps": {"copy": {}}}', "damaged"),
        (b'{"format": 1, "steps": {"copy": 3}}', "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    """The line names the file and what to do; nothing is overwritten."""
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=message) as caught:
        Manifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_threads_record_all_their_steps(tmp_path: Path) -> None:
    """Steps done side by side are all in the file, in the order of their names."""
    manifest = Manifest(tmp_path / "manifest.json")

    def step(number: int) -> None:
        out = tmp_path / f"{number}.txt"
        manifest.do(
            f"step-{number}", lambda made: (made[0].write_text(str(number)) and {}) or {},
            inputs={}, parameters={"number": number}, outputs=[out],
        )  # fmt: skip

    threads = [threading.Thread(target=step, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert list(document["steps"]) == [f"step-{number}" for number in range(8)]
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == [f"{number}.txt" for number in range(8)]
