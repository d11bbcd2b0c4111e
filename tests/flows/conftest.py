"""Real Prefect servers for tests, and processes that end with them."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.samples import write_letor_source

QUICK = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Servers, runners and workers look for work every few seconds, which is a minute or ten seconds as they come.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
}
PATIENCE = 600.0  # seconds on a machine that is busy with other things


def ranksieve(*arguments: object, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line with a Prefect home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.commands", *map(str, arguments)],
        env={**os.environ, "PREFECT_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def background(
    command: list[str], log: Path, *, cwd: Path | None = None, **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a process for the length of the block; what it prints goes to a file."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **QUICK, **environment}, cwd=cwd, stdout=stream, stderr=stream
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def eventually(what: str, look: Callable[[], Any], log: Path | None = None) -> Any:
    """Wait until ``look`` gives something; fails with the end of a log."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    pytest.fail(f"no {what}: {log.read_text()[-3000:] if log else ''}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server on a free port of this machine; it ends with the tests."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    app = "prefect.server.api.server:create_app"
    command = [sys.executable, "-m", "uvicorn", app, "--factory", "--host", "127.0.0.1", "--port", str(port)]
    with background(command, home / "log", PREFECT_HOME=str(home), PREFECT_API_URL=url):

        def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{url}/health", timeout=5).status_code == 200
            return False

        eventually("server", answers, home / "log")
        yield url


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LETOR source."""
    return write_letor_source(tmp_path_factory.mktemp("source") / "small", queries=12, documents=15)
