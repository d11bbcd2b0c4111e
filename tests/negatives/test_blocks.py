"""SCORES by blocks of whole queries: the same SELECTION, whatever the blocks and the files' row groups."""

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import tables
from pipeline.core.config import SelectConfig
from pipeline.dataset import parts
from pipeline.negatives import blocks, context, select
from pipeline.negatives.arms import parse
from pipeline.negatives.strategies import STRATEGIES
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


def run(scores, arm):
    """Return the file of SELECTION and the facts."""
    out = scores.with_name("out.parquet")
    return out, select.run(scores, out, arm=parse(arm), config=CONFIG, seed=1)


@pytest.mark.parametrize("rows", [1, 3, 5, 7, 20])
@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_queries_are_found_whatever_the_row_groups(write, rows, text):
    """Four queries of five rows begin at 0, 5, 10 and 15."""
    scores = SCORES.with_columns(pl.col("qid").cast(pl.String)) if text else SCORES
    assert blocks.query_starts(write(scores, rows)).tolist() == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("rows", [1, 4, 20])
def test_a_query_that_comes_again_is_noticed(write, rows):
    """Rows of query 7 at both ends: its rows are not all together."""
    scores = pl.concat([SCORES, SCORES.head(2).with_columns(row_id=pl.col("row_id") + 100)])
    assert blocks.query_starts(write(scores, rows)) is None


def test_no_rows(write):
    """Without rows there are no queries and no blocks, and SELECTION has its columns."""
    empty = write(SCORES.clear())
    assert blocks.query_starts(empty).tolist() == [0]
    out, facts = run(empty, "top-20")
    assert pq.read_schema(out).equals(tables.selection(qid=tables.QID_INT))
    assert (facts["rows"], facts["of_rows"], facts["reasons"], facts["weighted"]) == (0, 0, {}, False)


def test_edges_by_hand():
    """Groups of 3, 1, 4 and 2 rows, about four a piece: the group at 4 starts the second, that at 8 the third."""
    starts = np.array([0, 3, 4, 8, 10])
    assert context.edges(starts, 4).tolist() == [0, 2, 3, 4]
    assert context.edges(starts, 100).tolist() == [0, 4]
    assert context.edges(np.array([0]), 4).tolist() == [0]


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_blocks_are_whole_queries(write, monkeypatch, rows):
    """Blocks of about six rows are the first two queries, then one query each."""
    monkeypatch.setattr(blocks, "ROWS", 6)
    path = write(rows=rows)
    found = list(blocks.read(path, blocks.query_starts(path)))
    assert [block["qid"].unique(maintain_order=True).to_list() for block in found] == [[7, 3], [9], [1]]
    assert pl.concat(found).equals(SCORES.select("row_id", "qid", "label", "score"))


@pytest.mark.parametrize(
    "arm", ["top-50", "random-50-bag3", "mixed-50-guard50", "mixed-50-graded", "distance-weighted-40-skip5"]
)
def test_blocks_change_no_row_and_no_fact(write, monkeypatch, arm):
    """One query at a time or all at once: the rows and the facts are the same."""
    scores = write()
    out, whole = run(scores, arm)
    rows = pl.read_parquet(out)
    monkeypatch.setattr(blocks, "ROWS", 5)
    out, facts = run(scores, arm)
    assert pq.read_metadata(out).num_row_groups == 4
    assert pl.read_parquet(out).equals(rows)
    assert facts == whole


def test_bytes_depend_on_the_rows_alone(write, monkeypatch):
    """Other row groups of SCORES, and other reasons used before, give the same bytes."""
    monkeypatch.setattr(blocks, "ROWS", 6)
    out, _ = run(write(rows=20), "top-50")
    bytes_of = out.read_bytes()
    run(write(), "semi-hard-40")
    out, _ = run(write(rows=3), "top-50")
    assert out.read_bytes() == bytes_of


@pytest.mark.parametrize(
    "arm",
    ["all", "mixed-50-guard50", "top-40", "top-40-guard50-skip5", "semi-hard-30", "semi-hard-n1-guard75"],
)
def test_rows_in_any_order_are_chosen_from_as_in_order(write, monkeypatch, arm):
    """Where queries do not come whole, each row has the outcome it has where they do."""
    monkeypatch.setattr(blocks, "ROWS", 6)
    out, facts = run(write(), arm)
    rows = pl.read_parquet(out)
    mixed = SCORES.sample(fraction=1.0, shuffle=True, seed=5)
    out, others = run(write(mixed), arm)
    assert others == facts
    assert pl.read_parquet(out)["row_id"].equals(mixed["row_id"])
    assert pl.read_parquet(out).sort("row_id").equals(rows)


values = st.sampled_from(
    [0.0, -0.0, 1.0, 1.0 + 2**-50, 1.0 + 2**-52, -1.0, 1e300, -1e300, 5e-324]
) | st.floats(allow_nan=False, allow_infinity=False)


@given(
    sizes=st.lists(st.integers(0, 6), max_size=8), data=st.data(), at_once=st.sampled_from([1, 5, 1 << 16])
)
def test_order_is_that_of_lexsort(sizes, data, at_once):
    """By group, then value, then tie, then position, as NumPy has it; and so are the ranks within the groups."""
    n = sum(sizes)
    value = np.array(data.draw(st.lists(values, min_size=n, max_size=n)), dtype=float)
    tie = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=n, max_size=n)), dtype=float)
    group = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "_AT_ONCE", at_once)
        starts = np.append(0, np.cumsum(sizes, dtype=np.int64))
        found = context.order_within(starts, value, lambda at: tie[at])
        ranks = context.ranks_within(starts, value, lambda at: tie[at])
    assert found.tolist() == np.lexsort((tie, value, group)).tolist()
    assert ranks[found].tolist() == [rank for size in sizes for rank in range(1, size + 1)]


@given(mask=st.lists(st.booleans(), max_size=40), offset=st.integers(0, 20))
def test_flags_are_the_mask(mask, offset):
    """Bits that begin anywhere in a byte come out one by one, as Polars has them."""
    series = pl.Series(mask, dtype=pl.Boolean).slice(offset)
    assert context.flags(series).tolist() == series.to_list() == mask[offset:]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_what_goes_by_rank_reads_nothing_else_of_a_row(name):
    """So that rows need not be put in order: such a strategy reads ranks and counts of the query alone."""
    choice = parse(name if name == "all" else f"{name}-20").choice(CONFIG, n=pl.col("n"))
    reads = {root for said in (choice.kept, choice.reason, choice.weight) for root in said.meta.root_names()}
    assert choice.by_rank == (reads <= {"rank", "count", "n", "neg_count", "pos_count"})
