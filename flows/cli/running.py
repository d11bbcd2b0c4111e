"""Run the job for a command, through Prefect or without, and show what came of it."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flows.cli.progress import ProgressDisplay, follow
from flows.stages import Outcome, run_pipeline
from pipeline.core.config import Config, override, parse, read_toml
from pipeline.core.errors import SourceError
from pipeline.core.paths import RunPaths
from pipeline.dataset.sources import Source
from pipeline.run import start
from pipeline.run.execute import Stage

# Outside a terminal nothing says how wide the reader's screen is; the table needs this much.
OUT = Console(width=None if sys.stdout.isatty() else 130)
ERR = Console(stderr=True)


@dataclass(frozen=True)
class Asked:
    """The options that every running command takes."""

    config_file: Path | None
    settings: Sequence[str]
    arms: str
    search_arms: bool
    threads: int | None

    @property
    def config(self) -> Config:
        """The settings of a file, and of ``--set`` on top."""
        values = read_toml(self.config_file) if self.config_file else {}
        return parse(override(values, self.settings), where=str(self.config_file or "configuration"))

    @property
    def names(self) -> list[str]:
        """The arms of ``--arms``."""
        return [name.strip() for name in self.arms.split(",") if name.strip()]

    def check(self, source: Path | None, root: Path, last_stage: Stage) -> Source | None:
        """Find the source, and raise what can be known to be wrong before any work."""
        panel = start.arms_of(self.config, self.names, search_arms=self.search_arms)
        return start.check(RunPaths(root), source, self.config, panel, last_stage=last_stage)


def run(
    source: Path | None,
    root: Path,
    *,
    plain: bool,
    as_json: bool,
    last_stage: Stage = Stage.REPORT,
    **options: Any,
) -> None:
    """Run the job and print what came of it; exits with 1 when an arm failed."""
    asked = Asked(**options)
    config = asked.config
    if config.ranker.device != "cpu":
        waiting = f"testing device {config.ranker.device} (the first time can take a minute) ..."
        ERR.print(waiting, style="dim")
    located = asked.check(source, root, last_stage)
    reading = sum(file.stat().st_size for file in located.files) if located else None
    threads = asked.threads or start.processors()
    given: dict[str, Any] = {
        "config": config,
        "arms": asked.names,
        "threads": threads,
        "last_stage": last_stage,
    }
    with follow(RunPaths(root).events, ProgressDisplay(ERR, reading)):
        if plain:
            command = shlex.join(["ranksieve", *sys.argv[1:]])
            outcome = run_pipeline(source, root, **given, search_arms=asked.search_arms, command=command)
        else:
            outcome = _through_prefect(source, root, **given, search=asked.search_arms)
    if as_json:
        _print_json(outcome, last_stage, search_arms=asked.search_arms)
    else:
        _print(outcome, last_stage, asked)
    _end(outcome)


def _through_prefect(source: Path | None, root: Path, **given: Any) -> Outcome:
    from flows import server

    answers = server.ready(ERR)
    from flows.prepare import prepare

    answers()
    outcome: Outcome = prepare(source=str(source or ""), out=str(root), **given)
    return outcome


def _print(outcome: Outcome, last_stage: Stage, asked: Asked) -> None:
    if outcome.compared:
        from flows.cli.summary_screen import show_search, show_summary
        from pipeline.run.search import candidates

        if asked.search_arms:
            show_search(OUT, outcome.root)
        show_summary(OUT, outcome.root)
        if last_stage is Stage.REPORT and not (asked.names or asked.search_arms):
            count = len(candidates(asked.config.search))
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


def serve(source: Path, out: Path | None, *, cron: str | None, every: float | None, **options: Any) -> None:
    """Serve the flow on a schedule, once the settings and the source are known to be good."""
    from flows import server

    asked, root = Asked(**options), out or start.default_root(source)
    asked.check(source, root, Stage.REPORT)
    parameters = {
        "source": str(source.resolve()),
        "out": str(root.resolve()),
        "config": asked.config.model_dump(mode="json"),
        "arms": asked.names,
        "threads": asked.threads,
        "search": asked.search_arms,
    }
    server.serve(cron=cron, every=every, parameters=parameters)
