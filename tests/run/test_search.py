"""A search keeps what the table says is best, ends where a run of its survivors would, and does nothing twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.stages import Outcome, run_pipeline
from pipeline.core import tables
from pipeline.core.config import SearchConfig, parse
from pipeline.core.errors import ConfigError, TrainingError
from pipeline.run import search
from pipeline.run.events import Event, Progress
from pipeline.run.execute import Stage
from tests.samples import write_letor_source

Once = Callable[[str, Callable[[Path], Any]], Path]
SETTINGS: dict[str, Any] = {
    "ranker": {"trees": 9, "min_rows_per_leaf": 5},
    "score": {"folds": 2},
    "evaluate": {"resamples": 100},
    "search": {
        "strategies": ["top", "mixed"], "guards": ["", "guard75"], "fractions": [0.2, 0.4],
        "bags": [1], "keep": 2,
    },
}  # fmt: skip


# ---- The arithmetic ----------------------------------------------------------------------------------------


def trials(*rows: tuple[str, int | None, float | None, str | None]) -> pl.DataFrame:
    """Return the trials of a rung."""
    return pl.DataFrame(
        rows, orient="row",
        schema={"arm": pl.String, "rows": pl.Int64, "ndcg_vali": pl.Float64, "model": pl.String},
    )  # fmt: skip


def test_the_best_are_kept_and_ties_go_to_fewer_rows_then_to_the_first() -> None:
    """Arm d is best; of b, c, e with the same NDCG, c has fewer rows and b comes before e."""
    table = trials(
        ("a", 10, 0.1, "A"),
        ("b", 20, 0.5, "B"),
        ("c", 10, 0.5, "C"),
        ("d", 90, 0.9, "D"),
        ("e", 20, 0.5, "E"),
    )
    ranked = search.promote(table, keep=3)
    assert ranked["arm"].to_list() == ["d", "c", "b", "e", "a"]
    assert ranked["kept"].to_list() == [True, True, True, False, False]


def test_the_same_ranker_is_kept_once_and_a_failed_one_never() -> None:
    """Arm b is a under another name, so c goes on in its place; d and e have no ranker."""
    table = trials(
        ("e", None, None, None),
        ("a", 10, 0.5, "A"),
        ("b", 10, 0.5, "A"),
        ("c", 10, 0.4, "C"),
        ("d", None, None, None),
    )
    ranked = search.promote(table, keep=4)
    assert ranked.filter("kept")["arm"].to_list() == ["a", "c"]
    assert ranked["arm"].to_list() == ["a", "b", "c", "e", "d"]


def test_trees_and_survivors_of_every_rung() -> None:
    """Of 100 trees a ninth and a third, rounded up; of 72 candidates 24 and then 3; never fewer than are kept."""
    config = SearchConfig()
    assert search.trees(config, of=100) == [12, 34]
    assert search.trees(SearchConfig(rungs=3), of=90) == [4, 10, 30]
    assert search.trees(SearchConfig(rungs=4), of=2) == [1]
    assert [search.survivors(config, 72, last=False), search.survivors(config, 24, last=True)] == [24, 3]
    assert search.survivors(config, 4, last=False) == 3


def test_settings_cross() -> None:
    """Two strategies, two guards, a fraction; a bag only where the strategy draws; each by budget."""
    config = SearchConfig(
        strategies=("top", "mixed"), guards=("", "guard50-neardup"), fractions=(0.4, 0.1), bags=(1, 4)
    )
    assert [arm.name for arm in search.candidates(config)] == [
        f"{strategy}-{percent}{suffix}"
        for percent in (10, 40)
        for strategy, suffixes in (
            ("top", ["", "-guard50-neardup"]),
            ("mixed", ["", "-bag4", "-guard50-neardup", "-guard50-neardup-bag4"]),
        )
        for suffix in suffixes
    ]
    assert len(search.candidates(SearchConfig())) == 72


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategies": ("tip",)}, "search.strategies: no strategy 'tip'. Did you mean 'top'?"),
        ({"strategies": ("top-20",)}, "search.strategies: 'top-20' says more than that"),
        ({"strategies": ("top-guard75",)}, "search.strategies: 'top-guard75' says more than that"),
        ({"guards": ("gard75",)}, "search.guards: arm 'random-gard75'"),
        ({"guards": ("guard75-bag4",)}, "search.guards: 'guard75-bag4' says more than that"),
        ({"strategies": ()}, "search crosses to 0 arms, and search.keep = 3 would survive untried"),
        (
            {"strategies": ("top",), "guards": ("",), "fractions": (0.1, 0.2)},
            "search crosses to 2 arms",
        ),
    ],
)
def test_settings_that_do_not_cross_are_one_line(settings: dict[str, Any], message: str) -> None:
    """The line names the setting."""
    with pytest.raises(ConfigError) as caught:
        search.candidates(SearchConfig(**settings))
    assert str(caught.value).startswith(message)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.none() | st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from("ABCD")),
        min_size=1, max_size=12,
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_nothing_kept_is_worse_than_anything_lost(
    rows: list[tuple[int, float | None, str]], keep: int
) -> None:
    """Whatever the table: at most `keep`, each ranker once, and a better one is lost only to its twin."""
    ranked = search.promote(trials(*((str(i), *row) for i, row in enumerate(rows))), keep=keep)
    kept, lost = ranked.filter("kept"), ranked.filter(~pl.col("kept") & pl.col("ndcg_vali").is_not_null())
    assert kept.height == min(keep, ranked.drop_nulls("ndcg_vali")["model"].n_unique())
    assert kept["model"].is_unique().all()
    strangers = lost.filter(~pl.col("model").is_in(kept["model"].to_list()))
    if strangers.height and kept.height:
        assert strangers["ndcg_vali"].max() <= kept["ndcg_vali"].min()  # type: ignore[operator]


# ---- The run -----------------------------------------------------------------------------------------------


def go(
    source: Path | None,
    root: Path,
    *,
    settings: dict[str, Any] = SETTINGS,
    threads: int = 1,
    events: list[Event] | None = None,
    last_stage: Stage = Stage.REPORT,
    progress: Progress = lambda _: None,
) -> Outcome:
    """Search, without Prefect."""
    seen = [] if events is None else events

    def tell(event: Event) -> None:
        seen.append(event)
        progress(event)

    config = parse(settings)
    given = {"threads": threads, "last_stage": last_stage, "progress": tell}
    return run_pipeline(source, root, config=config, search_arms=True, **given)


def results(root: Path) -> dict[str, bytes]:
    """The files whose bytes must never differ."""
    folders = ("search", "selection", "prepared", "models", "metrics")
    files = [file for folder in folders for file in (root / folder).rglob("*") if file.is_file()]
    files += [root / "search.parquet", root / "scores.parquet", root / "metrics.parquet"]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="session")
def source(once: Once) -> Path:
    """A small LETOR source: 12 training queries of 15 documents."""
    return once("search-source", write_letor_source)


@pytest.fixture(scope="session")
def searched(once: Once, source: Path) -> Path:
    """A finished search among eight arms, on two threads, each training a process of its own."""
    return once("search-run", lambda root: go(source, root, threads=2))


def test_rungs_are_those_of_the_tables_and_only_metrics_stay(searched: Path) -> None:
    """8 candidates with 1 tree, the best 3 with 3, by the mean of the METRICS that are left of each trial."""
    tried = pl.read_parquet(searched / "search.parquet")
    assert tried.to_arrow().cast(tables.SEARCH).num_rows == 11
    assert tried.group_by("rung", "trees", maintain_order=True).agg(pl.len()).rows() == [
        (1, 1, 8),
        (2, 3, 3),
    ]
    first, second = tried.filter(rung=1), tried.filter(rung=2)
    assert set(second["arm"]) == set(first.filter("kept")["arm"])
    assert second["kept"].sum() == 2
    for row in tried.to_dicts():
        metrics = pl.read_parquet(searched / "search" / f"rung-{row['rung']}" / f"{row['arm']}.parquet")
        assert set(metrics["split"]) == {"vali"}
        assert row["ndcg_vali"] == pytest.approx(metrics["ndcg"].mean())
    left = [file for file in (searched / "search").rglob("*") if file.is_file()]
    assert len(left) == 11


def test_survivors_are_ordinary_arms_beside_all_and_their_controls(
    searched: Path, source: Path, tmp_path: Path, quick: None
) -> None:
    """Their files, and the summary, are those of a run that names the same arms."""
    tried = pl.read_parquet(searched / "search.parquet")
    survivors = set(tried.filter(pl.col("kept"), rung=2)["arm"])
    arms = pl.read_parquet(searched / "summary.parquet")["arm"].unique(maintain_order=True).to_list()
    controls = {f"random-{name.split('-')[1]}" for name in survivors}
    assert set(arms) == {"all"} | survivors | controls
    plain = {name: value for name, value in SETTINGS.items() if name != "search"}
    run_pipeline(source, tmp_path, config=parse(plain), arms=arms)
    named = {
        file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in (tmp_path / "models").iterdir()
    }
    assert named.items() <= results(searched).items()
    drop = ["train_seconds"]
    ours = pl.read_parquet(searched / "summary.parquet").drop(drop)
    assert ours.equals(pl.read_parquet(tmp_path / "summary.parquet").drop(drop), null_equal=True)


def test_threads_do_not_change_a_byte(searched: Path, source: Path, tmp_path: Path, quick: None) -> None:
    """One thread and one process give what two threads and many processes gave."""
    go(source, tmp_path)
    assert results(tmp_path) == results(searched)


def test_a_second_search_does_nothing(searched: Path, source: Path, tmp_path: Path) -> None:
    """Every step is kept, and the trials are announced rung by rung."""
    root, events = shutil.copytree(searched, tmp_path / "run"), list[Event]()
    go(source, root, events=events)
    assert {event.state for event in events} == {"start", "kept", "ahead"}
    announced = [(event.step, event.rankers) for event in events if event.state == "ahead"]
    assert announced[:3] == [("scoring", 1), ("rung 1 of 2", 8), ("rung 2 of 2", 3)]
    assert announced[3][0] == "training"


def test_a_default_that_is_written_out_makes_no_trial_again(
    searched: Path, source: Path, tmp_path: Path, quick: None
) -> None:
    """Seven leaves are what so small a set has anyway, and a share of trees for bags is nothing to the others."""
    root, events = shutil.copytree(searched, tmp_path / "run"), list[Event]()
    settings = {**SETTINGS, "ranker": {**SETTINGS["ranker"], "leaves": 7, "bag_trees": 0.3}}
    go(source, root, settings=settings, events=events)
    assert [event.step for event in events if event.state == "done"] == ["report"]


class StopError(BaseException):
    """What a watcher raises to interrupt a run, as Ctrl-C does."""


def test_an_interrupted_search_goes_on(searched: Path, source: Path, tmp_path: Path, quick: None) -> None:
    """Stopped amid a trial of each rung, nothing half-made stays, and the trials before are not made again."""
    events: list[Event] = []
    best = pl.read_parquet(searched / "search.parquet")["arm"][0]
    for rung, arm in ((1, "mixed-40"), (2, best)):

        def stops(event: Event, step: str = f"search/rung-{rung}/{arm}") -> None:
            if (event.step, event.state) == (step, "advance"):
                raise StopError

        with pytest.raises(StopError):
            go(source, tmp_path, events=events, progress=stops)
        assert sorted(file.name for file in tmp_path.rglob(".*")) == [".lock", ".steps"]
    go(source, tmp_path, events=events)
    done = [event.step for event in events if event.state == "done"]
    assert len(done) == len(set(done))
    assert results(tmp_path) == results(searched)


def test_a_candidate_that_fails_is_out(searched: Path, source: Path, tmp_path: Path, quick: None) -> None:
    """LightGBM fails on the best of the first rung: it is reported, stands last, and another one goes on."""
    best = pl.read_parquet(searched / "search.parquet")["arm"][0]

    def fails(event: Event) -> None:
        if (event.step, event.state) == (f"search/rung-1/{best}", "start"):
            raise TrainingError(f"arm {best!r}: LightGBM crashed")

    outcome = go(source, tmp_path, last_stage=Stage.SELECT, progress=fails)
    assert outcome.failures == [f"arm {best!r}: LightGBM crashed"]
    first = pl.read_parquet(tmp_path / "search.parquet").filter(rung=1)
    worst = {"rung": 1, "arm": best, "trees": 1, "rows": None, "ndcg_vali": None, "kept": False}
    assert first.row(-1, named=True) == worst
    assert first["kept"].sum() == 3


def test_every_kind_of_arm_can_be_tried(source: Path, tmp_path: Path) -> None:
    """Bags, graded, dynamic, rounds, and one that keeps all but what a guard sets aside."""
    kinds = {
        "strategies": ["mixed-graded", "top-dynamic1", "false-positive-rounds2", "all"], "fractions": [0.5],
        "bags": [1, 2], "guards": ["guard50"], "keep": 1, "rungs": 1,
    }  # fmt: skip
    outcome = go(source, tmp_path, settings={**SETTINGS, "search": kinds}, threads=2, last_stage=Stage.SELECT)
    assert outcome.failures == []
    tried = pl.read_parquet(tmp_path / "search.parquet")
    assert sorted(tried["arm"]) == [
        "all-guard50", "false-positive-50-guard50-rounds2", "mixed-50-guard50-graded",
        "mixed-50-guard50-graded-bag2", "top-50-guard50-dynamic1",
    ]  # fmt: skip
    assert tried["ndcg_vali"].null_count() == 0


def test_folds_are_pooled(tmp_path: Path, quick: None) -> None:
    """Of a source with two folds a trial has METRICS for each, and its rows are those of both."""
    for fold in (1, 2):
        write_letor_source(tmp_path / "source" / f"Fold{fold}", queries=12, documents=6, seed=10 * fold)
    settings = {"search": {**SETTINGS["search"], "guards": [""], "rungs": 1, "keep": 1}}
    root = tmp_path / "run"
    go(tmp_path / "source", root, settings={**SETTINGS, **settings}, last_stage=Stage.SELECT)
    for row in pl.read_parquet(root / "search.parquet").to_dicts():
        files = [root / "search" / "rung-1" / f"fold-{fold}" / f"{row['arm']}.parquet" for fold in (1, 2)]
        values = pl.concat(map(pl.read_parquet, files))["ndcg"].drop_nulls()
        assert row["ndcg_vali"] == pytest.approx(values.mean())
        steps = json.loads((root / "manifest.json").read_text())["steps"]
        rows = [steps[f"search/rung-1/fold-{fold}/{row['arm']}"]["facts"]["rows"] for fold in (1, 2)]
        assert row["rows"] == sum(rows)


def test_named_arms_and_a_search_do_not_go_together(source: Path, tmp_path: Path) -> None:
    """Before any work."""
    with pytest.raises(ConfigError, match="leave out --arms or --search"):
        run_pipeline(source, tmp_path, config=parse(SETTINGS), arms=["all"], search_arms=True)
