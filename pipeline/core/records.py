"""``manifest.json``: what was done, from what, with what result; and what need not be done again.

A step is skipped when the manifest has it with the same inputs (by SHA-256), parameters and versions, and
every output is there and intact (by SHA-256). Otherwise it runs, and what depends on it follows, because its
outputs are the next step's inputs.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from pipeline.core.errors import StorageError
from pipeline.core.files import Fingerprints, atomic_write, peak_memory_mb, write_text

_FORMAT = 1
_RECORD = frozenset({"inputs", "parameters", "versions", "outputs", "facts"})
_LIBRARIES = ("ranksieve", "lightgbm", "numpy", "polars", "pyarrow")

Facts = dict[str, Any]
"""What a step found out: JSON values such as rows, seconds of training, notices for the user."""


def versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    return {"python": python_version(), **{name: version(name) for name in _LIBRARIES}}


@dataclass(frozen=True)
class Done:
    """A finished step: its facts, and whether it ran now or was already there."""

    facts: Facts
    ran: bool


def _contents(files: Mapping[str, str] | None) -> list[str] | None:
    """Return what identifies inputs: their bytes in order of their names, wherever they now lie."""
    return None if files is None else [files[name] for name in sorted(files)]


class Manifest:
    """The manifest of one run directory; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fingerprints = Fingerprints()
        self._lock = threading.Lock()
        self._versions = versions()
        self._steps: dict[str, dict[str, Any]] = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self._path}: not readable ({error}); delete it to start the run afresh"
            ) from None
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise StorageError(
                f"{self._path}: written by another version of ranksieve; choose another directory with --out"
            )
        steps = document.get("steps")
        if not isinstance(steps, dict) or not all(
            isinstance(record, dict) and record.keys() >= _RECORD for record in steps.values()
        ):
            raise StorageError(f"{self._path}: damaged; delete it to start the run afresh")
        return steps

    def facts(self, name: str) -> Facts | None:
        """Return the facts of a recorded step, or None."""
        record = self._steps.get(name)
        return None if record is None else dict(record["facts"])

    def steps(self) -> dict[str, dict[str, Any]]:
        """Return every recorded step."""
        return dict(self._steps)

    def is_intact(self, name: str, outputs: Sequence[Path]) -> bool:
        """Tell whether the outputs of a recorded step are as the step left them."""
        return bool(self._steps[name]["outputs"] == self._hashes(outputs))

    def do(
        self,
        name: str,
        work: Callable[[list[Path]], Facts],
        *,
        inputs: Mapping[str, Path | Sequence[Path]],
        parameters: Mapping[str, Any],
        outputs: Sequence[Path],
    ) -> Done:
        """Run ``work`` unless its result is already there.

        Args:
            name: The step's name, unique in the run.
            work: Takes a temporary path per output, writes them, returns facts (JSON values).
            inputs: Files and directories read, by role.
            parameters: Settings that decide the result (JSON values).
            outputs: What the step makes; all appear together, or none.

        Returns:
            The step's facts, from this run or the one that made the outputs.
        """
        asked = {
            "inputs": {role: self._hashes(paths) for role, paths in inputs.items()},
            "parameters": json.loads(json.dumps(dict(parameters))),
            "versions": self._versions,
        }
        record = self._steps.get(name)
        if record and self._is_current(record, asked, outputs):
            return Done(dict(record["facts"]), ran=False)
        started = time.perf_counter()
        with atomic_write(*outputs) as temporary:
            facts = work(temporary)
        record = {
            **asked,
            "outputs": self._hashes(outputs),
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_mb": facts.pop("peak_memory_mb", None) or peak_memory_mb(),
            "facts": facts,
        }
        with self._lock:
            self._steps[name] = record
            self._write()
        return Done(dict(facts), ran=True)

    def _is_current(self, record: dict[str, Any], asked: dict[str, Any], outputs: Sequence[Path]) -> bool:
        same_inputs = {role: _contents(files) for role, files in record["inputs"].items()} == {
            role: _contents(files) for role, files in asked["inputs"].items()
        }
        same_rest = all(record[key] == asked[key] for key in ("parameters", "versions"))
        return same_inputs and same_rest and bool(record["outputs"] == self._hashes(outputs))

    def _hashes(self, paths: Path | Sequence[Path]) -> dict[str, str] | None:
        """Return ``{name: SHA-256}``, names relative to the run where they are inside it."""
        found = self.fingerprints.of(paths)
        return None if found is None else {self._name(Path(name)): sha for name, sha in found.items()}

    def _name(self, path: Path) -> str:
        root = self._path.parent
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _write(self) -> None:
        steps = {name: self._steps[name] for name in sorted(self._steps)}
        document = {"format": _FORMAT, "steps": steps}
        write_text(self._path, json.dumps(document, indent=1, sort_keys=True) + "\n")
