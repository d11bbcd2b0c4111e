"""A Prefect API to run against: the configured server if it answers, else a temporary one; and schedules."""

import atexit
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pipeline.core.errors import ConfigError

_START_SECONDS: Final = 180
_QUIET: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The console gets ranksieve's own words; a server's logs and the UI still get everything.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
}
_NOT_NEEDED: Final = (
    "PREFECT_SERVER_UI_ENABLED",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED",
)
"""What a server for one run does without."""
_STARTING: Final = "starting a temporary Prefect server (--plain runs without one) ..."
_TEMPORARY: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
import uvicorn
app = "prefect.server.api.server:create_app"
uvicorn.run(app, factory=True, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
"""
"""A server that ends when whoever started it closes the pipe to it, or dies."""


def quiet() -> None:
    """Set what Prefect reads when it is imported: offline, no telemetry, no console noise."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def ready(console: Console) -> Callable[[], None]:
    """Have a Prefect API until this process ends; returns what waits until it answers.

    A temporary server starts at once, so that there is time for imports before it is waited for.
    """
    quiet()
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    url = PREFECT_API_URL.value()
    if url and _answers(url):
        return lambda: None
    if url:
        warning = f"the Prefect server at {url} does not answer; using a temporary one"
        console.print(warning, style="yellow", highlight=False)
    return _start(Path(PREFECT_HOME.value()), console)


def _start(home: Path, console: Console) -> Callable[[], None]:
    """Start a temporary server; one at a time, because two first starts race in the database's migration."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **dict.fromkeys(_NOT_NEEDED, "false"), "PREFECT_API_URL": url}
    # Nobody watches for heartbeats here, and the thread that sends them takes a second to end.
    settings = {PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    stack = contextlib.ExitStack()
    # Prefect's own exit handlers, registered later, run first and send what is left to the server.
    atexit.register(stack.close)
    lock = stack.enter_context((home / ".ranksieve-start").open("w"))
    with console.status(_STARTING):
        fcntl.flock(lock, fcntl.LOCK_EX)
    log = stack.enter_context((home / ".ranksieve-server.log").open("w+"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _TEMPORARY, str(port)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    stack.callback(_end, process)
    stack.enter_context(temporary_settings(settings))

    def wait() -> None:
        with console.status(_STARTING):
            _wait_for(url, process, Path(log.name))
        lock.close()

    return wait


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(
                f"the temporary Prefect server does not start; {log} says why, and --plain runs without one"
            )
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let a server end in good order, or else at once."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(*, cron: str | None, every: float | None, parameters: dict[str, Any]) -> None:
    """Serve the flow on a schedule until stopped.

    Args:
        cron: When to run, as a cron line; None: by ``every``.
        every: Seconds between runs.
        parameters: Of each run.

    Raises:
        ConfigError: No server is configured or it does not answer, or the schedule is not a cron line.
    """
    # Runs are processes of their own and inherit this: what they log is what the serving console shows.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    quiet()
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url or not _answers(url):
        raise ConfigError(
            f"a schedule needs a Prefect server, and {url or 'none is configured'}{' does not answer' if url else ''};"
            " start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    from prefect.client.schemas.schedules import CronSchedule

    from flows.prepare import prepare

    try:
        if cron is not None:
            CronSchedule(cron=cron)
    except ValueError:
        raise ConfigError(
            f'--cron {cron!r}: not a schedule; write five fields, such as "0 2 * * *"'
        ) from None
    schedule = {"cron": cron} if cron is not None else {"interval": every}
    # One at a time: a run that takes longer than the schedule allows lets the next one wait.
    prepare.serve(name="ranksieve", parameters=parameters, limit=1, print_starting_message=True, **schedule)


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
