"""Dynamic arms: what each round chooses, the trees of the rounds together, and the run's files."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.stages import run_pipeline
from pipeline.core import tables
from pipeline.core.config import RankerConfig, SelectConfig, parse
from pipeline.core.errors import TableError, TrainingError
from pipeline.dataset import parts
from pipeline.inspect.look import inspect
from pipeline.negatives import arms, dynamic, select
from pipeline.negatives.dynamic_worker import with_scores
from pipeline.negatives.select import Selector
from pipeline.negatives.strategies import STRATEGIES
from pipeline.negatives.training import Training
from pipeline.ranker import binning
from pipeline.ranker.boosting import scores_of
from pipeline.ranker.fit import bin_rows, parameters
from tests.conftest import SMALL
from tests.samples import judgments, write_letor_source, write_part

CONFIG = RankerConfig(trees=9, leaves=5, min_rows_per_leaf=5)
SELECT = SelectConfig()
ARM = arms.parse("mixed-40-guard75-dynamic2")
RUN = {"config": parse(SMALL), "threads": 2, "arms": [ARM.name]}


def frame_of(queries=30, rows=15, *, seed=1):
    """Return JUDGMENTS with document ids."""
    frame = judgments(queries, rows, seed=seed)
    return frame.with_columns(doc_id=pl.format("d{}", pl.col("row_id") % 97))


def scores_like(frame, *, seed=0):
    """Return SCORES that know something of the labels."""
    noise = np.random.default_rng(seed).normal(size=frame.height)
    return frame.select(
        "row_id", "qid", "label", score=pl.col("label") + pl.Series(noise), fold=pl.lit(0, pl.Int16)
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Return a directory with ``train.parquet``, ``vali.parquet`` and ``scores.parquet``."""
    where = tmp_path_factory.mktemp("dynamic")
    frame = frame_of()
    write_part(where / "train.parquet", frame)
    write_part(where / "vali.parquet", frame_of(20, seed=2))
    # SCORES in another order than the rows: they are joined by key.
    parts.write_table(
        where / "scores.parquet", scores_like(frame).reverse(), tables.scores(qid=tables.QID_INT)
    )
    return where


def run(split, out, *, arm=ARM, config=CONFIG, threads=1, vali=(), bins=None, trees_done=None):
    """Train a dynamic arm on ``split``; returns its facts, with ``model.txt`` and ``ranked.parquet`` in ``out``."""
    files, scores = [split / "train.parquet"], split / "scores.parquet"
    options = {"arm": arm, "select": SELECT, "config": config, "seed": 7, "vali": vali, "cutoff": 5}
    options |= {"bins": bins, "threads": threads, "trees_done": trees_done}
    return dynamic.run(files, scores, out / "model.txt", out / "ranked.parquet", **options)


# ---- Choosing again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"all"}))
@pytest.mark.parametrize("guards", ["", "-guard50", "-neardup-skip10"])
def test_a_choice_is_the_selection_without_its_reasons(strategy, guards):
    """In every round ``choose`` keeps the rows and weights of ``selection``, under new scores, too."""
    frame = frame_of()
    scores = scores_like(frame)
    arm = arms.parse(f"{strategy}-30{guards}")
    selector = Selector(scores, arm, config=SELECT, seed=3, training=Training.of_table(frame))
    first = select.select(scores, arm, config=SELECT, seed=3, training=Training.of_table(frame))
    assert selector.selection().equals(first)
    other = np.round(np.random.default_rng(5).normal(size=frame.height), 1)  # with ties
    for score, number in ((None, 0), (other, 0), (other, 4)):
        places, weight = selector.choose(score, round=number)
        chosen = selector.selection(score, round=number)
        assert places.tolist() == np.flatnonzero(chosen["kept"].to_numpy()).tolist()
        np.testing.assert_array_equal(weight, chosen.filter("kept")["weight"].to_numpy())


def test_guards_keep_to_the_first_scores():
    """What out-of-fold scores set aside stays aside however low the growing ranker ranks it."""
    scores = scores_like(frame_of())
    selector = Selector(scores, arms.parse("top-50-guard50"), config=SELECT, seed=3)
    first, later = selector.selection(), selector.selection(-scores["score"].to_numpy(), round=1)
    guarded = [rows.filter(pl.col("reason") == "guarded")["row_id"].to_list() for rows in (first, later)]
    assert guarded[0] == guarded[1]
    assert len(guarded[0]) == 15
    hardest = later.filter(pl.col("reason") == "hard").group_by("qid").agg(pl.col("score").min()).sort("qid")
    easiest = (
        later.filter(pl.col("reason") == "too easy").group_by("qid").agg(pl.col("score").max()).sort("qid")
    )
    both = hardest.join(easiest, on="qid")
    assert (both["score"] >= both["score_right"]).all()


def test_rounds_draw_afresh_and_ties_stay():
    """The same scores give other random negatives in another round, and the same hardest ones."""
    scores = scores_like(frame_of()).with_columns(pl.col("score").round())
    selector = Selector(scores, arms.parse("mixed-40"), config=SELECT, seed=3)
    rounds = [selector.selection(round=number) for number in (0, 1, 1)]
    assert rounds[1].equals(rounds[2])
    for reason, same in (("hard", True), ("random", False)):
        kept = [rows.filter(pl.col("reason") == reason)["row_id"].to_list() for rows in rounds]
        assert (kept[0] == kept[1]) == same


def test_long_queries_lose_rows_in_every_round():
    """A query with more rows than LightGBM takes fits after each choice, and both ways agree on the rows."""
    scores = scores_like(frame_of())
    selector = Selector(scores, arms.parse("top-100"), config=SELECT, seed=3, max_query_rows=10)
    for number in (0, 1):
        places, _ = selector.choose(round=number)
        chosen = selector.selection(round=number)
        assert places.tolist() == np.flatnonzero(chosen["kept"].to_numpy()).tolist()
        assert chosen.filter("kept").group_by("qid").len()["len"].max() == 10


# ---- The ranker --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    """Return the directory and the facts of the arm's training on one thread."""
    out = tmp_path_factory.mktemp("trained")
    return out, run(split, out)


def test_bytes_do_not_depend_on_threads_and_kept_bins(split, trained, tmp_path):
    """Two threads and a binary file of the bins give the model and the scores of one thread and none."""
    out, facts = trained
    bin_rows([split / "train.parquet"], tmp_path / "bins", config=CONFIG, threads=1)
    again = run(split, tmp_path, threads=2, bins=tmp_path / "bins")
    for name in ("model.txt", "ranked.parquet"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    assert {k: facts[k] for k in ("trees", "rounds", "rows")} == {
        k: again[k] for k in ("trees", "rounds", "rows")
    }
    assert (facts["trees"], facts["rounds"]) == (9, 5)
    assert (out / "model.txt").read_text().count("\nTree=") == 9


@pytest.mark.parametrize(
    ("name", "trees"), [("mixed-40-dynamic100", 400), ("false-positive-40-rounds2", 800)]
)
def test_progress_counts_each_tree_once(split, tmp_path, name, trees):
    """No more trees are told than are trained, over all rounds."""
    told = []
    config = CONFIG.model_copy(update={"trees": 400})
    run(split, tmp_path, arm=arms.parse(name), config=config, trees_done=told.append)
    assert told[0] == 1
    assert told == sorted(told)
    assert told[-1] <= trees


def test_trees_are_those_of_one_booster_whose_training_set_is_exchanged(split, trained):
    """LightGBM's own way, ``Booster.update`` with a new training set, gives the very same trees."""
    lightgbm = pytest.importorskip("lightgbm")
    out, _ = trained
    frame = frame_of()
    scores = scores_like(frame)
    settings = {**parameters(CONFIG, seed=7), "metric": "none", "num_threads": 1}
    full = binning.build([split / "train.parquet"], parameters=settings)
    selector = Selector(scores, ARM, config=SELECT, seed=7)
    booster, held = None, []
    for tree in range(9):
        if tree % 2 == 0:
            score = None if booster is None else scores_of(booster, full)
            places, weight = selector.choose(score, round=tree // 2)
            queries = frame[places]["qid"].rle().struct.field("len").to_numpy().astype(np.int32)
            held.append(binning.take(full, places, queries, weight=weight))
        if booster is None:
            booster = lightgbm.Booster(settings, held[-1])
            booster.add_valid(full, "full")
        booster.update(train_set=held[-1])
    expected = booster.model_to_string().split("\nend of trees")[0]
    assert (out / "model.txt").read_text().split("\nend of trees")[0] == expected


def test_what_the_last_choice_went_by(split, trained):
    """The scores kept are those of the trees before the last round, in the order of the rows."""
    out, _ = trained
    ranked = pl.read_parquet(out / "ranked.parquet")
    lightgbm = pytest.importorskip("lightgbm")
    frame = frame_of()
    assert ranked["row_id"].to_list() == frame["row_id"].to_list()
    assert set(ranked["fold"]) == {-1}
    features = frame.select(tables.features_of(frame.columns)).to_numpy()
    expected = lightgbm.Booster(model_file=out / "model.txt").predict(
        features, num_iteration=8, num_threads=1
    )
    np.testing.assert_allclose(ranked["score"].to_numpy(), expected, rtol=1e-12)


def test_a_single_round_is_the_static_arm(split, tmp_path):
    """Choosing anew after the last tree is choosing once: by SCORES, whose folds the file keeps."""
    facts = run(split, tmp_path, arm=arms.parse("mixed-40-guard75-dynamic9"))
    scores = scores_like(frame_of())
    selection = select.select(scores, arms.parse("mixed-40-guard75"), config=SELECT, seed=7)
    assert (facts["rounds"], facts["rows"]) == (1, selection["kept"].sum())
    assert pl.read_parquet(tmp_path / "ranked.parquet").equals(scores)
    lightgbm = pytest.importorskip("lightgbm")
    settings = {**parameters(CONFIG, seed=7), "num_threads": 1}
    full = binning.build([split / "train.parquet"], parameters=settings)
    kept = selection.with_row_index("place").filter("kept")
    queries = kept["qid"].rle().struct.field("len").to_numpy().astype(np.int32)
    data = binning.take(full, kept["place"].to_numpy(), queries, weight=kept["weight"].to_numpy())
    direct = lightgbm.train(settings, data, num_boost_round=9).model_to_string()
    trees = (tmp_path / "model.txt").read_text().split("\nend of trees")[0]
    assert trees == direct.split("\nend of trees")[0]


def test_early_stopping_keeps_fewer_trees(split, tmp_path):
    """Trees after the best validation NDCG are not in the model, though it was found two rounds before."""
    config = CONFIG.model_copy(update={"trees": 300, "learning_rate": 0.5, "early_stopping": 5})
    facts = run(split, tmp_path, config=config, vali=[split / "vali.parquet"])
    assert 0 < facts["trees"] < 290
    assert (tmp_path / "model.txt").read_text().count("\nTree=") == facts["trees"]
    assert facts["rounds"] == -(-(facts["trees"] + 5) // 2)


def test_a_row_without_a_score_is_an_error():
    """SCORES of other rows are refused, with what to do."""
    frame = frame_of()
    with pytest.raises(
        TableError, match=r"^s.parquet: 50 rows of the training split have no score; score again$"
    ):
        with_scores(frame.select("row_id", "qid", "label"), scores_like(frame)[50:], where="s.parquet")


def test_lightgbms_complaint_names_the_arm(split, tmp_path):
    """A failure in the child is one line that says which arm."""
    with pytest.raises(TrainingError, match=r"^training arm 'mixed-40-guard75-dynamic2': .*score again$"):
        dynamic.run(
            [split / "vali.parquet", split / "train.parquet"],
            _few(split, tmp_path),
            tmp_path / "m",
            tmp_path / "r",
            arm=ARM,
            select=SELECT,
            config=CONFIG,
            seed=7,
            vali=(),
            cutoff=5,
            bins=None,
            threads=1,
        )


def _few(split, tmp_path) -> Path:
    scores = pl.read_parquet(split / "scores.parquet").head(10)
    parts.write_table(tmp_path / "few.parquet", scores, tables.scores(qid=tables.QID_INT))
    return tmp_path / "few.parquet"


# ---- In a run ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a finished run with a dynamic arm, whose bins are kept, and the source."""
    where = tmp_path_factory.mktemp("run")
    source = write_letor_source(where / "source", queries=24, documents=12)
    with pytest.MonkeyPatch.context() as patch:  # as if so few rows were worth binning
        patch.setattr("pipeline.run.scope.WORTH", 1)
        run_pipeline(source, where / "run", **RUN)
    return where / "run"


def test_a_run_keeps_what_the_last_round_trained_on(whole):
    """SELECTION goes by the ranker's own scores, and the prepared set has the rows it keeps."""
    name = "mixed-40-guard75-dynamic2"
    selection = pl.read_parquet(whole / "selection" / f"{name}.parquet")
    ranked = pl.read_parquet(whole / "scores" / f"{name}.parquet")
    assert selection["score"].to_list() == ranked["score"].to_list()
    first = pl.read_parquet(whole / "scores.parquet")
    assert selection["score"].to_list() != first["score"].to_list()
    negatives = selection.filter(pl.col("label") == 0).sort("qid", "neg_rank")
    assert (negatives["score"].diff().fill_null(0) <= 0).filter(negatives["neg_rank"] > 1).all()
    prepared = pl.concat([pl.read_parquet(file) for file in (whole / "prepared" / name).glob("*.parquet")])
    assert prepared["row_id"].to_list() == selection.filter("kept")["row_id"].to_list()
    assert prepared["weight"].to_list() == selection.filter("kept")["weight"].to_list()


def test_the_run_is_complete_and_a_second_one_does_nothing(whole, monkeypatch):
    """Every step is kept, with the bins or without them: they are no result."""
    monkeypatch.setattr("pipeline.run.scope.WORTH", 1)
    found = inspect(whole)
    assert {step["state"] for step in found["steps"]} == {"done"}
    shutil.rmtree(whole / "bins")
    events = []
    run_pipeline(None, whole, **RUN, progress=events.append)
    assert {event.state for event in events} == {"ahead", "start", "kept"}
    assert not (whole / "bins").exists()
