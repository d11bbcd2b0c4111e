"""Bagged arms: training sets with draws of their own, and one model of all their rankers."""

import numpy as np
import polars as pl
import pytest

from pipeline.core import tables
from pipeline.core.config import RankerConfig, SelectConfig
from pipeline.core.errors import ConfigError
from pipeline.dataset import parts
from pipeline.negatives import prepare
from pipeline.negatives.arms import Arm, parse
from pipeline.negatives.select import Selector, run
from pipeline.negatives.strategies import STRATEGIES
from pipeline.ranker.fit import Training, fit_all
from pipeline.ranker.predict import predict
from tests.samples import judgments, write_part

CONFIG = SelectConfig()
RANKER = RankerConfig(trees=6, leaves=4, min_rows_per_leaf=5)
FRAME = judgments(30, 20)
SCORES = FRAME.select(
    "row_id", "qid", "label", pl.col("f1").cast(pl.Float64).alias("score"), fold=pl.lit(0, pl.Int16)
)


def draws_something(strategy):
    """Tell whether an arm of this strategy can be bagged."""
    try:
        return parse(f"{strategy}-20-bag3").bags == 3
    except ConfigError:
        return False


BAGGED = [name for name in STRATEGIES if draws_something(name)]


def selector(arm):
    """Return what chooses for an arm."""
    return Selector(SCORES, arm, config=CONFIG, seed=1)


def in_bag(selection, bag):
    """Tell of each row whether a training set keeps it."""
    return (selection["bags"].to_numpy() >> bag) & 1 == 1


def test_what_draws_can_be_bagged():
    """The strategies that rank alone would give the same set every time."""
    assert set(BAGGED) == {
        "random",
        "softmax",
        "distance-weighted",
        "popularity",
        "mixed",
        "mixed-unweighted",
    }


@pytest.mark.parametrize("strategy", [name for name in BAGGED if name != "popularity"])
def test_each_bag_is_a_selection_of_its_own(strategy):
    """Bit b says what choice number b keeps, `kept` what any keeps, and weights are those of the choices."""
    arm = parse(f"{strategy}-20-guard75-bag3")
    found = selector(arm).bagged(3)
    alone = selector(Arm(arm.strategy, arm.budget, arm.guards))
    for bag in range(3):
        single = alone.selection(round=bag)
        np.testing.assert_array_equal(in_bag(found, bag), single["kept"].to_numpy())
        kept = single["kept"].to_numpy()
        np.testing.assert_array_equal(found["weight"].to_numpy()[kept], single["weight"].to_numpy()[kept])
        assert (found["reason"].to_numpy()[kept] == single["reason"].to_numpy()[kept]).all()
    np.testing.assert_array_equal(found["kept"].to_numpy(), found["bags"].to_numpy() > 0)
    assert not np.array_equal(in_bag(found, 0), in_bag(found, 1))


def test_the_hardest_are_in_every_bag_and_the_draws_differ():
    """`mixed` keeps the same hardest negatives each time, and positives are everywhere."""
    found = selector(parse("mixed-20-bag4")).bagged(4)
    always = found.filter(pl.col("reason").is_in(["positive", "hard"]))
    assert set(always["bags"]) == {0b1111}
    assert found.filter(pl.col("label") > 0)["kept"].all()
    drawn = found.filter(pl.col("kept") & (pl.col("label") == 0) & (pl.col("reason") != "hard"))
    assert drawn["bags"].n_unique() > 4


def fit_bags(files, model, *, threads):
    """Train a ranker on each part; the model is their sum."""
    trainings = [Training([file], model) for file in files]
    return fit_all(trainings, config=RANKER, seed=1, threads=threads, merged_model=model)


def test_a_part_for_each_bag_and_a_model_that_is_their_sum(tmp_path):
    """The prepared set has a part per bag; the model scores with the sum of the rankers trained on each."""
    arm = parse("mixed-20-guard75-bag3")
    judged = write_part(tmp_path / "train.parquet", FRAME)
    parts.write_table(tmp_path / "scores.parquet", SCORES, tables.scores(qid=tables.QID_INT))
    facts = run(tmp_path / "scores.parquet", tmp_path / "selection.parquet", arm=arm, config=CONFIG, seed=1)
    selection = pl.read_parquet(tmp_path / "selection.parquet")
    assert facts["rows"] == selection["kept"].sum()
    made = prepare.run([judged], tmp_path / "selection.parquet", tmp_path / "prepared", bags=3)
    files = sorted((tmp_path / "prepared").iterdir())
    assert [file.name for file in files] == [f"part-{bag:05}.parquet" for bag in range(3)]
    for bag, file in enumerate(files):
        rows = selection.filter(pl.Series(in_bag(selection, bag)))
        assert pl.read_parquet(file).select("row_id", "weight").equals(rows.select("row_id", "weight"))
    trained = fit_bags(files, tmp_path / "bag.txt", threads=1)
    assert trained["rows"] == made["rows"]
    assert trained["trees"] == 3 * 6
    total = np.zeros(FRAME.height)
    for bag, file in enumerate(files):
        model = tmp_path / f"{bag}.txt"
        fit_all([Training([file], model)], config=RANKER, seed=1, threads=1)
        total += predict([model], [judged], threads=1)["score"].to_numpy()
    scored = predict([tmp_path / "bag.txt"], [judged], threads=1)["score"].to_numpy()
    np.testing.assert_allclose(scored, total, rtol=1e-9, atol=1e-12)


def test_more_bags_than_are_written_at_once(tmp_path):
    """Each of six parts, written in two passes over the split, has the rows of its bit."""
    judged = write_part(tmp_path / "train.parquet", FRAME)
    selection = selector(parse("mixed-20-bag6")).bagged(6)
    schema = tables.selection(qid=tables.QID_INT, bags=True)
    parts.write_table(tmp_path / "selection.parquet", selection, schema)
    made = prepare.run([judged], tmp_path / "selection.parquet", tmp_path / "prepared", bags=6)
    files = sorted((tmp_path / "prepared").iterdir())
    sets = [pl.read_parquet(file)["row_id"].to_list() for file in files]
    assert sets == [np.flatnonzero(in_bag(selection, bag)).tolist() for bag in range(6)]
    assert made == {"rows": sum(map(len, sets))}


def test_the_bytes_do_not_depend_on_the_threads(tmp_path):
    """One thread and two write the same model."""
    files = [write_part(tmp_path / f"{seed}.parquet", judgments(20, 12, seed=seed)) for seed in (1, 2)]
    for threads in (1, 2):
        fit_bags(files, tmp_path / f"{threads}.txt", threads=threads)
    assert (tmp_path / "1.txt").read_bytes() == (tmp_path / "2.txt").read_bytes()


@pytest.mark.parametrize(
    ("share", "bags", "trees"),
    [
        (0.5, 2, 3),
        (0.1, 2, 1),
        (1e-12, 2, 1),
        (1.0, 3, 6),
        (0.5, 1, 6),
        (None, 1, 6),
        (None, 2, 5),
        (None, 4, 3),
        (None, 9, 2),
    ],
)
def test_a_ranker_in_a_bag_has_a_share_of_the_trees(share, bags, trees):
    """Half of six trees is three; a tenth of them and six over the root of two are rounded up; alone it has all."""
    assert RANKER.model_copy(update={"bag_trees": share}).in_a_bag(bags).trees == trees
