"""Run the job for a command, through Prefect or without, and show what came of it."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flows.cli.progress import ProgressDisplay, follow
from flows.stages import Outcome, run_pipeline
from pipeline.core.config import Config, override, parse, read_toml
from pipeline.core.errors import SourceError
from pipeline.core.paths import RunPaths
from pipeline.dataset.letor import must_compile
from pipeline.run import start
from pipeline.run.execute import Stage

# Outside a terminal nothing says how wide the reader's screen is; the table needs this much.
OUT = Console(width=None if sys.stdout.isatty() else 130)
ERR = Console(stderr=True)


def config_of(config_file: Path | None, settings: Sequence[str]) -> Config:
    """Return the settings of a file, and of ``--set`` on top."""
    values = read_toml(config_file) if config_file else {}
    return parse(override(values, settings), where=str(config_file or "configuration"))


def names_of(arms: str) -> list[str]:
    """Return the arms of ``--arms``."""
    return [name.strip() for name in arms.split(",") if name.strip()]


def run(
    source: Path | None,
    root: Path,
    *,
    config_file: Path | None,
    settings: Sequence[str],
    arms: str,
    search_arms: bool,
    threads: int | None,
    plain: bool,
    as_json: bool,
    last_stage: Stage = Stage.REPORT,
) -> None:
    """Run the job and print what came of it; exits with 1 when an arm failed."""
    config, names = config_of(config_file, settings), names_of(arms)
    panel = start.arms_of(config, names, search_arms=search_arms)
    if config.ranker.device != "cpu":
        waiting = f"testing device {config.ranker.device} (the first time can take a minute) ..."
        ERR.print(waiting, style="dim")
    located = start.check(RunPaths(root), source, config, panel, last_stage=last_stage)
    reading = sum(file.stat().st_size for file in located.files) if located else None
    given: dict[str, Any] = {
        "config": config,
        "arms": names,
        "threads": threads or start.processors(),
        "last_stage": last_stage,
    }
    with follow(RunPaths(root).events, ProgressDisplay(ERR, reading)):
        if plain:
            command = shlex.join(["ranksieve", *sys.argv[1:]])
            outcome = run_pipeline(source, root, **given, search_arms=search_arms, command=command)
        else:
            outcome = _through_prefect(source, root, given, search_arms=search_arms)
    if as_json:
        _print_json(outcome, last_stage, search_arms=search_arms)
    else:
        _print(outcome, last_stage, names=names, config=config, search_arms=search_arms)
    _end(outcome)


def _through_prefect(source: Path | None, root: Path, given: dict[str, Any], *, search_arms: bool) -> Outcome:
    from flows import server

    answers = server.ready(ERR)
    with _compiling() as compiled:
        from flows.prepare import prepare

        compiled()
        answers()
        outcome: Outcome = prepare(source=str(source or ""), out=str(root), **given, search=search_arms)
        return outcome


@contextlib.contextmanager
def _compiling() -> Iterator[Callable[[], object]]:
    """Compile the text reader while Prefect starts, unless that is done; gives what waits for it.

    In a process: while Prefect is imported, another thread's imports would undo its warning filters.
    """
    if not must_compile():
        yield lambda: None
        return
    command = [sys.executable, "-P", "-c", "from pipeline.dataset.letor import warm_up; warm_up()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process.wait
        finally:
            process.kill()


def _print(
    outcome: Outcome, last_stage: Stage, *, names: Sequence[str], config: Config, search_arms: bool
) -> None:
    if outcome.compared:
        from flows.cli.summary_screen import show_search, show_summary
        from pipeline.run.search import candidates

        if search_arms:
            show_search(OUT, outcome.root)
        show_summary(OUT, outcome.root)
        if last_stage is Stage.REPORT and not (names or search_arms):
            count = len(candidates(config.search))
            OUT.print(f"  {'wider':14} the same command with --search tries {count} arms", highlight=False)
    elif not last_stage.reaches(Stage.EVALUATE):
        OUT.print(f"done: {outcome.root}", highlight=False, soft_wrap=True)


def _print_json(outcome: Outcome, last_stage: Stage, *, search_arms: bool) -> None:
    """Print SUMMARY where the run was to have one; no rows where every arm failed."""
    import polars as pl

    document: dict[str, Any] = {"run": str(outcome.root)}
    if last_stage.reaches(Stage.EVALUATE):
        summary = RunPaths(outcome.root).summary
        document["summary"] = pl.read_parquet(summary).to_dicts() if outcome.compared else []
    if search_arms and last_stage.reaches(Stage.SELECT):
        document["search"] = pl.read_parquet(RunPaths(outcome.root).search).to_dicts()
    click.echo(json.dumps(document))


def _end(outcome: Outcome) -> None:
    """Report arms that LightGBM failed on; the others are complete, so this is not the user's mistake."""
    for failure in outcome.failures:
        line = f"ranksieve: {failure}; this arm is left out"
        ERR.print(line, highlight=False, soft_wrap=True, style="red")
    if outcome.failures:
        sys.exit(1)


def bring_up(root: Path, last_stage: Stage, *, config_file: Path | None, **options: Any) -> None:
    """Bring a run up to a stage, from its own settings where none are given."""
    paths = RunPaths(root)
    if not paths.config.is_file():
        raise SourceError("not a run (no config.toml); start with `ranksieve run SOURCE`", file=root)
    run(None, root, last_stage=last_stage, config_file=config_file or paths.config, **options)


def serve(
    source: Path,
    out: Path | None,
    *,
    cron: str | None,
    every: float | None,
    config_file: Path | None,
    settings: Sequence[str],
    arms: str,
    search_arms: bool,
    threads: int | None,
) -> None:
    """Serve the flow on a schedule, once the settings and the source are known to be good."""
    from flows import server

    config, names, root = config_of(config_file, settings), names_of(arms), out or start.default_root(source)
    panel = start.arms_of(config, names, search_arms=search_arms)
    start.check(RunPaths(root), source, config, panel)
    parameters = {
        "source": str(source.resolve()),
        "out": str(root.resolve()),
        "config": config.model_dump(mode="json"),
        "arms": names,
        "threads": threads,
        "search": search_arms,
    }
    server.serve(cron=cron, every=every, parameters=parameters)
