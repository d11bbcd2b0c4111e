"""What `--arms` shows: an arm alone, and an arm that fails alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import TrainingError
from pipeline.ranker import processes

Run = Callable[..., tuple[int, str, str]]
ALONE = ("--plain", "--arms", "mixed-40-guard75")


def test_an_arm_alone_is_shown_without_differences(ranksieve: Run, small_run: Path, tmp_path: Path) -> None:
    """No column for what was not trained, no recommendation, and the option that compares."""
    root = shutil.copytree(small_run, tmp_path / "run")
    code, out, err = ranksieve("report", root, *ALONE)
    assert code == 0, err
    assert "mixed-40-guard75 0." in out
    assert "--arms all,mixed-40-guard75" in " ".join(out.split())
    for absent in ("vs all", "vs random", "random-40", "* recommended"):
        assert absent not in out
    code, out, _ = ranksieve("report", root, *ALONE, "--json")
    rows = json.loads(out)["summary"]
    assert {(row["arm"], row["delta"], row["recommended"]) for row in rows} == {
        ("mixed-40-guard75", None, None)
    }
    code, out, _ = ranksieve("inspect", root)
    assert code == 0
    assert "vs all" not in out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_arm_that_fails_alone_is_exit_code_1(
    ranksieve: Run, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Its error is on stderr; nothing of an earlier run is shown as its result."""
    root = shutil.copytree(small_run, tmp_path / "run")
    (root / "models" / "mixed-40-guard75.txt").unlink()

    def fails(*_: Any, **__: Any) -> Any:
        raise TrainingError("LightGBM crashed (SIGSEGV)")

    monkeypatch.setattr(processes, "run", fails)
    code, out, err = ranksieve("report", root, *ALONE, *options)
    assert code == 1
    assert "LightGBM crashed (SIGSEGV); this arm is left out" in " ".join(err.split())
    assert out == "" if not options else json.loads(out)["summary"] == []
