"""What tests of whole runs share."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.ranker import processes, worker


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: the same models without a second and a half for each process."""

    def here(
        _module: str, job: dict[str, Any], *, trees_done: Callable[[int], None] | None = None, **_: Any
    ) -> dict[str, Any]:
        answer = worker.train(job)
        if trees_done is not None:
            trees_done(len(job["trainings"]) * job["trees"])
        return answer

    monkeypatch.setattr(processes, "run", here)
