"""A run can leave its process: everything a step, a task and the flow are made of can be pickled."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from flows.stages import run_pipeline
from pipeline.core.config import Config, parse
from pipeline.core.paths import RunPaths
from pipeline.dataset.sources import locate
from pipeline.negatives.arms import Arm
from pipeline.negatives.arms import parse as arm_of
from pipeline.run import steps, trials
from pipeline.run.events import EventFile
from pipeline.run.execute import Step
from pipeline.run.scope import ArmScope, Dataset, FoldScope
from tests.samples import write_letor_source

Once = Callable[[str, Callable[[Path], Any]], Path]
SETTINGS: dict[str, Any] = {
    "ranker": {"trees": 6, "min_rows_per_leaf": 2},
    "score": {"folds": 2},
    "evaluate": {"resamples": 100},
    "search": {"strategies": ["top"], "guards": [""], "fractions": [0.2, 0.4], "bags": [1], "keep": 1},
}
ARMS = ["all", "mixed-20-guard75-bag2", "top-20-dynamic3"]
EXECUTE = """
import pickle, sys
from pipeline.run.execute import execute
for step, progress in pickle.load(sys.stdin.buffer):
    execute(step, threads=1, progress=progress)
"""


@pytest.fixture(scope="session")
def partitions(once: Once) -> Path:
    """A source of five partitions, hence five folds."""

    def make(root: Path) -> None:
        made = write_letor_source(root.with_name("travel-source"), queries=20, documents=8)
        lines = (made / "train.txt").read_text().splitlines(keepends=True)
        root.mkdir()
        for number in range(5):
            (root / f"S{number + 1}.txt").write_text("".join(lines[32 * number : 32 * (number + 1)]))

    return once("travel-partitions", make)


@pytest.fixture(scope="session")
def finished(once: Once, partitions: Path) -> Path:
    """A run of five folds in this process."""
    given = {"config": parse(SETTINGS), "arms": ARMS, "threads": 2}
    return once("travel-run", lambda root: run_pipeline(partitions, root, **given))


def chain(run: RunPaths, source: Path, arms: list[Arm], config: Config) -> Iterator[Step]:
    """Every step of a run, each built once those before it are done."""
    yield steps.ingest(run, locate(source), config)
    yield from steps.every_step(run, arms, config)


def same(one: Step, other: Step) -> bool:
    """Whether two steps are equal; partial functions only are when they are the same object."""
    parts = [(step.work.func, step.work.args, step.work.keywords) for step in (one, other)]  # type: ignore[attr-defined]
    return parts[0] == parts[1] and replace(one, work=len) == replace(other, work=len)


def results(root: Path) -> dict[str, bytes]:
    """The files whose bytes must not depend on where they were made."""
    folders = {"dataset", "selection", "prepared", "models", "metrics", "scores"}
    files = {file.relative_to(root): file for file in root.rglob("*") if file.is_file()}
    return {
        name.as_posix(): file.read_bytes()
        for name, file in files.items()
        if name.parts[0] != ".steps" and (folders & set(name.parts) or name.stem in folders)
    }


@pytest.mark.timeout(1200)
def test_every_step_of_a_run_of_five_folds_runs_in_a_fresh_process_from_its_pickle(
    finished: Path, partitions: Path, tmp_path: Path
) -> None:
    """By pickle and by cloudpickle; each process gets one step, and the bytes are those of a run in one process."""
    run, arms, config = RunPaths(tmp_path / "run"), [arm_of(name) for name in ARMS], parse(SETTINGS)
    run.root.mkdir()
    executed = 0
    for step in chain(run, partitions, arms, config):
        item = (step, EventFile(run.events))
        assert same(pickle.loads(pickle.dumps(step)), step)
        assert same(cloudpickle.loads(cloudpickle.dumps(step)), step)
        subprocess.run([sys.executable, "-c", EXECUTE], input=pickle.dumps([item]), check=True, timeout=200)
        executed += 1
    assert executed == 1 + 5 * (2 + 3 + 4 + 3) + 5 + 1 + 2
    assert results(run.root) == results(finished)


def test_trials_of_a_search_travel(finished: Path) -> None:
    """A trial is a step as others are."""
    run, config = RunPaths(finished), parse(SETTINGS)
    for fold in Dataset.of(run).folds:
        step = trials.trial(ArmScope(FoldScope(run, fold, config), arm_of("top-20")), 1)
        assert same(pickle.loads(pickle.dumps(step)), step)


def test_the_flow_and_its_tasks_travel() -> None:
    """By pickle and by cloudpickle, into a process that has not imported them."""
    code = """
import pickle, subprocess, sys
import cloudpickle
from prefect import Flow, Task
from flows import prepare as module
made = {name: value for name, value in vars(module).items() if isinstance(value, Task | Flow)}
assert len(made) == 8, sorted(made)
load = "import sys, pickle; print(type(pickle.loads(sys.stdin.buffer.read())).__name__)"
for name, value in made.items():
    for kind in (pickle, cloudpickle):
        done = subprocess.run([sys.executable, "-c", load], input=kind.dumps(value), capture_output=True, check=True)
        assert done.stdout.decode().strip() in ("Task", "Flow"), (name, done.stdout)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=230)
