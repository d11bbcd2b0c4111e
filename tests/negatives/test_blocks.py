"""SCORES by blocks of whole queries: the same SELECTION, whatever the blocks and the files' row groups."""

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.dataset import parts
from pipeline.negatives import blocks, select
from pipeline.negatives.arms import parse
from tests.samples import scores_of

CONFIG = SelectConfig()
SCORES = scores_of(*((query, [0, 1, 0, 0, 2], [5.0, 4.0, 3.0, query, 1.0]) for query in (7, 3, 9, 1)))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes SCORES in row groups of so many rows."""

    def written(scores=SCORES, rows=20):
        qid = tables.QID_TEXT if scores["qid"].dtype == pl.String else tables.QID_INT
        table = parts.conform(scores.to_arrow(), tables.scores(qid=qid))
        pq.write_table(table, tmp_path / "scores.parquet", row_group_size=rows)
        return tmp_path / "scores.parquet"

    return written


def run(scores, arm, block_rows=blocks.ROWS):
    """Return the file of SELECTION and the facts."""
    out = scores.with_name("out.parquet")
    return out, select.run(scores, out, arm=parse(arm), config=CONFIG, seed=1, block_rows=block_rows)


def heights(scores, rows):
    """Return the rows of each block."""
    return [block.height for block in blocks.read(scores, rows)]


@pytest.mark.parametrize("rows", [1, 3, 5, 7, 20])
@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_queries_are_found_whatever_the_row_groups(write, rows, text):
    """Four queries of five rows begin at 0, 5, 10 and 15."""
    scores = SCORES.with_columns(pl.col("qid").cast(pl.String)) if text else SCORES
    assert heights(write(scores, rows), 1) == [5, 5, 5, 5]


@pytest.mark.parametrize("rows", [1, 4, 20])
def test_a_query_that_comes_again_is_noticed(write, rows):
    """Rows of query 7 at both ends: all come at once."""
    scores = pl.concat([SCORES, SCORES.head(2).with_columns(row_id=pl.col("row_id") + 100)])
    assert heights(write(scores, rows), 1) == [22]


def test_no_rows(write):
    """Without rows there are no queries and no blocks, and SELECTION has its columns."""
    empty = write(SCORES.clear())
    assert heights(empty, 1) == []
    out, facts = run(empty, "top-20")
    assert pq.read_schema(out).equals(tables.selection(qid=tables.QID_INT))
    assert (facts["rows"], facts["of_rows"], facts["reasons"], facts["weighted"]) == (0, 0, {}, False)


def test_edges_by_hand(write):
    """Queries of 3, 1, 4 and 2 rows, about four a block: the one at 4 starts the second, that at 8 the third."""
    path = write(
        scores_of(*((query, [0] * rows, [1.0] * rows) for query, rows in ((5, 3), (2, 1), (9, 4), (1, 2))))
    )
    assert heights(path, 4) == [4, 4, 2]
    assert heights(path, 100) == heights(path, None) == [10]


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_blocks_are_whole_queries(write, rows):
    """Blocks of about six rows are the first two queries, then one query each."""
    path = write(rows=rows)
    found = list(blocks.read(path, 6))
    assert [block["qid"].unique(maintain_order=True).to_list() for block in found] == [[7, 3], [9], [1]]
    assert pl.concat(found).equals(SCORES.select("row_id", "qid", "label", "score"))


@pytest.mark.parametrize(
    "arm", ["top-50", "random-50-bag3", "mixed-50-guard50", "mixed-50-graded", "distance-weighted-40-skip5"]
)
def test_blocks_change_no_row_and_no_fact(write, arm):
    """One query at a time or all at once: the rows and the facts are the same."""
    scores = write()
    out, whole = run(scores, arm)
    rows = pl.read_parquet(out)
    out, facts = run(scores, arm, block_rows=5)
    assert pq.read_metadata(out).num_row_groups == 4
    assert pl.read_parquet(out).equals(rows)
    assert facts == whole


def test_bytes_depend_on_the_rows_alone(write):
    """Other row groups of SCORES, and other reasons used before, give the same bytes."""
    out, _ = run(write(rows=20), "top-50", block_rows=6)
    bytes_of = out.read_bytes()
    run(write(), "semi-hard-40")
    out, _ = run(write(rows=3), "top-50", block_rows=6)
    assert out.read_bytes() == bytes_of


@pytest.mark.parametrize(
    "arm",
    ["all", "mixed-50-guard50", "top-40", "top-40-guard50-skip5", "semi-hard-30", "semi-hard-n1-guard75"],
)
def test_rows_in_any_order_are_chosen_from_as_in_order(write, arm):
    """Where queries do not come whole, each row has the outcome it has where they do."""
    out, facts = run(write(), arm, block_rows=6)
    rows = pl.read_parquet(out)
    mixed = SCORES.sample(fraction=1.0, shuffle=True, seed=5)
    out, others = run(write(mixed), arm)
    assert others == facts
    assert pl.read_parquet(out)["row_id"].equals(mixed["row_id"])
    assert pl.read_parquet(out).sort("row_id").equals(rows)
