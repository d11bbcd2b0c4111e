"""A step is done once: again only when an input, a parameter, a version or an output changed."""

import json
import os
import platform
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import records
from pipeline.core.files import sha256
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts
from pipeline.run.events import Event, Task
from pipeline.run.execute import Stage, Step, execute, is_intact


def copy_source(source: Path, task: Task) -> Facts:
    """The work of the step: copy a file."""
    task.out[0].write_text(source.read_text())
    return {"size": 3, "peak_memory_mb": 12}


class Run:
    """A run of one step that copies its input into ``out``."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.source = root, root / "out.txt", root / "source.txt"
        self.source.write_text("abc")

    def step(self, **changes: Any) -> Step:
        given: dict[str, Any] = {
            "run": RunPaths(self.root),
            "name": "copy",
            "stage": Stage.INGEST,
            "work": partial(copy_source, self.source),
            "inputs": {"source": [self.source]},
            "parameters": {"a": (1, 2.5), "b": None},
            "outputs": [self.out],
        }
        return Step(**given | changes)

    def do(self, **changes: Any) -> bool:
        """Execute the step; return whether it ran."""
        events: list[Event] = []
        self.record = execute(self.step(**changes), progress=events.append)
        assert [event.state for event in events][:1] == ["start"]
        return events[-1].state == "done"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One step, done."""
    run = Run(tmp_path)
    assert run.do()
    assert run.record.facts == {"size": 3}
    return run


def test_a_done_step_is_kept(run: Run) -> None:
    """A second process finds the facts of the first, and touches nothing."""
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    assert not run.do()
    assert run.record.facts == {"size": 3}
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before


def test_the_record_says_what_was_done(run: Run) -> None:
    """Inputs and outputs by SHA-256, relative to the run; parameters, versions, seconds, memory."""
    record = json.loads((run.root / ".steps" / "copy.json").read_text())
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
    assert record["inputs"] == {"source": {"source.txt": sha}}
    assert record["outputs"] == {"out.txt": sha}
    assert record["parameters"] == {"a": [1, 2.5], "b": None}
    assert record["versions"] == records.versions()
    assert record["peak_memory_mb"] == 12
    assert 0 <= record["seconds"] < 60
    assert record["facts"] == {"size": 3}
    assert record["host"] == platform.node()


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.source.write_text("abd"),
        lambda run: run.out.unlink(),
        lambda run: run.out.write_text("abx"),
        lambda run: run.out.write_text(""),
        lambda run: (run.out.unlink(), run.out.mkdir()),
        lambda run: (run.root / ".steps" / "copy.json").unlink(),
    ],
    ids=[
        "input altered",
        "output gone",
        "output altered",
        "output cut",
        "output a directory",
        "record gone",
    ],
)
def test_whatever_is_not_as_it_was_runs_again(run: Run, change: Callable[[Run], object]) -> None:
    """After the change the step runs once, and then is kept again."""
    change(run)
    assert run.do()
    assert run.out.read_text() == run.source.read_text()
    assert not run.do()


def test_a_touched_file_is_not_a_changed_one(run: Run) -> None:
    """Bytes decide, not times."""
    for path in (run.source, run.out):
        os.utime(path, ns=(1, 1))
    assert not run.do()


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
    assert run.do(**changes)


def test_other_versions_run_again(run: Run) -> None:
    """An upgraded library may give other bytes."""
    path = run.root / ".steps" / "copy.json"
    path.write_text(path.read_text().replace(records.versions()["polars"], "0.0"))
    assert run.do()


def test_the_same_files_in_other_roles_run_again(run: Run) -> None:
    """Two inputs that change places are two other inputs."""
    other = run.root / "other.txt"
    other.write_text("xyz")
    assert run.do(inputs={"one": [run.source], "two": [other]})
    assert run.do(inputs={"one": [other], "two": [run.source]})
    assert not run.do(inputs={"one": [other], "two": [run.source]})


def test_a_moved_source_is_the_same_source(run: Run, tmp_path: Path) -> None:
    """What counts is the bytes, wherever they lie."""
    moved = tmp_path / "elsewhere" / "source.txt"
    moved.parent.mkdir()
    run.source.rename(moved)
    run.source = moved
    assert not run.do()


def test_a_moved_run_is_the_same_run(run: Run, tmp_path: Path) -> None:
    """Names in the manifest are relative to it."""
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    run.root, run.out, run.source = moved, moved / "out.txt", moved / "source.txt"
    assert not run.do()


def test_an_added_part_in_a_directory_output_runs_again(tmp_path: Path) -> None:
    """A stray part would be read as data, so it does not pass for intact."""
    run = Run(tmp_path)
    run.out = tmp_path / "set"
    assert run.do(work=make_set)
    (run.out / "part-1").write_text("1")
    assert run.do(work=make_set)
    assert [path.name for path in run.out.iterdir()] == ["part-0"]
    assert not run.do(work=make_set)


def make_set(task: Task) -> Facts:
    """Make a directory of one file."""
    task.out[0].mkdir()
    (task.out[0] / "part-0").write_text("0")
    return {}


def fail(task: Task) -> Facts:
    """Fail amid writing."""
    task.out[0].write_text("half")
    raise ZeroDivisionError


def test_a_failed_step_keeps_the_last_good_output_and_record(run: Run) -> None:
    """Work that raises leaves output and record as they were."""
    record = (run.root / ".steps" / "copy.json").read_bytes()
    with pytest.raises(ZeroDivisionError):
        run.do(parameters={}, work=fail)
    assert (run.root / ".steps" / "copy.json").read_bytes() == record
    assert sorted(path.name for path in run.root.rglob("*")) == [
        ".steps",
        "copy.json",
        "out.txt",
        "source.txt",
    ]
    assert not run.do()


def test_intact_is_about_outputs_alone(run: Run) -> None:
    """An input that is gone does not make an output damaged."""
    run.source.unlink()
    assert is_intact(RunPaths(run.root), [run.out], run.record)
    run.out.write_text("abx")
    assert not is_intact(RunPaths(run.root), [run.out], run.record)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"format": 99}', b'{"format": 2}', b'{"format": 2, "facts": []}'],
)
def test_a_record_that_cannot_be_read_counts_for_nothing(run: Run, content: bytes) -> None:
    """The step is done again, and has a good record then."""
    (run.root / ".steps" / "copy.json").write_bytes(content)
    assert records.read_records(run.root) == {}
    assert run.do()
    assert list(records.read_records(run.root)) == ["copy"]


def test_threads_record_all_their_steps(tmp_path: Path) -> None:
    """Steps done side by side are all in the manifest, in the order of their names."""
    run = Run(tmp_path)
    threads = [
        threading.Thread(
            target=run.do, kwargs={"name": f"fold-{number}/copy", "outputs": [tmp_path / f"{number}"]}
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records.write_manifest(tmp_path)
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert list(document["steps"]) == [f"fold-{number}/copy" for number in range(8)]
    assert all((tmp_path / f"{number}").read_text() == "abc" for number in range(8))


def test_a_file_that_changes_within_a_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    """Size, time and inode may all stay: what was just written is not taken for known."""
    file = tmp_path / "file"
    seen = set()
    for word in ("abc", "abd", "abe"):
        file.write_text(word)
        seen.add(sha256(file))
    assert len(seen) == 3
