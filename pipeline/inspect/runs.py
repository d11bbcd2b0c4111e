"""The state of a run: which steps are done, and whether what they wrote is still there and unchanged."""

import contextlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.core.config import parse, read_toml
from pipeline.core.errors import RanksieveError
from pipeline.core.files import sha256
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts, Hashes, Record, read_records
from pipeline.evaluation.verdict import verdict
from pipeline.inspect.tables import plain, table_facts
from pipeline.negatives import arms as arm_names
from pipeline.report.view import deciding_cutoff
from pipeline.run.scope import Dataset
from pipeline.run.steps import KINDS, every_step, kind_of

CHECK_BYTES: Final = 1 << 30
"""Bytes of outputs that are compared with their fingerprints when nobody asks for all."""


def run_facts(root: Path, dataset: Facts | None, *, check_bytes: int | None = CHECK_BYTES) -> Facts:
    """Describe a run.

    A step is ``done``; ``missing`` (it has not run, or an output is gone); ``damaged`` (an output is not what
    the step wrote, by SHA-256); or ``stale`` (an input was made anew after it ran). Which arms a run has is
    what is recorded; before it has a summary, the panel in ``config.toml`` joins them. Outputs are compared
    small files first, up to ``check_bytes``; None: all.

    Raises:
        ConfigError: ``config.toml`` is missing or wrong.
        StorageError: The dataset's card is damaged.
    """
    run = RunPaths(root)
    config = parse(read_toml(run.config), where=str(run.config))
    records = read_records(root)
    panel = [arm.name for arm in arm_names.panel(config.select)]
    arms = _arms(records, panel)
    made = {name: sha for record in records.values() for name, sha in record.outputs.items()}
    outputs = _check_outputs(root, made, limit=check_bytes)
    unchecked = [name for name, state in outputs.items() if state == "unchecked"]
    expected = ["ingest"]  # before there is a dataset, nobody knows the other steps
    if run.dataset_card.is_file():
        expected += [step.name for step in every_step(run, [arm_names.parse(arm) for arm in arms], config)]
    steps = _steps(records, expected, made, outputs)
    summary = _summary(run)
    kinds = [kind for kind in KINDS if kind != "search" or any(step["stage"] == kind for step in steps)]
    return {
        "source": _source(records),
        "dataset": dataset,
        "seed": config.seed,
        "folds": len(Dataset.of(run).folds) if dataset else 1,
        "arms": arms,
        "stages": [_stage(kind, [step for step in steps if step["stage"] == kind]) for kind in kinds],
        "steps": steps,
        "finish": _finish(root, steps, arms, panel),
        "unchecked": {"files": len(unchecked), "bytes": sum((root / n).stat().st_size for n in unchecked)},
        "seconds": round(sum(record.seconds for record in records.values()), 3),
        "peak_memory_mb": max((record.peak_memory_mb for record in records.values()), default=None),
        "notices": _notices(dataset, records),
        "summary": plain(summary.to_dicts()) if summary is not None else None,
        "verdict": verdict(summary, cutoff=deciding_cutoff(summary)) if summary is not None else [],
    }


def _arms(records: Mapping[str, Record], panel: Sequence[str]) -> list[str]:
    """Return the run's arms, in panel order, those that the panel does not have last."""
    recorded = [which for kind, which in map(kind_of, records) if kind in ("selection", "model")]
    asked = "summary" in records or not set(recorded) <= set(panel)
    order = {name: place for place, name in enumerate(panel)}
    wanted = dict.fromkeys(recorded if asked else [*panel, *recorded])
    return sorted(wanted, key=lambda name: (order.get(name, len(order)), name))


def _finish(root: Path, steps: Sequence[Facts], arms: Sequence[str], panel: Sequence[str]) -> str | None:
    """Return the command that makes what is not done; None: all is."""
    states = {step["name"]: step["state"] for step in steps}
    if set(states.values()) == {"done"}:
        return None
    if states["ingest"] != "done":
        return f"ranksieve run SOURCE --out {shlex.quote(str(root))}"
    others = [] if set(arms) == set(panel) else ["--arms", ",".join(arms)]
    return shlex.join(["ranksieve", "report", str(root), *others])


def _check_outputs(root: Path, made: Hashes, *, limit: int | None) -> dict[str, str]:
    """Return the state of every recorded output: intact, missing, damaged, or unchecked beyond the limit."""
    sizes = {name: (root / name).stat().st_size for name in made if (root / name).is_file()}
    states, read = dict.fromkeys(made, "missing"), 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        read += sizes[name]
        if limit is not None and read > limit:
            states[name] = "unchecked"
        else:
            states[name] = "intact" if _has_sha256(root / name, made[name]) else "damaged"
    return states


def _has_sha256(file: Path, sha: str) -> bool:
    try:
        return sha256(file) == sha
    except OSError:
        return False


def _steps(
    records: Mapping[str, Record], expected: Sequence[str], made: Hashes, outputs: Mapping[str, str]
) -> list[Facts]:
    """Return name, stage, state, seconds and peak memory of every step, in the order of the stages."""
    steps = []
    for name in dict.fromkeys([*expected, *records]):
        record = records.get(name)
        steps.append(
            {
                "name": name,
                "stage": kind_of(name)[0],
                "state": _state(record, made, outputs),
                "seconds": record and record.seconds,
                "peak_memory_mb": record and record.peak_memory_mb,
            }
        )
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(steps, key=lambda step: place.get(step["stage"], len(place)))


def _state(record: Record | None, made: Hashes, outputs: Mapping[str, str]) -> str:
    states = {outputs[name] for name in record.outputs} if record else set()
    if record is None or not states or "missing" in states:
        return "missing"
    if "damaged" in states:
        return "damaged"
    inputs = [pair for files in record.inputs.values() for pair in (files or {}).items()]
    return "stale" if any(made.get(name, sha) != sha for name, sha in inputs) else "done"


def _stage(kind: str, steps: Sequence[Facts]) -> Facts:
    ran = [step for step in steps if step["seconds"] is not None]
    states = Counter(step["state"] for step in steps)
    return {
        "stage": kind,
        "steps": len(steps),
        **{state: states[state] for state in ("done", "missing", "damaged", "stale")},
        "seconds": round(sum(step["seconds"] for step in ran), 3),
        "peak_memory_mb": max((step["peak_memory_mb"] for step in ran), default=None),
    }


def _source(records: Mapping[str, Record]) -> Facts | None:
    if (record := records.get("ingest")) is None:
        return None
    files = [name for role in record.inputs.values() for name in role or ()]
    there = [{"path": file, "there": Path(file).is_file()} for file in files]
    return {"layout": record.parameters.get("layout"), "files": there}


def _notices(dataset: Facts | None, records: Mapping[str, Record]) -> list[str]:
    found = list(dataset["notices"]) if dataset else []
    for record in records.values():
        found += record.facts.get("notices", [])
    return list(dict.fromkeys(found))


def _summary(run: RunPaths) -> pl.DataFrame | None:
    """Return SUMMARY; None when there is none, or none that can be read: the step's state tells."""
    with contextlib.suppress(RanksieveError):
        found = table_facts([run.summary])
        if found["table"] == "SUMMARY" and found["rows"]:
            return pl.read_parquet(run.summary)
    return None
