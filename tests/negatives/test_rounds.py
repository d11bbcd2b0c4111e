"""Arms with rounds: what each round adds, the ranker of the last one, and the run's files."""

import json

import numpy as np
import polars as pl
import pytest

from flows.stages import run_pipeline
from pipeline.core.config import SelectConfig, parse
from pipeline.core.paths import RunPaths
from pipeline.core.records import read_record
from pipeline.negatives import arms
from pipeline.negatives.select import Selector
from pipeline.ranker import binning as binned
from pipeline.ranker.fit import bin_rows, parameters
from pipeline.run.scope import ArmScope, Dataset, FoldScope
from tests.conftest import SMALL
from tests.negatives.test_dynamic import CONFIG, frame_of, run, scores_like, split
from tests.samples import scores_of, write_letor_source

__all__ = ["split"]

ARM = arms.parse("false-positive-20-guard75-rounds3")
SELECT = SelectConfig()


def test_a_round_adds_to_what_was_kept_by_hand():
    """A positive at 0.5 and n = 1: what round 1 kept stays, though it is no mistake any more."""
    scores = scores_of((1, [1, 0, 0, 0, 0], [0.5, 0.9, 0.8, 0.2, 0.1]))
    selector = Selector(scores, arms.parse("false-positive-n1-rounds2"), config=SELECT, seed=1)
    first = selector.selection()
    assert first["kept"].to_list() == [True, True, False, False, False]
    first_kept_round = pl.Series("first_kept_round", [None, 1, None, None, None], dtype=pl.UInt8)
    later = selector.selection(
        np.array([0.5, 0.1, 0.2, 0.9, 0.6]), round=1, first_kept_round=first_kept_round
    )
    assert later["kept"].to_list() == [True, True, False, True, False]
    assert later["reason"].to_list() == [
        "positive",
        "kept since round 1",
        "too easy",
        "false positive",
        "too easy",
    ]
    assert later["weight"].to_list() == [1, 1, 0, 1, 0]
    assert later["neg_rank"].to_list() == [None, 4, 3, 1, 2]


def test_both_ways_of_choosing_agree_and_the_limit_holds():
    """``choose`` keeps the rows of ``selection`` when earlier ones are added and a query is too long."""
    scores = scores_like(frame_of())
    selector = Selector(scores, arms.parse("top-60-rounds2"), config=SELECT, seed=3, max_query_rows=10)
    kept, _ = selector.choose()
    mask = np.isin(np.arange(scores.height), kept) & (scores["label"].to_numpy() == 0)
    first_kept_round = pl.Series("first_kept_round", mask.astype(np.uint8)).replace(0, None)
    other = -scores["score"].to_numpy()
    places, weight = selector.choose(other, round=1, first_kept_round=first_kept_round)
    chosen = selector.selection(other, round=1, first_kept_round=first_kept_round)
    assert places.tolist() == np.flatnonzero(chosen["kept"].to_numpy()).tolist()
    assert set(weight) == {1.0}
    assert {"kept since round 1", "over limit"} <= set(chosen["reason"])
    assert chosen.filter("kept").group_by("qid").len()["len"].max() == 10


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    """Return the directory and the facts of the arm's training on one thread."""
    out = tmp_path_factory.mktemp("rounds")
    return out, run(split, out, arm=ARM)


def test_agrees_with_lightgbm_called_directly(split, trained):
    """Select, train from nothing, predict and add, three times, gives the model, the rows and the scores."""
    lightgbm = pytest.importorskip("lightgbm")
    out, facts = trained
    frame = frame_of()
    scores = scores_like(frame)
    features = frame.select("f1", "f2", "f3", "f4").to_numpy()
    settings = {**parameters(CONFIG, seed=7), "num_threads": 1}
    full = binned.build([split / "train.parquet"], parameters=settings)
    once = arms.parse("false-positive-20-guard75")
    kept = np.zeros(frame.height, dtype=bool)
    went_by = scores["score"].to_numpy()
    sizes = []
    for number in range(3):
        selector = Selector(scores, once, config=SELECT, seed=7)
        kept |= selector.selection(went_by, round=number)["kept"].to_numpy()
        sizes.append(kept.sum())
        places = np.flatnonzero(kept)
        queries = frame[places]["qid"].rle().struct.field("len").to_numpy().astype(np.int32)
        booster = lightgbm.train(settings, binned.take(full, places, queries), num_boost_round=9)
        if number < 2:
            went_by = booster.predict(features, num_threads=1)
    assert sizes[0] < sizes[1] < sizes[2] == facts["rows"]
    trees = (out / "model.txt").read_text().split("\nend of trees")[0]
    assert trees == booster.model_to_string().split("\nend of trees")[0]
    ranked = pl.read_parquet(out / "ranked.parquet")
    np.testing.assert_allclose(ranked["score"].to_numpy(), went_by, rtol=1e-12)
    assert ranked["first_kept_round"].value_counts().filter(pl.col("first_kept_round").is_not_null()).sort(
        "first_kept_round"
    ).rows() == [
        (1, sizes[0] - (frame["label"] > 0).sum()),
        (2, sizes[1] - sizes[0]),
    ]
    assert (facts["trees"], facts["rounds"]) == (9, 3)


def test_bytes_do_not_depend_on_threads_and_kept_bins(split, trained, tmp_path):
    """Two threads and a binary file of the bins give the model and the scores of one thread and none."""
    out, _ = trained
    bin_rows([split / "train.parquet"], tmp_path / "bins", config=CONFIG, threads=1)
    run(split, tmp_path, arm=ARM, threads=2, bins=tmp_path / "bins")
    for name in ("model.txt", "ranked.parquet"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_early_stopping_looks_at_each_ranker_anew(split, tmp_path):
    """Each ranker stops for itself, and the next choice goes by the trees that were kept of the one before."""
    lightgbm = pytest.importorskip("lightgbm")
    config = CONFIG.model_copy(update={"trees": 300, "learning_rate": 0.5, "early_stopping": 5})
    arm = arms.parse("top-60-rounds2")
    facts = run(split, tmp_path, arm=arm, config=config, vali=[split / "vali.parquet"])
    assert 0 < facts["trees"] < 290
    assert (tmp_path / "model.txt").read_text().count("\nTree=") == facts["trees"]
    frame = frame_of()
    first = Selector(scores_like(frame), arms.parse("top-60"), config=SELECT, seed=7).selection()
    settings = {**parameters(config, seed=7), "num_threads": 1}
    full = binned.build([split / "train.parquet"], parameters=settings)
    kept = first.with_row_index("place").filter("kept")
    queries = kept["qid"].rle().struct.field("len").to_numpy().astype(np.int32)
    booster = lightgbm.train(
        settings, binned.take(full, kept["place"].to_numpy(), queries), num_boost_round=300
    )
    features = frame.select("f1", "f2", "f3", "f4").to_numpy()
    went_by = pl.read_parquet(tmp_path / "ranked.parquet")["score"].to_numpy()
    near = [
        np.allclose(went_by, booster.predict(features, num_iteration=n, num_threads=1), rtol=1e-9, atol=1e-9)
        for n in range(1, 301)
    ]
    assert sum(near) == 1
    assert near.index(True) < 290


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a finished run with an arm with rounds, and what was told of it."""
    where = tmp_path_factory.mktemp("run")
    source = write_letor_source(where / "source", queries=24, documents=12)
    events = []
    names = ["false-positive-20-guard75-rounds3"]
    given = {"config": parse(SMALL), "threads": 2, "arms": names}
    run_pipeline(source, where / "run", **given, progress=events.append)
    return where / "run", events


def test_a_run_keeps_what_the_last_round_trained_on(whole):
    """SELECTION, the prepared set and the training's facts are of the same rows, and say why."""
    root, name = whole[0], "false-positive-20-guard75-rounds3"
    selection = pl.read_parquet(root / "selection" / f"{name}.parquet")
    prepared = pl.concat([pl.read_parquet(file) for file in (root / "prepared" / name).glob("*.parquet")])
    assert prepared["row_id"].to_list() == selection.filter("kept")["row_id"].to_list()
    assert read_record(root, f"model/{name}").facts["rows"] == prepared.height
    assert set(selection.filter("kept")["reason"]) > {"positive", "kept since round 1"}
    assert selection["score"].equals(pl.read_parquet(root / "scores" / f"{name}.parquet")["score"])


def test_progress_counts_the_trees_of_all_rounds(whole):
    """The work told while the arm trains is at most what was announced for it, and most of it."""
    root, events = whole
    step = "model/false-positive-20-guard75-rounds3"
    (announced,) = (event.amount for event in events if event.step == step and event.state == "start")
    at = FoldScope(RunPaths(root), Dataset.of(RunPaths(root)).folds[0], parse(SMALL))
    assert announced == ArmScope(at, arms.parse(step.partition("/")[2])).rows * 15
    assert (
        sum(event.amount for event in events if event.step == step and event.state == "advance") <= announced
    )


def test_work_counts_the_rows_that_each_round_asks_for(tmp_path):
    """A hundred rows, 20 positive, and 10 % for three rounds: 28, 36 and 44 rows, 100 trees each."""
    splits = {"train": {"rows": 100, "negatives": 80, "queries": 5}, "vali": {}, "test": {}}
    run = RunPaths(tmp_path)
    run.dataset.mkdir()
    run.dataset_card.write_text(json.dumps({"splits": splits}))
    at = FoldScope(run, Dataset.of(run).folds[0], parse({}))
    of = ArmScope(at, arms.parse("false-positive-10-rounds3"))
    assert of.rows == pytest.approx((28 + 36 + 44) / 3)
    assert of.cost == pytest.approx(of.rows * 300)
