"""A Prefect API to run against: the configured server if it answers, else a temporary one."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.core.errors import ConfigError

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The console gets ranksieve's own words; a server's logs and the UI still get everything.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_PROMPT": "false",
}


def quiet() -> None:
    """Set what Prefect reads when it is imported: offline, no telemetry, no console noise."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def ready(console: Console) -> Iterator[None]:
    """Have a Prefect API that answers for the length of the block."""
    quiet()
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    url = PREFECT_API_URL.value()
    if url and not _answers(url):
        console.print(
            f"the Prefect server at {url} does not answer; using a temporary one",
            style="yellow",
            highlight=False,
        )
        url = None
    with contextlib.ExitStack() as stack:
        if not url:
            stack.enter_context(
                temporary_settings(
                    {},
                    restore_defaults={PREFECT_API_URL},
                )
            )
            with console.status("starting a temporary Prefect server (--plain runs without one) ..."):
                _start(Path(PREFECT_HOME.value()))
        yield


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
    prepare.serve(name="ranksieve", parameters=parameters, print_starting_message=True, **schedule)


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _start(home: Path) -> None:
    """Start the temporary server; one at a time, because two first starts race in the database's migration."""
    from prefect.client.orchestration import get_client

    home.mkdir(parents=True, exist_ok=True)
    with (home / ".ranksieve-start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with get_client(sync_client=True) as client:
            client.hello()
