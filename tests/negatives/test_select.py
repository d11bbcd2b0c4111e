"""SELECTION: what is kept, at what weight, and why."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from flows.stages import run_pipeline
from pipeline.core import tables
from pipeline.core.config import Config, SelectConfig
from pipeline.core.errors import ConfigError, SourceError
from pipeline.core.records import read_record
from pipeline.dataset import parts
from pipeline.negatives import select
from pipeline.negatives.arms import parse
from pipeline.negatives.budget import Budget
from pipeline.negatives.select import Selector
from pipeline.negatives.strategies import STRATEGIES
from pipeline.negatives.training import Training
from pipeline.run.execute import Stage
from tests.samples import judgments_of, scores_of, training_of, write_letor_source, write_part

CONFIG = SelectConfig()
# Query 1: a positive at 5.5; its negatives score 10 to 1, so a guard sets the five above 5.5 aside.
SCORES = scores_of(
    (1, [0] * 10 + [1], [*range(10, 0, -1), 5.5]),
    (2, [0, 0, 2], [1.0, 2.0, 3.0]),
    (3, [0, 0], [1.0, 2.0]),
    (4, [1], [1.0]),
)


def selection(name, scores=SCORES, *, config=CONFIG, seed=1, **options):
    """Return SELECTION of the arm called ``name``."""
    training = training_of(scores)
    return Selector(scores, parse(name), config=config, seed=seed, training=training, **options).selection()


def test_top_under_a_guard_by_hand():
    """Guard 50 sets ranks 1-5 of query 1 aside; 20 % of ten are two: ranks 6 and 7."""
    rows = selection("top-20-guard50").filter(pl.col("qid") == 1)
    assert rows["reason"].to_list() == ["guarded"] * 5 + ["hard"] * 2 + ["too easy"] * 3 + ["positive"]
    assert rows["kept"].to_list() == [False] * 5 + [True] * 2 + [False] * 3 + [True]
    assert rows["weight"].to_list() == [0.0] * 5 + [1.0] * 2 + [0.0] * 3 + [1.0]
    assert rows["neg_rank"].to_list() == [*range(1, 11), None]


def test_mixed_under_a_guard_by_hand():
    """60 % of ten are six, and the guard leaves five: three hard, two drawn, each standing for itself."""
    rows = selection("mixed-60-guard50").filter(pl.col("qid") == 1)
    assert rows["reason"].to_list() == ["guarded"] * 5 + ["hard"] * 3 + ["random"] * 2 + ["positive"]
    assert set(rows.filter("kept")["weight"]) == {1.0}


def test_short_queries():
    """A query without a positive is chosen from like any other; one without a negative keeps its positive."""
    rows = selection("top-50-guard75")
    assert rows.filter(pl.col("qid") == 3)["kept"].to_list() == [False, True]
    assert rows.filter(pl.col("qid") == 4).select("kept", "weight", "reason").row(0) == (
        True,
        1.0,
        "positive",
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("guard", ["", "-guard50", "-guard50-neardup-skip10"])
def test_every_reason_says_whether_a_row_is_kept(strategy, guard):
    """A reason belongs to kept rows or to rows left out, never both; weight is 0 on the latter alone."""
    rows = selection(f"{strategy}{'' if strategy == 'all' else '-40'}{guard}")
    assert (
        rows.group_by("reason").agg(pl.col("kept").n_unique())["kept"].to_list()
        == [1] * rows["reason"].n_unique()
    )
    assert (rows["kept"] == (rows["weight"] > 0)).all()
    assert (rows.filter(pl.col("label") > 0)["reason"] == "positive").all()
    assert rows["reason"].null_count() == 0


def test_columns_are_the_contract():
    """The columns are those of the SELECTION schema, in order, and the rows those of SCORES."""
    rows = selection("random-40")
    assert rows.columns == tables.selection(qid=tables.QID_INT).names
    assert rows.select("row_id", "qid", "label", "score").equals(SCORES.drop("fold"))


def test_shortfall_counts_what_a_guard_leaves_no_room_for():
    """60 % of ten negatives are six, the guard leaves five: one short; query 2's two negatives are enough."""
    assert select.shortfall(selection("top-60-guard50"), Budget("", 0.6)) == 1
    assert select.shortfall(selection("top-60"), Budget("", 0.6)) == 0
    assert select.shortfall(selection("all"), Budget("", 1.0)) == 0


def test_shortfall_counts_what_a_skip_leaves_no_room_for():
    """Skipping 5 % is one negative of each query, so keeping 100 % falls short by one in three."""
    assert select.shortfall(selection("semi-hard-100"), Budget("", 1.0)) == 3


def test_shortfall_of_one_query_is_not_made_up_by_another():
    """More kept in one query than asked for does not hide what another lacks."""
    rows = scores_of((1, [0, 0], [1, 2]), (2, [0, 0], [1, 2])).with_columns(
        kept=pl.Series([True, True, False, False])
    )
    assert select.shortfall(rows, Budget("", 0.5)) == 1


def test_shortfall_of_counts():
    """Twelve of ten negatives are ten, of which the guard leaves five; three per positive are as many."""
    assert select.shortfall(selection("top-n12-guard50"), Budget("n", 12)) == 5
    assert select.shortfall(selection("top-p3-guard50"), Budget("p", 3)) == 0
    assert select.shortfall(selection("top-p9-guard50"), Budget("p", 9)) == 4


def kept_of(rows, query):
    """Return how many negatives of a query are kept."""
    return rows.filter((pl.col("qid") == query) & (pl.col("label") == 0))["kept"].sum()


def test_counts_by_hand():
    """Three negatives of each query, or all it has; 2.5 for each positive, rounded up, none without one."""
    assert [kept_of(selection("top-n3"), query) for query in (1, 2, 3, 4)] == [3, 2, 2, 0]
    assert [kept_of(selection("top-p2.5"), query) for query in (1, 2, 3, 4)] == [3, 2, 0, 0]


def test_guards_combine():
    """Guard 50 sets ranks 1-5 aside, skip 60 ranks 1-6: the first of the order names what both do."""
    rows = selection("top-20-guard50-skip60").filter(pl.col("qid") == 1)
    assert rows["reason"].to_list() == ["guarded"] * 5 + ["skipped"] + ["hard"] * 2 + ["too easy"] * 2 + [
        "positive"
    ]


def test_near_duplicates_of_a_positive_are_set_aside():
    """Row 1 has the features of the positive, row 2 their opposite; what is like another negative stays."""
    scores = scores_of((1, [1, 0, 0, 0], [0.0, 3.0, 2.0, 1.0]))
    training = Training.of_table(
        scores.with_columns(f1=pl.Series([2.0, 2.0, 0.0, 0.0]), f2=pl.Series([5.0, 5.0, 1.0, 1.0]))
    )
    rows = select.select(scores, parse("top-50-neardup"), config=CONFIG, seed=1, training=training)
    assert rows["reason"].to_list() == ["positive", "near-duplicate", "hard", "hard"]


@pytest.mark.parametrize(
    ("arm", "columns", "missing"),
    [
        ("popularity-20", ["row_id", "f1"], "document ids"),
        ("ohem-20", ["row_id", "doc_id"], "features"),
        ("top-20-neardup", [], "features"),
    ],
)
def test_what_an_arm_reads_must_be_there(arm, columns, missing):
    """One line names the arm and what the training data lacks."""
    with pytest.raises(ConfigError, match=rf"^arm '{arm}' needs {missing}, and the training data has none"):
        select.require(parse(arm), CONFIG, columns)
    select.require(parse("mixed-20-guard75-skip5"), CONFIG, [])


def test_select_without_its_training_split_is_refused():
    """An arm that reads features does not silently do without them."""
    with pytest.raises(ConfigError, match="arm 'ohem-20' needs features"):
        select.select(SCORES, parse("ohem-20"), config=CONFIG, seed=1)


def test_a_run_refuses_an_arm_before_it_trains(tmp_path):
    """A source without document ids and an arm that needs them: nothing is trained."""
    source = write_letor_source(tmp_path / "source")
    for file in source.iterdir():
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("".join(line.partition(" #")[0] + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ConfigError, match="arm 'popularity-20' needs document ids"):
        run_pipeline(source, tmp_path / "run", config=Config(), arms=["popularity-20"])
    assert not (tmp_path / "run" / "models").exists()


# ---- LightGBM's limit of rows per query --------------------------------------------------------------------


def limited(name, scores=SCORES, *, limit=6, seed=1):
    """Return SELECTION where LightGBM takes six rows per query."""
    return selection(name, scores, seed=seed, max_query_rows=limit)


def test_over_limit_by_hand():
    """Query 1 has a positive and ten negatives: five stay, five are over; the others are untouched."""
    rows = limited("all")
    first = rows.filter(pl.col("qid") == 1)
    assert first["kept"].sum() == 6
    assert first["reason"].value_counts().sort("reason").rows() == [
        ("all", 5),
        ("over limit", 5),
        ("positive", 1),
    ]
    assert first.filter(pl.col("reason") == "over limit")["weight"].to_list() == [0.0] * 5
    assert rows.filter(pl.col("qid") != 1)["kept"].all()
    assert select.shortfall(rows, Budget("", 1.0)) == 5


def test_a_selection_that_fits_is_left_alone():
    """Half of ten negatives and the positive are six rows: nothing is over the limit."""
    assert "over limit" not in limited("top-50")["reason"].to_list()
    assert limited("top-60")["reason"].to_list().count("over limit") == 1


def test_over_limit_prefers_no_kind_of_negative():
    """Of a mixed selection, hard and random negatives go over the limit alike."""
    scores = scores_of((1, [1] + [0] * 2000, [0.0, *range(2000)]))
    rows = limited("mixed-20", scores, limit=201).filter("kept")
    assert rows.height == 201
    hard = int((rows["reason"] == "hard").sum())
    # 200 of 400, of which 200 are hard: hypergeometric, standard deviation 5.0.
    assert 75 < hard < 125
    assert set(rows.filter(pl.col("reason") == "random")["weight"]) == {9.0}


def test_over_limit_depends_on_the_seed_and_not_on_company():
    """The rows that stay follow the seed and the query alone."""
    alone = limited("all", SCORES.filter(pl.col("qid") == 1))
    assert alone.equals(limited("all").filter(pl.col("qid") == 1))
    assert not alone.equals(limited("all", SCORES.filter(pl.col("qid") == 1), seed=2))


def test_long_queries_are_announced():
    """The notice names the longest query, its rows and how many more there are."""
    keys = scores_of((1, [0] * 7, [0] * 7), (2, [0] * 9, [0] * 9), (3, [1], [0]))
    [notice] = select.too_long(keys, Path("train"), limit=6)
    assert notice.startswith("query 2 (9 rows) and 1 more is longer than the 6 rows LightGBM takes")
    assert select.too_long(keys.filter(pl.col("qid") == 3), Path("train"), limit=6) == []


def test_a_query_with_too_many_positives_is_refused():
    """Positives are never dropped, so a query with seven of them cannot be trained on."""
    keys = scores_of((1, [0] * 20, [0] * 20), (2, [1] * 7, [0] * 7))
    with pytest.raises(SourceError, match=r"^train: query 2 has 7 relevant rows, and LightGBM takes 6 rows"):
        select.too_long(keys, Path("train"), limit=6)


def test_all_is_chosen_without_scores_as_with_them(tmp_path):
    """Of 10,004 rows 10,000 stay, the same as with scores; where score and rank stood is nothing."""
    scores = scores_of((1, [0] * 10_003 + [1], range(10_004)), (2, [0, 1], [1.0, 2.0]))
    training = write_part(tmp_path / "train.parquet", judgments_of(scores))
    facts = select.run_all([training], tmp_path / "out.parquet", arm=parse("all"), config=CONFIG, seed=1)
    rows = pl.read_parquet(tmp_path / "out.parquet")
    assert rows.drop("score", "neg_rank").equals(selection("all", scores).drop("score", "neg_rank"))
    assert rows.select(pl.col("score", "neg_rank").is_null().all()).row(0) == (True, True)
    assert pq.read_schema(tmp_path / "out.parquet").equals(tables.selection(qid=tables.QID_INT))
    assert (facts["rows"], facts["of_rows"], facts["shortfall"]) == (10_002, 10_006, 4)


@pytest.mark.parametrize("label", [0, 1])
def test_all_alone_announces_long_queries_and_refuses_hopeless_ones(tmp_path, label):
    """What the initial rankers find out is found out without them."""
    source = write_letor_source(tmp_path / "source")
    long = "".join(f"{label} qid:1 1:{number}\n" for number in range(10_001))
    (source / "train.txt").write_text(long + "1 qid:2 1:1\n0 qid:2 1:2\n", encoding="utf-8")
    root = tmp_path / "run"
    given = {"config": Config(), "arms": ["all"], "last_stage": Stage.SELECT}
    if label == 0:
        run_pipeline(source, root, **given)
        notices = read_record(root, "selection/all").facts["notices"]
        assert any("longer than the 10,000 rows LightGBM takes" in notice for notice in notices)
    else:
        with pytest.raises(SourceError, match="relevant rows, and LightGBM takes 10,000 rows per query"):
            run_pipeline(source, root, **given)


# ---- The edge: paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_run_writes_the_table_and_says_what_it_did(tmp_path, text):
    """The file has the schema of SELECTION and the rows of ``select``; the facts count them."""
    scores = SCORES.with_columns(pl.col("qid").cast(pl.String)) if text else SCORES
    qid = tables.QID_TEXT if text else tables.QID_INT
    parts.write_table(tmp_path / "scores.parquet", scores, tables.scores(qid=qid))
    facts = select.run(
        tmp_path / "scores.parquet",
        tmp_path / "out.parquet",
        arm=parse("top-60-guard50"),
        config=CONFIG,
        seed=1,
    )
    assert pq.read_schema(tmp_path / "out.parquet").equals(tables.selection(qid=qid))
    rows = pl.read_parquet(tmp_path / "out.parquet")
    assert rows.equals(selection("top-60-guard50", scores))
    assert facts == {
        "rows": 12,  # five of query 1, two and two of the next two, and three positives
        "of_rows": 17,
        "negatives": 9,
        "of_negatives": 14,
        "weighted": False,
        "reasons": {"guarded": 5, "hard": 9, "positive": 3},
        "shortfall": 1,
    }


@pytest.mark.parametrize("arm", ["ohem-50", "popularity-50", "mixed-50-guard50-neardup"])
def test_run_reads_the_training_split(tmp_path, arm):
    """From Parquet parts, in other row order than the scores, an arm decides as from a table in memory."""
    parts.write_table(tmp_path / "scores.parquet", SCORES, tables.scores(qid=tables.QID_INT))
    table = judgments_of(SCORES)
    half = pl.col("qid") > 1
    files = [
        write_part(tmp_path / "train" / f"part-0000{i}.parquet", part)
        for i, part in enumerate((table.filter(half).reverse(), table.filter(~half)))
    ]
    out = tmp_path / "out.parquet"
    select.run(tmp_path / "scores.parquet", out, arm=parse(arm), config=CONFIG, seed=1, files=files)
    assert pl.read_parquet(out).equals(selection(arm))


def test_run_says_when_weights_matter(tmp_path):
    """A mixed selection has weights other than 1; `all` has not."""
    parts.write_table(tmp_path / "scores.parquet", SCORES, tables.scores(qid=tables.QID_INT))
    for name, weighted in (("mixed-40", True), ("all", False)):
        facts = select.run(
            tmp_path / "scores.parquet", tmp_path / f"{name}.parquet", arm=parse(name), config=CONFIG, seed=1
        )
        assert facts["weighted"] is weighted
