"""Runs that several test modules look at: made once, never changed."""

import fcntl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pipeline.ranker import processes
from pipeline.ranker.worker import train
from tests.samples import write_letor_source

# A first example may compile a kernel, and a busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SMALL = {
    "seed": 7,
    "ranker": {"trees": 5, "leaves": 31, "min_rows_per_leaf": 2},
    "score": {"folds": 2, "repeats": 2},
    "evaluate": {"cutoffs": [3, 10], "resamples": 200},
}
ARMS = ["all", "random-40", "mixed-40-guard75"]


def _once(base: Path, name: str, make: Callable[[Path], Any]) -> Path:
    """Make ``base/name`` in whichever test process comes first; the others wait."""
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / f"{name}.made").exists():
            make(base / name)
            (base / f"{name}.made").touch()
    return base / name


def _base(factory: pytest.TempPathFactory, worker: str) -> Path:
    return factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """The name of this test process; ``master`` without xdist."""
    return getattr(request.config, "workerinput", {}).get("workerid", "master")


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, worker: str
) -> Callable[[str, Callable[[Path], Any]], Path]:
    """``once(name, make)`` gives the directory that ``make`` made for all test processes."""
    return partial(_once, _base(tmp_path_factory, worker))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Path:
    """A whole run on 24 training queries: arms all, random-40, mixed-40-guard75. Copy it to change it."""
    from flows.stages import run_pipeline
    from pipeline.core.config import parse

    def make(root: Path) -> None:
        source = write_letor_source(root.with_name("small-source"), queries=24, documents=12)
        run_pipeline(source, root, config=parse(SMALL), threads=2, arms=ARMS)

    return _once(_base(tmp_path_factory, worker), "small-run", make)


@pytest.fixture(scope="session")
def folds_run(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Path:
    """A run on two folds, up to its prepared sets: arms all, random-50."""
    from flows.stages import run_pipeline
    from pipeline.core.config import parse
    from pipeline.run.execute import Stage

    def make(root: Path) -> None:
        source = root.with_name("folds-source")
        for fold in (1, 2):
            write_letor_source(source / f"Fold{fold}", queries=12, documents=6, seed=10 * fold)
        config = parse({**SMALL, "score": {"scoring": "in-sample"}})
        arms = ["all", "random-50"]
        run_pipeline(source, root, config=config, threads=2, arms=arms, last_stage=Stage.SELECT)

    return _once(_base(tmp_path_factory, worker), "folds-run", make)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: the same models without a second and a half for each process."""

    def here(
        _module: str, job: dict[str, Any], *, trees_done: Callable[[int], None] | None = None, **_: Any
    ) -> dict[str, Any]:
        answer = train(job)
        if trees_done is not None:
            trees_done(len(job["trainings"]) * job["trees"])
        return answer

    monkeypatch.setattr(processes, "run", here)
