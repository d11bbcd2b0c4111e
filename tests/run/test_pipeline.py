"""A run does each thing once, whatever happens to it on the way, and always ends with the same bytes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from flows.stages import Outcome, run_pipeline
from pipeline.core.config import override, parse
from pipeline.core.errors import BusyError, ConfigError, SourceError, StorageError, TrainingError
from pipeline.core.paths import RunPaths
from pipeline.run.events import Event, Progress, Task
from pipeline.run.execute import Stage
from pipeline.run.scope import Dataset, FoldScope
from pipeline.run.steps import initial
from tests.filesystem import fill, small_disk
from tests.samples import write_letor_source

Once = Callable[[str, Callable[[Path], Any]], Path]
ARMS = ["all", "random-20"]  # one trains on the dataset, one on a prepared set
SETTINGS: dict[str, Any] = {
    "ranker": {"trees": 5, "min_rows_per_leaf": 5},
    "score": {"folds": 2, "repeats": 2},
    "evaluate": {"resamples": 100},
}
STEPS = [
    "ingest",
    "initial",
    "scores",
    "selection/all",
    "model/all",
    "metrics/all",
    "selection/random-20",
    "prepared/random-20",
    "model/random-20",
    "metrics/random-20",
    "metrics",
    "summary",
    "report",
]
LAST = {"summary", "report"}
RESCORED = {"scores", "selection/random-20", "prepared/random-20", "report"}


def go(
    source: Path | None,
    root: Path,
    *settings: str,
    threads: int = 1,
    arms: list[str] = ARMS,
    last_stage: Stage = Stage.REPORT,
    progress: Progress = lambda _: None,
) -> Outcome:
    """Run the job to its end, without Prefect."""
    return run_pipeline(
        source,
        root,
        config=parse(override(SETTINGS, settings)),
        threads=threads,
        arms=arms,
        last_stage=last_stage,
        progress=progress,
        command="ranksieve run",
    )


def ran(source: Path | None, root: Path, *settings: str, **options: Any) -> set[str]:
    """Run the job; return the steps that were not kept."""
    events: list[Event] = []
    go(source, root, *settings, progress=events.append, **options)
    return {event.step for event in events if event.state == "done"}


def contents(root: Path) -> dict[str, bytes]:
    """The bytes that must never differ: all but the lock, and what holds seconds of training."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name != ".lock" and not is_record(p, root)]
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in files}
    summary = pl.read_parquet(root / "summary.parquet").drop("train_seconds")
    return {**found, "summary.parquet": summary.write_csv().encode(), "report.html": b""}


def is_record(path: Path, root: Path) -> bool:
    """Whether a file holds seconds and memory, which differ from run to run."""
    return path.name == "manifest.json" or path.relative_to(root).parts[0] == ".steps"


def leftovers(root: Path) -> list[str]:
    """Hidden files that are neither the lock nor records."""
    return [p.name for p in root.rglob(".*") if p.name not in (".lock", ".steps")]


@pytest.fixture(scope="session")
def source(once: Once) -> Path:
    """A small LETOR source: 12 training queries of 15 documents."""
    return once("job-source", write_letor_source)


@pytest.fixture(scope="session")
def finished(once: Once, source: Path) -> Path:
    """A run that nothing happened to, on one thread."""

    def make(root: Path) -> None:
        assert ran(source, root) == set(STEPS)
        assert leftovers(root) == []

    return once("job-run", make)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ---- Doing nothing twice ---------------------------------------------------------------------------------


def test_a_second_run_does_nothing(source: Path, copy: Path) -> None:
    """Every step is kept and no file is written, the resolved settings included."""

    def states() -> dict[Path, tuple[int, int]]:
        files = [p for p in copy.rglob("*") if p.name != ".lock" and p.is_file()]
        return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}

    before, events = states(), list[Event]()
    assert go(source, copy, progress=events.append) == Outcome(copy, compared=True)
    assert states() == before
    assert [event.step for event in events if event.state == "kept"] == STEPS
    assert {event.state for event in events} == {"start", "kept", "ahead"}


def test_stage_by_stage_is_the_same_as_at_once(
    source: Path, finished: Path, tmp_path: Path, quick: None
) -> None:
    """Each stage goes on from the last one, without the source, and the bytes are those of one run."""
    root = tmp_path / "run"
    assert ran(source, root, last_stage=Stage.INGEST) == {"ingest"}
    assert ran(None, root, last_stage=Stage.SCORE) == {"initial", "scores"}
    selected = {"selection/all", "selection/random-20", "prepared/random-20"}
    assert ran(None, root, last_stage=Stage.SELECT) == selected
    assert ran(None, root, last_stage=Stage.TRAIN) == {"model/all", "model/random-20"}
    assert ran(None, root, last_stage=Stage.EVALUATE) == {
        "metrics/all",
        "metrics/random-20",
        "metrics",
        "summary",
    }
    assert ran(None, root) == {"report"}
    assert contents(root) == contents(finished)


def test_threads_do_not_change_a_byte(source: Path, finished: Path, tmp_path: Path) -> None:
    """Scores, selections, models, metrics: two threads, each training a process of its own, give the same."""
    go(source, tmp_path / "run", threads=2)
    assert contents(tmp_path / "run") == contents(finished)


# ---- Damage ----------------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    """Lose a file."""
    path.unlink()


def alter(path: Path) -> None:
    """Change one byte in the middle, which leaves the size as it was."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Lose the end of a file, as a disk without power does."""
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [delete, alter, truncate])
@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("dataset/train/part-00000.parquet", {"ingest"}),
        ("dataset/test/part-00000.parquet", {"ingest"}),
        ("dataset/dataset.json", {"ingest"}),
        ("models/initial-1.txt", {"initial"}),
        ("models/initial-2.txt", {"initial"}),
        ("scores.parquet", {"scores"}),
        ("selection/random-20.parquet", {"selection/random-20"}),
        ("prepared/random-20/part-00000.parquet", {"prepared/random-20"}),
        ("models/random-20.txt", {"model/random-20", *LAST}),  # another training took other seconds
        ("metrics/all.parquet", {"metrics/all"}),
        ("metrics.parquet", {"metrics"}),
        ("summary.parquet", {"summary"}),
        ("report.html", {"report"}),
        ("config.toml", set()),
    ],
)
def test_a_damaged_output_is_made_again_and_nothing_else(
    source: Path, finished: Path, copy: Path, name: str, again: set[str], damage: Callable[[Path], None],
    quick: None,
) -> None:  # fmt: skip
    """One step runs; its output has the bytes it had, so nothing that depends on it needs to run."""
    damage(copy / name)
    done = ran(source, copy)
    # Another training may take as many milliseconds, and then the tables say the same.
    assert done == again or ("model/random-20" in again and done == again - LAST)
    assert contents(copy) == contents(finished)
    assert ran(source, copy) == set()


def test_lost_records_cost_a_full_run(source: Path, finished: Path, copy: Path, quick: None) -> None:
    """Without records nothing is taken on trust."""
    shutil.rmtree(copy / ".steps")
    assert ran(source, copy) == set(STEPS)
    assert contents(copy) == contents(finished)


@pytest.mark.parametrize("damage", [delete, truncate, lambda path: path.write_bytes(b"[]")])
def test_a_damaged_record_costs_its_step(
    source: Path, finished: Path, copy: Path, damage: Callable[[Path], None], quick: None
) -> None:
    """The step is done again, with the same bytes; nothing else is."""
    damage(copy / ".steps" / "prepared" / "random-20.json")
    assert ran(source, copy) == {"prepared/random-20"}
    assert contents(copy) == contents(finished)


def test_the_manifest_is_the_union_of_the_records(source: Path, copy: Path, quick: None) -> None:
    """It is written when a run ends, well or badly; nothing reads it."""
    (copy / "manifest.json").write_text("not JSON")
    assert ran(source, copy) == set()
    steps = json.loads((copy / "manifest.json").read_text())["steps"]
    assert sorted(steps) == sorted(STEPS)
    assert all(record["host"] and record["versions"] for record in steps.values())
    (copy / "models" / "all.txt").unlink()
    (copy / "manifest.json").unlink()
    with pytest.raises(TrainingError):
        go(source, copy, progress=fails_on("all"))
    assert sorted(json.loads((copy / "manifest.json").read_text())["steps"]) == sorted(STEPS)


# ---- Settings and data that change -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("evaluate.cutoffs=[1,5]", {"metrics/all", "metrics/random-20", "metrics", *LAST}),
        ("evaluate.resamples=200", LAST),
        ("ranker.trees=6", set(STEPS) - {"ingest", "selection/all"}),  # `all` is not chosen by score
        ("seed=2", set(STEPS) - {"ingest"}),
        # Other scores do not change a random choice: the prepared set has the same bytes, its model is kept.
        ("score.folds=3", {"initial", *RESCORED}),
        ("score.repeats=1", {"initial", "scores", *RESCORED}),
        ("score.scoring='in-sample'", {"initial", *RESCORED}),
        ("select.skip=0.1", {"report"}),  # no arm here skips; the report lists every setting
        ("split.vali=0.1", {"report"}),  # this source comes with a validation list
        ("ingest.missing='nan'", {"ingest", "report"}),  # every row names every feature: the same dataset
        ("ingest.sentinel=-99", {"ingest", "report"}),  # a value that is not there
    ],
)
def test_a_setting_runs_what_depends_on_it(
    source: Path, copy: Path, quick: None, setting: str, again: set[str]
) -> None:
    """Other steps are kept, and with the same setting once more all of them."""
    assert ran(source, copy, setting) == again
    assert ran(source, copy, setting) == set()


def test_another_row_runs_everything(source: Path, tmp_path: Path, copy: Path, quick: None) -> None:
    """A training file that changed is another source; one that only moved is not."""
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    assert ran(moved, copy) == set()
    lines = (moved / "train.txt").read_text().splitlines(keepends=True)
    (moved / "train.txt").write_text("".join(lines[1:]))
    assert ran(moved, copy) == set(STEPS)


def test_an_arm_more_costs_only_itself(source: Path, copy: Path, quick: None) -> None:
    """The others' selections, models and metrics are kept; without it again, only the tables are rewritten."""
    more = ran(source, copy, arms=[*ARMS, "top-20"])
    top = {"selection/top-20", "prepared/top-20", "model/top-20", "metrics/top-20"}
    assert more == {*top, "metrics", *LAST}
    assert ran(source, copy) == {"metrics", *LAST}


def test_an_arm_alone_is_trained_alone(source: Path, finished: Path, tmp_path: Path, quick: None) -> None:
    """Neither `all` nor a control joins it; its files are those it has among others."""
    root = tmp_path / "run"
    alone = {step for step in STEPS if not step.endswith("/all")}
    assert ran(source, root, arms=["random-20"]) == alone
    whole = contents(finished)
    for name in (
        "prepared/random-20/part-00000.parquet",
        "models/random-20.txt",
        "metrics/random-20.parquet",
    ):
        assert contents(root)[name] == whole[name]
    both = {"selection/all", "model/all", "metrics/all", "metrics", *LAST}
    assert ran(source, root) == both
    assert contents(root) == whole


def test_all_alone_needs_no_scores(source: Path, finished: Path, tmp_path: Path, quick: None) -> None:
    """Nothing is scored for the arm that keeps every row, and its files are those it has among others."""
    root = tmp_path / "run"
    steps = {"ingest", "selection/all", "model/all", "metrics/all", "metrics", *LAST}
    assert ran(source, root, arms=["all"]) == steps
    for name in ("selection/all.parquet", "models/all.txt", "metrics/all.parquet"):
        assert (root / name).read_bytes() == (finished / name).read_bytes()
    with pytest.raises(ConfigError, match="name an arm that chooses"):
        go(source, root, arms=["all"], last_stage=Stage.SCORE)


# ---- Interruption ----------------------------------------------------------------------------------------


class StopHereError(BaseException):
    """What a listener raises to interrupt a run, as Ctrl-C does."""


def stop_at(step: str, state: str) -> Progress:
    """Return a listener that interrupts the run at one event."""

    def watch(event: Event) -> None:
        if (event.step, event.state) == (step, state):
            raise StopHereError

    return watch


def test_a_run_stopped_at_the_start_of_every_step(
    source: Path, finished: Path, tmp_path: Path, quick: None
) -> None:
    """Stopped once at each step, with another arm under way beside it: nothing half-made stays."""
    root = tmp_path / "run"
    for step in STEPS:
        with pytest.raises(StopHereError):
            go(source, root, threads=2, progress=stop_at(step, "start"))
        assert leftovers(root) == []
    assert ran(source, root, threads=2) == {"report"}
    assert contents(root) == contents(finished)


def test_a_run_stopped_after_every_step_that_ran(
    source: Path, finished: Path, tmp_path: Path, quick: None
) -> None:
    """Stopped whenever something was done, a run gets to its end by small steps, and does none of them twice."""
    root, done = tmp_path / "run", list[str]()

    def watch(event: Event) -> None:
        if event.state == "done":
            done.append(event.step)
            raise StopHereError

    for _ in STEPS:
        with contextlib.suppress(StopHereError):
            go(source, root, progress=watch)
        assert leftovers(root) == []
    assert sorted(done) == sorted(STEPS)
    assert contents(root) == contents(finished)


def test_an_interrupt_in_the_middle_of_a_step_leaves_nothing(
    source: Path, finished: Path, tmp_path: Path, quick: None
) -> None:
    """Stopped while writing, a step has no output at all, and is done from its beginning."""
    root = tmp_path / "run"
    with pytest.raises(StopHereError):
        go(source, root, progress=stop_at("ingest", "advance"))
    assert leftovers(root) == []
    assert not (root / "dataset").exists()
    go(source, root)
    assert contents(root) == contents(finished)


VICTIM = """
import signal, sys, time
from pathlib import Path
from flows.stages import run_pipeline
from pipeline.core.config import Config
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background process of some shells
source, root, config, arms, threads = sys.argv[1:]

def tell(event):
    print(event.state, event.step, flush=True)
    if event.state == "start" and event.step.startswith("model/"):
        time.sleep(60)  # time enough to end it

run_pipeline(Path(source), Path(root), config=Config.model_validate_json(config), threads=int(threads),
             arms=arms.split(","), progress=tell, command="the victim")
"""


@pytest.fixture
def victim(source: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the job in a process of its own; it is killed at the end, if it is still there."""
    started: list[subprocess.Popen[str]] = []

    def start(threads: int, *settings: str) -> "subprocess.Popen[str]":
        config = parse(override(SETTINGS, settings)).model_dump_json()
        arguments = [str(source), str(tmp_path / "run"), config, ",".join(ARMS), str(threads)]
        command = [sys.executable, "-c", VICTIM, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
        )
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def test_a_killed_run_goes_on(
    source: Path,
    finished: Path,
    tmp_path: Path,
    victim: Callable[..., "subprocess.Popen[str]"],
    quick: None,
) -> None:
    """SIGKILL as two trainings begin: worker processes end too, the lock is free, finished steps are kept."""
    process = victim(2)
    assert process.stdout is not None
    wanted = {"start model/all\n", "start model/random-20\n"}
    for line in process.stdout:
        wanted.discard(line)
        if not wanted:
            break
    with pytest.raises(BusyError, match=rf"in use by process {process.pid} \(the victim\) since "):
        go(source, tmp_path / "run")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    again = ran(source, tmp_path / "run")
    assert {"model/all", "model/random-20"} <= again
    assert not {"ingest", "initial", "scores", "selection/all"} & again
    assert leftovers(tmp_path / "run") == []
    assert contents(tmp_path / "run") == contents(finished)


def test_a_run_killed_while_it_reads_goes_on(
    source: Path,
    finished: Path,
    tmp_path: Path,
    victim: Callable[..., "subprocess.Popen[str]"],
    quick: None,
) -> None:
    """SIGKILL in the first step leaves a half dataset, which the next run sweeps away."""
    process = victim(1)
    assert process.stdout is not None
    assert process.stdout.readline() == "start ingest\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    go(source, tmp_path / "run")
    assert leftovers(tmp_path / "run") == []
    assert contents(tmp_path / "run") == contents(finished)


def test_two_runs_at_once(source: Path, copy: Path) -> None:
    """The second one is refused, and the first one does not notice."""
    refused: list[BusyError] = []

    def second(event: Event) -> None:
        if (event.step, event.state) == ("scores", "start"):
            with pytest.raises(BusyError) as caught:
                go(source, copy)
            refused.append(caught.value)

    assert ran(source, copy) == set()
    go(source, copy, progress=second)
    assert f"in use by process {os.getpid()} (ranksieve run) since " in str(refused[0])


# ---- A source that is gone -------------------------------------------------------------------------------


def test_a_run_goes_on_when_its_source_is_gone(source: Path, copy: Path, tmp_path: Path, quick: None) -> None:
    """What was read once need not be read again: the same command works, and so does one without the source."""
    mine = Path(shutil.copytree(source, tmp_path / "mine"))
    shutil.rmtree(copy / ".steps")
    go(mine, copy)
    shutil.rmtree(mine)
    assert ran(mine, copy) == set()
    assert ran(None, copy, "ranker.trees=6") == set(STEPS) - {"ingest", "selection/all"}


def test_another_source_that_is_not_there_is_a_mistake(copy: Path, tmp_path: Path) -> None:
    """A slip in the name does not end in a report about other data."""
    with pytest.raises(SourceError, match="no such file or directory"):
        go(tmp_path / "slip", copy)


def test_a_damaged_dataset_without_its_source_is_not_used(copy: Path) -> None:
    """Nobody can make it again, so the run stops before it trains on it."""
    alter(copy / "dataset" / "train" / "part-00000.parquet")
    with pytest.raises(StorageError, match="dataset: not as it was ingested; run again with its SOURCE"):
        go(None, copy)


def test_ingest_settings_cannot_change_without_the_source(copy: Path) -> None:
    """config.toml never says what the dataset is not; settings that did not shape it are free."""
    before = (copy / "config.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"ingest decided how .* was made: run again with its SOURCE"):
        go(None, copy, "ingest.missing='nan'")
    assert (copy / "config.toml").read_bytes() == before
    assert ran(None, copy, "split.vali=0.1") == {"report"}


def test_a_seed_that_split_a_file_cannot_change_without_it(source: Path, tmp_path: Path) -> None:
    """For one file the seed says which queries are held out: a new seed needs the file."""
    go(source / "train.txt", tmp_path / "run", last_stage=Stage.INGEST)
    with pytest.raises(ConfigError, match="seed decided how"):
        go(None, tmp_path / "run", "seed=2", last_stage=Stage.INGEST)
    assert ran(source / "train.txt", tmp_path / "run", "seed=2", last_stage=Stage.INGEST) == {"ingest"}


def test_no_dataset_and_no_source(tmp_path: Path) -> None:
    """There is nothing to go on from."""
    with pytest.raises(SourceError, match="no dataset here; start with"):
        go(None, tmp_path)


# ---- Folds -----------------------------------------------------------------------------------------------


def test_partitions_run_as_five_folds(tmp_path: Path, quick: None) -> None:
    """Each fold trains on three partitions and tests on another: every query is in one test list."""
    data = tmp_path / "data"
    made = write_letor_source(tmp_path / "made", queries=20, documents=8)
    lines = (made / "train.txt").read_text().splitlines(keepends=True)
    data.mkdir()
    for number in range(5):  # four queries of eight documents each
        (data / f"S{number + 1}.txt").write_text("".join(lines[32 * number : 32 * (number + 1)]))
    settings = ("score.scoring='in-sample'", "ranker.trees=2")
    go(data, tmp_path / "run", *settings, threads=2)
    root = tmp_path / "run"
    metrics = pl.read_parquet(root / "metrics.parquet").filter(
        pl.col("split") == "test", pl.col("cutoff") == 10
    )
    assert metrics.group_by("arm", "fold").len().sort("arm", "fold")["len"].to_list() == [4] * 10
    for arm in ("all", "random-20"):
        assert metrics.filter(pl.col("arm") == arm)["qid"].sort().to_list() == list(range(1, 21))
    for number in range(1, 6):
        fold = root / f"fold-{number}"
        names = {p.relative_to(fold).as_posix() for p in fold.rglob("*") if p.is_file()}
        assert names == {
            "scores.parquet", "selection/all.parquet", "selection/random-20.parquet",
            "prepared/random-20/part-00000.parquet", "models/initial.txt", "models/all.txt",
            "models/random-20.txt", "metrics/all.parquet", "metrics/random-20.parquet", "metrics.parquet",
        }  # fmt: skip
    trained = pl.read_parquet(root / "fold-4" / "scores.parquet")["qid"].unique().sort().to_list()
    assert trained == [1, 2, 3, 4, *range(13, 21)]  # S4, S5, S1
    summary = pl.read_parquet(root / "summary.parquet").filter(pl.col("split") == "test")
    assert summary["queries"].unique().to_list() == [20]
    assert ran(data, root, *settings) == set()
    (root / "fold-3" / "models" / "all.txt").unlink()
    assert ran(data, root, *settings) == {"fold-3/model/all", *LAST}


# ---- Trainings that fail ---------------------------------------------------------------------------------


def fails_on(*arms: str) -> Progress:
    """Return a listener that lets the training of some arms fail as it starts."""

    def watch(event: Event) -> None:
        if event.state == "start" and event.step in {f"model/{arm}" for arm in arms}:
            arm = event.step.partition("/")[2]
            raise TrainingError(f"training arm {arm!r}: LightGBM crashed (SIGSEGV)")

    return watch


@pytest.mark.parametrize("failed", ["top-20", "random-20"])
def test_an_arm_that_fails_is_left_out(source: Path, copy: Path, quick: None, failed: str) -> None:
    """The others are complete and compared, the control of the rest being the arm that failed or not."""
    arms = [*ARMS, "top-20"]
    (copy / "models" / "random-20.txt").unlink()
    outcome = go(source, copy, arms=arms, progress=fails_on(failed))
    assert outcome.failures == [f"training arm {failed!r}: LightGBM crashed (SIGSEGV)"]
    left = [arm for arm in arms if arm != failed]
    for name in ("summary", "metrics"):
        assert pl.read_parquet(copy / f"{name}.parquet")["arm"].unique(maintain_order=True).to_list() == left
    assert (copy / "report.html").is_file()
    assert f"model/{failed}" in ran(source, copy, arms=arms)
    summary = pl.read_parquet(copy / "summary.parquet")
    assert summary["arm"].unique(maintain_order=True).to_list() == arms


def test_an_arm_that_fails_alone_leaves_nothing_to_compare(source: Path, copy: Path, quick: None) -> None:
    """Its error is reported, and what an earlier run found stays."""
    before = contents(copy)
    (copy / "models" / "random-20.txt").unlink()
    outcome = go(source, copy, arms=["random-20"], progress=fails_on("random-20"))
    assert outcome.failures == ["training arm 'random-20': LightGBM crashed (SIGSEGV)"]
    assert not outcome.compared
    assert before.items() - contents(copy).items() == {
        ("models/random-20.txt", before["models/random-20.txt"])
    }


def test_a_baseline_asked_for_cannot_be_left_out(source: Path, copy: Path, quick: None) -> None:
    """Who names `all` wants the others compared with it: the run ends with its error."""
    (copy / "models" / "all.txt").unlink()
    with pytest.raises(TrainingError, match="training arm 'all'"):
        go(source, copy, progress=fails_on("all"))


def test_a_failed_initial_ranker_ends_the_run(source: Path, copy: Path) -> None:
    """Nothing can be selected without scores; what was there stays."""
    (copy / "models" / "initial-1.txt").unlink()

    def watch(event: Event) -> None:
        if (event.step, event.state) == ("initial", "start"):
            raise TrainingError("training the initial rankers: LightGBM crashed (SIGSEGV)")

    with pytest.raises(TrainingError, match="initial rankers"):
        go(source, copy, progress=watch)
    assert leftovers(copy) == []


@pytest.mark.parametrize("setting", ["score.repeats=3", "score.scoring='in-sample'"])
def test_progress_of_the_initial_rankers_adds_up(source: Path, copy: Path, setting: str, quick: None) -> None:
    """When all trees of all rankers are told, the work done is the work announced."""
    config = parse(override(SETTINGS, [setting]))
    [fold] = Dataset.of(RunPaths(copy)).folds
    at = FoldScope(RunPaths(copy), fold, config)
    told: list[float] = []
    task = Task("initial", [], 1, lambda event: told.append(event.amount))
    tell = task.trees_done(at.initial_rows / at.initial_rankers)
    for done in (1, at.initial_rankers * at.initial_settings.trees):
        tell(done)
    assert sum(told) == pytest.approx(initial(at).cost)


# ---- The disk --------------------------------------------------------------------------------------------


def full_at(step: str, filler: Path) -> Progress:
    """Return a listener that leaves not a byte free on the disk of ``filler`` when ``step`` starts."""

    def watch(event: Event) -> None:
        if (event.step, event.state) == (step, "start"):
            fill(filler)

    return watch


def test_a_full_disk_at_every_step_loses_nothing(source: Path, finished: Path, quick: None) -> None:
    """Whichever step meets it, the run ends in one line, and goes on once there is space."""
    with small_disk(megabytes=2) as disk:
        root = disk / "run"
        for step in STEPS:
            with pytest.raises(
                StorageError, match="the disk is full; free some space and run again"
            ) as caught:
                go(source, root, progress=full_at(step, disk / "filler"))
            assert "\n" not in str(caught.value)
            assert ".tmp-" not in str(caught.value)
            assert leftovers(root) == []
            (disk / "filler").unlink()
        assert ran(source, root) == {"report"}
        assert contents(root) == contents(finished)


def test_a_full_disk_met_by_a_training_process(source: Path, finished: Path) -> None:
    """The process that trains says so to its parent: the same line, and the last good model of each arm."""
    with small_disk(megabytes=2) as disk:
        root = Path(shutil.copytree(finished, disk / "run"))
        (root / "models" / "all.txt").unlink()
        with pytest.raises(StorageError) as caught:
            go(source, root, progress=full_at("model/all", disk / "filler"))
        assert str(caught.value) == (
            f"training arm 'all': {root}/models/all.txt: the disk is full; free some space and run again,"
            " finished steps are kept"
        )
        assert leftovers(root) == []
        (disk / "filler").unlink()
        assert ran(source, root) == {"model/all", *LAST}
        assert contents(root) == contents(finished)


def test_a_read_only_run_is_one_line(source: Path, finished: Path) -> None:
    """A finished run on a disk that became read-only cannot be held, and is left as it is."""
    with small_disk(megabytes=2) as disk:
        root = Path(shutil.copytree(finished, disk / "run"))
        mount = shutil.which("mount") or "mount"
        subprocess.run([mount, "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="read-only; choose another directory with --out"):
            go(source, root)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------


def test_an_interrupted_run_does_not_wait_for_its_trainings(
    source: Path, tmp_path: Path, victim: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """Ctrl-C amid a training ends run and training at once, not when the last tree is done."""
    process = victim(2, "ranker.trees=100000", "score.trees=100000")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "start initial\n":
            break
    run, deadline = psutil.Process(process.pid), time.monotonic() + 20
    while len(trainings := run.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # until they are what they will be
    try:
        for training in trainings:
            training.suspend()  # as good as one that takes for ever
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=200) == -signal.SIGINT
        _, alive = psutil.wait_procs(trainings, timeout=20)
        assert alive == []
    finally:
        for training in trainings:
            with contextlib.suppress(psutil.NoSuchProcess):
                training.kill()
    assert leftovers(tmp_path / "run") == []
