"""The command line: parse, call, print. A user's mistake is one line on stderr and exit code 2.

Importing this module imports little; what a command needs it imports when it is called.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

DIGITS: Final = (Path(__file__).parents[1] / "digits", Path(__file__).parents[2] / "data" / "digits")
EXPORTED: Final = ("letor", "lightgbm", "trec")
GENERATED: Final = ("letor", "parquet")

_PATH = click.Path(path_type=Path)
_THREADS = click.IntRange(1)
Command = Callable[..., Any]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ranksieve")
def cli() -> None:
    """Prepare learning-to-rank training data: keep the negatives that teach, and prove it with NDCG."""


_RUN_OPTIONS: Final = (
    click.option("--config", "config_file", type=_PATH, help="TOML file with settings."),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting, ranker.trees=300."
    ),
    click.option(
        "--arms",
        default="",
        metavar="ARM,...",
        help="Arms by name, and no others, instead of the panel: mixed-20-guard75 prepares and trains that one"
        " alone; all,random-20,mixed-20-guard75 compares it with everything and with chance.",
    ),
    click.option(
        "--search",
        "search_arms",
        is_flag=True,
        help="Find the arms: try many strategies, guards and fractions on the validation lists, with few trees"
        " first, and run the best of them. Settings: search.",
    ),
    click.option("--threads", type=_THREADS, help="Threads in all; never changes a result.  [default: all]"),
)
_PLAIN: Final = click.option("--plain", is_flag=True, help="Run without Prefect; same results.")
_ALWAYS_PLAIN: Final = click.option("--plain", is_flag=True, hidden=True)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@cli.command()
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, help="The run's directory.  [default: runs/NAME]")
@_options(*_RUN_OPTIONS, _PLAIN, _JSON)
def run(source: Path, out: Path | None, **options: Any) -> None:
    """Do the whole job on SOURCE.

    SOURCE is a directory with train/vali/test, with Fold1..Fold5 or with S1..S5, or one file; LETOR text
    (plain, .gz, .bz2, .xz, .zst) or Parquet; or a .zip or .tar of these. A run that was interrupted goes on where
    it stopped.
    """
    _say_what_runs(source)
    from flows.cli import running
    from pipeline.run.start import default_root

    running.run(source, out or default_root(source), **options)


@cli.command()
@click.option(
    "--out", type=_PATH, default=Path("runs/digits"), show_default=True, help="The run's directory."
)
@_options(*_RUN_OPTIONS, _PLAIN, _JSON)
def demo(out: Path, **options: Any) -> None:
    """Do the whole job on the handwritten digits that come with ranksieve."""
    source = next((path for path in DIGITS if path.is_dir()), None)
    if source is None:
        from pipeline.core.errors import SourceError

        raise SourceError("the demo's data is missing; reinstall ranksieve", file=DIGITS[0])
    _say_what_runs(source)
    from flows.cli import running

    running.run(source, out, **options)


def _say_what_runs(source: Path) -> None:
    """Say on a terminal what happens, before what takes a while to import."""
    if sys.stderr.isatty():
        click.secho(f"ranksieve: {source} ...", dim=True, err=True)


@cli.command()
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Directory to hold dataset/ and manifest.json.")
@_options(*_RUN_OPTIONS, _ALWAYS_PLAIN, _JSON)
def ingest(source: Path, out: Path, plain: bool, **options: Any) -> None:
    """Read SOURCE into Parquet: OUT/dataset."""
    del plain
    from flows.cli import running
    from pipeline.run.execute import Stage

    running.run(source, out, last_stage=Stage.INGEST, plain=True, **options)


def _stage_command(name: str, what: str) -> None:
    """Add a command that brings a run up to one stage."""

    @cli.command(name, help=f"{what} What is intact is not done again.")
    @click.argument("run", type=_PATH)
    @_options(*_RUN_OPTIONS, _ALWAYS_PLAIN, _JSON)
    def command(run: Path, plain: bool, **options: Any) -> None:
        del plain
        from flows.cli import running
        from pipeline.run.execute import Stage

        running.bring_up(run, Stage(name), plain=True, **options)


_stage_command("score", "Bring RUN up to the scores of its training rows.")
_stage_command("select", "Bring RUN up to the selections and prepared sets of its arms.")
_stage_command("train", "Bring RUN up to the retrained models of its arms.")
_stage_command("evaluate", "Bring RUN up to NDCG and the comparison of its arms.")
_stage_command("report", "Bring RUN up to its report.")


@cli.command()
@click.argument("source", type=_PATH)
@click.option("--cron", metavar="LINE", help='When to run, such as "0 2 * * *".')
@click.option("--interval", "every", type=click.FloatRange(1), metavar="SECONDS", help="How often to run.")
@click.option("--out", type=_PATH, help="The run's directory.  [default: runs/NAME]")
@_options(*_RUN_OPTIONS)
def serve(source: Path, cron: str | None, every: float | None, out: Path | None, **options: Any) -> None:
    """Run the job on SOURCE on a schedule, with a Prefect server, until stopped.

    Needs --cron or --interval, and a running server (`prefect server start`), named by PREFECT_API_URL. A run whose
    inputs have not changed does nothing.
    """
    if (cron is None) == (every is None):
        raise click.UsageError('give --cron "0 2 * * *" or --interval SECONDS, one of them')
    from flows.cli import running

    running.serve(source, out, cron=cron, every=every, **options)


@cli.command()
@click.argument("path", type=_PATH)
@click.option("--check", is_flag=True, help="Compare every output of a run with its SHA-256, not 1 GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def inspect(path: Path, check: bool, as_json: bool) -> None:
    """Show what is in PATH: a run, a dataset directory, or Parquet files."""
    from flows.cli.inspect_screen import show
    from flows.cli.running import OUT
    from pipeline.inspect.look import inspect as look
    from pipeline.inspect.runs import CHECK_BYTES

    facts = look(path, check_bytes=None if check else CHECK_BYTES)
    if as_json:
        click.echo(json.dumps(facts, allow_nan=False))
    else:
        show(OUT, facts)


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--arm", required=True, help="The arm to hand over, such as mixed-20-guard75.")
@click.option("--format", "kind", required=True, type=click.Choice(EXPORTED), help="Whose format to write.")
@click.option("--out", required=True, type=_PATH, help="Directory to make.")
@click.option("--fold", type=click.IntRange(1), help="The fold, for a run with folds.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: Path, arm: str, kind: Any, out: Path, fold: int | None, as_json: bool) -> None:
    """Hand an arm of RUN to other tools.

    letor and lightgbm: its prepared set, with the validation and test lists; trec: qrels and run files of
    its model on these lists.
    """
    from flows.cli.files_screen import counting, show_export
    from flows.cli.running import ERR, OUT
    from pipeline.export import formats
    from pipeline.run.start import processors

    with counting(ERR, "rows") as tell:
        facts = formats.run(run, out, arm=arm, kind=kind, fold=fold, threads=processors(), advance=tell)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show_export(OUT, out, facts)


@cli.command()
@click.argument("preset")
@click.option("--rows", type=click.IntRange(1), help="Rows to make, over all splits; queries stay whole.")
@click.option("--bytes", "size", metavar="SIZE", help="Text to make, such as 500MB or 1GiB.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of every number.")
@click.option("--out", required=True, type=_PATH, help="Directory to make.")
@click.option(
    "--docs", "documents", type=click.IntRange(1), help="Documents per query.  [default: the preset's]"
)
@click.option("--format", "kind", type=click.Choice(GENERATED), default="letor", show_default=True)
@click.option("--gzip", "compress", is_flag=True, help="Compress the text.")
@click.option("--threads", type=_THREADS, help="Threads; never changes a row.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def generate(
    preset: str,
    rows: int | None,
    size: str | None,
    out: Path,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make up ranking data of any size, for benchmarks and first tries: train, vali and test in OUT.

    PRESET is the shape: mslr, yahoo and istella are like the public sets of these names, long has many
    documents per query, few of them relevant and half of these unjudged. The labels follow from hidden
    traits of the documents, so a ranker has something to learn.
    """
    from flows.cli.files_screen import counting, show_generated
    from flows.cli.running import ERR, OUT
    from pipeline.run.start import processors
    from pipeline.synthetic import generate as generating

    target = generating.size(size) if size is not None else None
    given = {**options, "rows": rows, "text_bytes": target, "threads": threads or processors()}
    with counting(ERR, "rows" if target is None else "bytes", total=target or rows or 0) as tell:
        facts = generating.run(preset, out, **given, advance=tell)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show_generated(OUT, out, facts)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("ranksieve: interrupted; the same command goes on where this one stopped", err=True)
        sys.exit(130)
    except Exception as error:
        from pipeline.core.errors import RanksieveError

        if not isinstance(error, RanksieveError):
            raise
        click.echo(f"ranksieve: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


def start() -> None:
    """Run the command line in a process of its own."""
    # LightGBM and numba import it for linear algebra that is not used here, which takes a while.
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for the worker processes
    main()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    with _one_line_errors():
        try:
            cli.main(arguments, standalone_mode=False)
        except click.exceptions.Abort:
            raise KeyboardInterrupt from None
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    start()
