"""The command line: parse, call, print. A user's mistake is one line on stderr and exit code 2."""

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

from flows.body import Outcome, Plain, Stage, body
from pipeline.core.config import Config, override, parse, read_toml
from pipeline.core.errors import RanksieveError, SourceError
from pipeline.core.paths import RunPaths
from pipeline.dataset.letor import must_compile
from pipeline.export.formats import FORMATS, Format
from pipeline.run.defaults import default_root, processors
from pipeline.run.job import Job
from pipeline.run.search import candidates
from pipeline.run.search_job import SearchJob
from pipeline.synthetic.generate import FORMATS as GENERATED

# Outside a terminal nothing says how wide the reader's screen is; the table needs this much.
_OUT = Console(width=None if sys.stdout.isatty() else 130)
_ERR = Console(stderr=True)

_PATH = click.Path(path_type=Path)
DIGITS = [Path(__file__).parents[1] / "digits", Path(__file__).parents[2] / "data" / "digits"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ranksieve")
def cli() -> None:
    """Prepare learning-to-rank training data: keep the negatives that teach, and prove it with NDCG."""


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every running command takes."""
    options = [
        click.option("--config", "config_file", type=_PATH, help="TOML file with settings."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="One setting, such as ranker.trees=300.",
        ),
        click.option(
            "--arms",
            default="",
            metavar="ARM,...",
            help="Arms by name, and no others, instead of the panel: mixed-20-guard75 prepares and trains that"
            " one alone; all,random-20,mixed-20-guard75 compares it with everything and with chance.",
        ),
        click.option(
            "--search",
            is_flag=True,
            help="Find the arms: try many strategies, guards and fractions on the validation lists, with few"
            " trees first, and run the best of them. Settings: search.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="Threads in all; never changes a result.  [default: all]",
        ),
        click.option("--plain", is_flag=True, help="Run without Prefect; same results."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, help="The run's directory.  [default: runs/NAME]")
@_settings
def run(source: Path, out: Path | None, **options: Any) -> None:
    """Do the whole job on SOURCE.

    SOURCE is a directory with train/vali/test, with Fold1..Fold5 or with S1..S5, or one file; LETOR text
    (plain, .gz, .bz2, .xz, .zst) or Parquet; or a .zip or .tar of these, read in place. A run that was
    interrupted goes on where it stopped.
    """
    _run(source, out or default_root(source), **options)


@cli.command()
@click.option(
    "--out",
    type=_PATH,
    default=Path("runs/digits"),
    show_default=True,
    help="The run's directory.",
)
@_settings
def demo(out: Path, **options: Any) -> None:
    """Do the whole job on the handwritten digits that come with ranksieve."""
    source = next((path for path in DIGITS if path.is_dir()), None)
    if source is None:
        raise SourceError("the demo's data is missing; reinstall ranksieve", file=DIGITS[0])
    _run(source, out, **options)


@cli.command()
@click.argument("source", type=_PATH)
@click.option(
    "--out",
    type=_PATH,
    required=True,
    help="Directory to hold dataset/ and manifest.json.",
)
@_settings
def ingest(source: Path, out: Path, **options: Any) -> None:
    """Read SOURCE into Parquet: OUT/dataset."""
    _run(source, out, until=Stage.INGEST, **options)


def _stage(name: str, until: Stage, what: str) -> None:
    """Add a command that brings a run up to one stage."""

    @cli.command(name, help=f"{what} What is intact is not done again.")
    @click.argument("run", type=_PATH)
    @_settings
    def command(run: Path, **options: Any) -> None:
        if not RunPaths(run).config.is_file():
            raise SourceError("not a run (no config.toml); start with `ranksieve run SOURCE`", file=run)
        options["config_file"] = options["config_file"] or RunPaths(run).config
        _run(None, run, until=until, **options)


_stage("score", Stage.SCORE, "Bring RUN up to the scores of its training rows.")
_stage("select", Stage.SELECT, "Bring RUN up to the selections and prepared sets of its arms.")
_stage("train", Stage.TRAIN, "Bring RUN up to the retrained models of its arms.")
_stage("evaluate", Stage.EVALUATE, "Bring RUN up to NDCG and the comparison of its arms.")
_stage("report", Stage.REPORT, "Bring RUN up to its report.")


@cli.command()
@click.argument("source", type=_PATH)
@click.option("--cron", required=True, help='When to run, such as "0 2 * * *".')
@click.option("--out", type=_PATH, help="The run's directory.  [default: runs/NAME]")
@click.option("--config", "config_file", type=_PATH, help="TOML file with settings.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting.")
@click.option(
    "--arms", default="", metavar="ARM,...", help="Arms by name, and no others, instead of the panel."
)
@click.option("--search", is_flag=True, help="Find the arms by trying many on the validation lists.")
@click.option("--threads", type=click.IntRange(1), help="Threads in all.  [default: all]")
def serve(
    source: Path, cron: str, out: Path | None, config_file: Path | None, settings: Sequence[str], arms: str,
    search: bool, threads: int | None,
) -> None:  # fmt: skip
    """Run the job on SOURCE on a schedule, with a Prefect server, until stopped.

    Needs a running server (`prefect server start`), named by PREFECT_API_URL. A run whose inputs have not
    changed does nothing.
    """
    from flows import server

    config = parse(override(read_toml(config_file) if config_file else {}, settings))
    names = _names(arms)
    (SearchJob if search else Job)(source, out or default_root(source), config=config, arms=names).check()
    server.serve(
        cron=cron,
        parameters={
            "source": str(source.resolve()), "out": str((out or default_root(source)).resolve()),
            "config": config.model_dump(mode="json"), "arms": names, "threads": threads,
            "search": search,
        },
    )  # fmt: skip


@cli.command()
@click.argument("path", type=_PATH)
@click.option("--check", is_flag=True, help="Compare every output of a run with its SHA-256, not 1 GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def inspect(path: Path, check: bool, as_json: bool) -> None:
    """Show what is in PATH: a run, a dataset directory, or Parquet files."""
    from flows.cli.inspect_screen import show
    from pipeline.inspect.look import inspect as look
    from pipeline.inspect.runs import CHECK_BYTES

    facts = look(path, check_bytes=None if check else CHECK_BYTES)
    if as_json:
        click.echo(json.dumps(facts, allow_nan=False))
    else:
        show(_OUT, facts)


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--arm", required=True, help="The arm to hand over, such as mixed-20-guard75.")
@click.option("--format", "kind", required=True, type=click.Choice(FORMATS), help="Whose format to write.")
@click.option("--out", required=True, type=_PATH, help="Directory to make.")
@click.option("--fold", type=click.IntRange(1), help="The fold, for a run with folds.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: Path, arm: str, kind: Format, out: Path, fold: int | None, as_json: bool) -> None:
    """Hand an arm of RUN to other tools.

    letor and lightgbm: its prepared set, with the validation and test lists; trec: qrels and run files of
    its model on these lists.
    """
    from flows.cli.export_screen import counting, show_export
    from pipeline.export import formats as exporting

    with counting(_ERR, "rows") as tell:
        facts = exporting.run(run, out, arm=arm, kind=kind, fold=fold, threads=processors(), advance=tell)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show_export(_OUT, out, facts)


@cli.command()
@click.argument("preset")
@click.option("--rows", type=click.IntRange(1), help="Rows to make, over all splits; queries stay whole.")
@click.option("--bytes", "size", metavar="SIZE", help="Text to make, such as 500MB or 1GiB.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of every number.")
@click.option("--out", required=True, type=_PATH, help="Directory to make.")
@click.option("--docs", type=click.IntRange(1), help="Documents per query.  [default: the preset's]")
@click.option("--format", "kind", type=click.Choice(GENERATED), default="letor", show_default=True)
@click.option("--gzip", "compress", is_flag=True, help="Compress the text.")
@click.option("--threads", type=click.IntRange(1), help="Threads; never changes a row.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def generate(
    preset: str, rows: int | None, size: str | None, seed: int, out: Path, docs: int | None, kind: Any,
    compress: bool, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Make up ranking data of any size, for benchmarks and first tries: train, vali and test in OUT.

    PRESET is the shape: mslr, yahoo and istella are like the public sets of these names, long has many
    documents per query, few of them relevant and half of these unjudged. The labels follow from hidden
    traits of the documents, so a ranker has something to learn.
    """
    from flows.cli.generate_screen import progress, show_generated
    from pipeline.synthetic import generate as generating

    target = generating.size(size) if size is not None else None
    with progress(_ERR, target or rows or 0, "rows" if target is None else "bytes") as tell:
        facts = generating.run(
            preset, out, rows=rows, text_bytes=target, seed=seed, documents=docs, kind=kind, compress=compress,
            threads=threads or processors(), advance=tell,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show_generated(_OUT, out, facts)


def _names(arms: str) -> list[str]:
    return [name.strip() for name in arms.split(",") if name.strip()]


def _run(
    source: Path | None, root: Path, *, config_file: Path | None, settings: Sequence[str], arms: str,
    search: bool, threads: int | None, plain: bool, as_json: bool, until: Stage = Stage.REPORT,
) -> None:  # fmt: skip
    from flows.cli.screen import Watch
    from flows.cli.summary_screen import show_search, show_summary

    values = read_toml(config_file) if config_file else {}
    config = parse(override(values, settings), where=str(config_file or "configuration"))
    names = _names(arms)
    watch = Watch(_ERR)
    kind = SearchJob if search else Job
    job = kind(source, root, config=config, threads=threads or processors(), arms=names, observer=watch)
    if config.ranker.device != "cpu":
        _ERR.print(
            f"testing device {config.ranker.device} (the first time can take a minute) ...", style="dim"
        )
    job.check()
    watch.of(job)
    if plain:
        with watch:
            outcome = body(job, Plain(), until=until, command=_command())
    else:
        outcome = _through_prefect(source, root, config, names, job.all_threads, until, watch, search)
    if as_json:
        _print_json(outcome, until, search=search)
    elif outcome.compared:
        if search:
            show_search(_OUT, root)
        show_summary(_OUT, root)
        if until == Stage.REPORT and not (names or search):
            count = len(candidates(config.search))
            _OUT.print(f"  {'wider':14} the same command with --search tries {count} arms", highlight=False)
    elif until < Stage.EVALUATE:
        _OUT.print(f"done: {root}", highlight=False)
    _end(outcome)


@contextlib.contextmanager
def _compiling() -> Iterator[Callable[[], object]]:
    """Compile the text reader beside what else there is to wait for, unless its code is kept; gives what waits for it.

    In a process: while Prefect is imported, another thread's imports would undo its warning filters.
    """
    if not must_compile():
        yield lambda: None
        return
    command = [sys.executable, "-c", "from pipeline.dataset.letor import warm_up; warm_up()"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.wait
        finally:
            process.kill()


def _through_prefect(
    source: Path | None, root: Path, config: Config, arms: list[str], threads: int, until: Stage, watch: Any,
    search: bool,
) -> Outcome:  # fmt: skip
    from flows import server

    with _compiling() as compiled, server.ready(_ERR):
        from flows.prepare import prepare, watched_by

        compiled()

        with watch, watched_by(watch):
            return prepare(
                source=str(source) if source else "", out=str(root), config=config, arms=arms, threads=threads,
                until=int(until), search=search,
            )  # fmt: skip


def _print_json(outcome: Outcome, until: Stage, *, search: bool) -> None:
    """Print SUMMARY where the run was to have one; no rows where every arm failed."""
    import polars as pl

    document: dict[str, Any] = {"run": str(outcome.root)}
    if until >= Stage.EVALUATE:
        summary = RunPaths(outcome.root).summary
        document["summary"] = pl.read_parquet(summary).to_dicts() if outcome.compared else []
    if search and until > Stage.SCORE:
        document["search"] = pl.read_parquet(RunPaths(outcome.root).search).to_dicts()
    click.echo(json.dumps(document))


def _end(outcome: Outcome) -> None:
    """Report arms that LightGBM failed on; the others are complete, so this is not the user's mistake."""
    for failure in outcome.failures:
        _ERR.print(
            f"ranksieve: {failure}; this arm is left out", highlight=False, soft_wrap=True, style="red"
        )
    if outcome.failures:
        sys.exit(1)


def _command() -> str:
    return shlex.join(["ranksieve", *sys.argv[1:]])


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except RanksieveError as error:
        click.echo(f"ranksieve: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("ranksieve: interrupted; the same command goes on where this one stopped", err=True)
        sys.exit(130)


def start() -> None:
    """Run the command line in a process of its own."""
    # LightGBM and numba import them for wrappers and for linear algebra that are not used here, which takes a while.
    for unused in ("sklearn", "scipy.linalg"):
        sys.modules[unused] = None  # type: ignore[assignment]
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for the child processes
    main()


def main() -> None:
    """Run the command line."""
    with _one_line_errors():
        try:
            cli.main(standalone_mode=False)
        except click.exceptions.Abort:
            raise KeyboardInterrupt from None
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    start()
