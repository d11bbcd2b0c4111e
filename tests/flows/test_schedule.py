"""Scheduled and triggered runs on a real Prefect server: a thing is done when a run was seen to complete."""

import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from tests.flows.conftest import PATIENCE, background, eventually

pytestmark = [pytest.mark.flow, pytest.mark.timeout(3 * PATIENCE)]

SETTINGS = ["--arms", "all,random-20", "--set", "ranker.trees=3", "--set", "ranker.min_rows_per_leaf=5"]
SERVE = [sys.executable, "-m", "flows.cli.commands", "serve"]
PREFECT = [sys.executable, "-m", "prefect"]
ENDED = {"COMPLETED", "FAILED", "CRASHED"}


def ended(server: str, **parameters: Any) -> list[dict[str, Any]]:
    """The flow runs with these parameters that have ended."""
    runs = httpx.post(f"{server}/flow_runs/filter", json={"limit": 200}).json()
    mine = [run for run in runs if run["parameters"].items() >= parameters.items()]
    return [run for run in mine if run["state_type"] in ENDED]


def summary_arms(root: Path) -> list[str]:
    """The arms of a run's summary."""
    return pl.read_parquet(root / "summary.parquet")["arm"].unique(maintain_order=True).to_list()


def trigger(server: str, deployment: str, **parameters: Any) -> dict[str, Any]:
    """Trigger a run of a deployment through the API, with changed parameters; wait until it has ended."""
    found = httpx.get(f"{server}/deployments/name/ranksieve/{deployment}").json()
    made = httpx.post(f"{server}/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})
    name = made.json()["id"]

    def look() -> dict[str, Any] | None:
        run: dict[str, Any] = httpx.get(f"{server}/flow_runs/{name}").json()
        return run if run["state_type"] in ENDED else None

    run: dict[str, Any] = eventually("end of a triggered run", look)
    return run


@pytest.mark.parametrize("schedule", [("--cron", "* * * * *"), ("--interval", "3")], ids=["cron", "interval"])
def test_a_served_schedule_completes_runs(
    server: str, source: Path, tmp_path: Path, schedule: tuple[str, str]
) -> None:
    """Started in another directory with a relative source, which stays that source; the second run does nothing."""
    shutil.copytree(source, tmp_path / "here" / "data")
    root, log = tmp_path / "run", tmp_path / "log"
    command = [*SERVE, *schedule, "data", "--out", str(root), *SETTINGS]
    environment = {"PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    with background(command, log, cwd=tmp_path / "here", **environment):
        first = eventually("scheduled run", lambda: ended(server, out=str(root)), log)
        assert {run["state_type"] for run in first} == {"COMPLETED"}, log.read_text()[-3000:]
        assert first[0]["parameters"]["source"] == str(tmp_path / "here" / "data")
        assert summary_arms(root) == ["all", "random-20"]
        if schedule[0] == "--interval":
            before = (root / "summary.parquet").stat().st_mtime_ns
            eventually("second run", lambda: len(ended(server, out=str(root))) > len(first), log)
            assert (root / "summary.parquet").stat().st_mtime_ns == before


def test_a_served_flow_takes_changed_parameters_and_says_why_a_run_failed(
    server: str, source: Path, tmp_path: Path
) -> None:
    """Source, arms, directory, a nested setting; a mistake is one line on the console and in the server's logs."""
    log, other = tmp_path / "log", Path(shutil.copytree(source, tmp_path / "other"))
    (other / "vali.txt").write_text("1 qid:1 1:0.5\n0 qid:1 0:3\n")
    command = [*SERVE, "--cron", "0 2 1 1 *", str(source), "--out", str(tmp_path / "run"), *SETTINGS]
    with background(command, log, PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path)):
        eventually("deployment", lambda: "being served" in log.read_text(), log)
        changed = tmp_path / "changed"
        run = trigger(
            server, "ranksieve", out=str(changed), arms=["all", "top-20"], config={"ranker": {"trees": 2}}
        )
        assert run["state_type"] == "COMPLETED", log.read_text()[-3000:]
        assert summary_arms(changed) == ["all", "top-20"]
        assert "trees = 2\n" in (changed / "config.toml").read_text()
        run = trigger(server, "ranksieve", source=str(other), out=str(tmp_path / "bad"))
        line = f"{other / 'vali.txt'}:2:9: feature index 0 in '0:3'; indexes count from 1, so add 1 to all of them"
        assert (run["state_type"], run["state"]["message"]) == ("FAILED", line)
        told = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        logs = f"{server}/logs/filter"
        eventually("line in the logs", lambda: f"ranksieve: {line}" in httpx.post(logs, json=told).text)
        eventually("line on the console", lambda: f"ranksieve: {line}" in log.read_text(), log)
        assert "Traceback" not in log.read_text()
        assert not (tmp_path / "bad" / "dataset").exists()


def test_a_deployment_completes_on_a_worker_started_elsewhere(
    server: str, source: Path, tmp_path: Path
) -> None:
    """`prefect deploy` of prefect.yaml in a clone of any name, a process worker in another directory."""
    clone = tmp_path / "a clone"
    here = Path(__file__).parents[2]
    clone.mkdir()
    for name in ("flows", "pipeline", "prefect.yaml"):
        (clone / name).symlink_to(here / name)
    (clone / "data").mkdir()
    shutil.copytree(source, clone / "data" / "digits")
    environment = {"PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path), "PWD": str(clone)}
    with background(
        [*PREFECT, "work-pool", "create", "default", "--type", "process"], tmp_path / "pool", **environment
    ) as p:
        p.wait(timeout=PATIENCE)
    deploy = [*PREFECT, "--no-prompt", "deploy", "--all"]
    with background(deploy, tmp_path / "deploy", cwd=clone, **environment) as process:
        assert process.wait(timeout=PATIENCE) == 0, (tmp_path / "deploy").read_text()
    (tmp_path / "elsewhere").mkdir()
    worker, log = [*PREFECT, "worker", "start", "--pool", "default"], tmp_path / "worker"
    with background(worker, log, cwd=tmp_path / "elsewhere", **environment):
        root = tmp_path / "run"
        config = {"ranker": {"trees": 2, "min_rows_per_leaf": 5}}
        run = trigger(server, "nightly", out=str(root), arms=["all", "random-20"], config=config)
        assert run["state_type"] == "COMPLETED", log.read_text()[-3000:]
        assert run["parameters"]["source"] == str(clone / "data" / "digits")
        assert summary_arms(root) == ["all", "random-20"]


def test_the_temporary_server_ends_with_whoever_started_it(source: Path, tmp_path: Path) -> None:
    """Even when that process is killed: nothing is left behind."""
    import psutil

    command = [sys.executable, "-m", "flows.cli.commands", "run", str(source), "--out", str(tmp_path / "run")]
    with background(
        command, tmp_path / "log", PREFECT_HOME=str(tmp_path / "home"), PREFECT_API_URL=""
    ) as process:

        def server_of() -> list[psutil.Process]:
            mine = psutil.Process(process.pid).children(recursive=True)
            return [child for child in mine if "uvicorn" in " ".join(child.cmdline())]

        [child] = eventually("temporary server", server_of, tmp_path / "log")
        process.kill()
        _, alive = psutil.wait_procs([child], timeout=60)
        assert alive == []
