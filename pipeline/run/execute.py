"""Steps as values, and the one place that runs them: skip what is done, publish the outputs, write the record."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.core import records
from pipeline.core.files import atomic_write, peak_memory_mb
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts, Hashes, Record
from pipeline.run.events import Event, Progress, Task


class Stage(StrEnum):
    """The stages of a run, in order."""

    INGEST = "ingest"
    SCORE = "score"
    SELECT = "select"
    TRAIN = "train"
    EVALUATE = "evaluate"
    REPORT = "report"

    def reaches(self, other: "Stage") -> bool:
        """Return whether a run whose last stage is this one runs the other."""
        order = list(Stage)
        return order.index(other) <= order.index(self)


Work = Callable[[Task], Facts]
"""Writes each output at the path given, and returns facts (JSON values)."""


@dataclass(frozen=True)
class Step:
    """One step of a run. All of it can be pickled and executed elsewhere.

    Attributes:
        run: The run it belongs to.
        name: Unique in the run, such as ``fold-1/model/top-20``.
        stage: The stage it is part of.
        work: A function of a module, or a partial of one.
        inputs: Files and directories read, by role.
        parameters: Settings that decide the result (JSON values).
        outputs: What the step makes; all appear together, or none.
        cost: Expected work, in row-trees for a step that trains.
    """

    run: RunPaths
    name: str
    stage: Stage
    work: Work
    inputs: Mapping[str, Sequence[Path]]
    parameters: Mapping[str, Any]
    outputs: Sequence[Path]
    cost: float = field(default=0.0, compare=False)

    @property
    def record(self) -> Record | None:
        """The record of the last time it ran."""
        return records.read_record(self.run.root, self.name)


def execute(step: Step, *, threads: int = 1, progress: Progress = lambda _: None) -> Record:
    """Run a step unless its result is there.

    It is there when the record has the same inputs (by SHA-256), parameters and versions, and every output is as
    the record says (by SHA-256).

    Args:
        step: The step.
        threads: Threads to work with; they never change a byte of the outputs.
        progress: Told of its start, progress and end.

    Returns:
        The record of this run, or of the one that made the outputs.

    Raises:
        RanksieveError: What the work raises; the last good outputs stay.
    """
    progress(Event(step.name, "start", step.cost))
    inputs = {role: records.hashes_of(step.run.root, paths) for role, paths in step.inputs.items()}
    parameters = json.loads(json.dumps(dict(step.parameters)))
    known = step.record
    if known is not None and _is_current(step, known, inputs, parameters):
        progress(Event(step.name, "kept", step.cost))
        return known
    began = time.perf_counter()
    with atomic_write(*step.outputs) as made:
        facts = step.work(Task(step.name, made, threads, progress))
    record = Record(
        inputs=inputs,
        parameters=parameters,
        versions=records.versions(),
        outputs=records.hashes_of(step.run.root, step.outputs) or {},
        facts={name: fact for name, fact in facts.items() if name != "peak_memory_mb"},
        seconds=round(time.perf_counter() - began, 3),
        peak_memory_mb=facts.get("peak_memory_mb") or peak_memory_mb(),
        host=records.host(),
    )
    records.write_record(step.run.root, step.name, record)
    progress(Event(step.name, "done", step.cost))
    return record


def _is_current(
    step: Step, known: Record, inputs: Mapping[str, Hashes | None], parameters: Mapping[str, Any]
) -> bool:
    same = known.parameters == parameters and known.versions == records.versions()
    return same and known.same_inputs(inputs) and is_intact(step.run, step.outputs, known)


def is_intact(run: RunPaths, outputs: Sequence[Path], known: Record) -> bool:
    """Return whether outputs of a step are as its record says."""
    return known.outputs == records.hashes_of(run.root, outputs)
