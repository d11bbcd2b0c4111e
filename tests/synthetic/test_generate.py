"""Made-up data: a query's rows depend on seed and number alone, text and Parquet agree, labels can be learnt."""

import json
from decimal import Decimal

import lightgbm
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.dataset.letor import read_letor
from pipeline.evaluation import ndcg
from pipeline.synthetic import generate
from pipeline.synthetic.encode import to_batch, to_lines
from pipeline.synthetic.presets import PRESETS, find_preset
from pipeline.synthetic.world import ABSENT, SENTINEL, Rows, bell, make_rows


def read(directory, split="train", suffix=".txt", **options):
    """Return a split of LETOR text as a frame."""
    batches = [pl.DataFrame(batch) for batch in read_letor(directory / f"{split}{suffix}", **options)]
    return pl.concat(batches, how="diagonal")


def same_rows(one, other):
    """Tell whether two blocks hold the same rows."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("qid", "label", "values")
    )


# ---- Rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_querys_rows_do_not_depend_on_its_company(name):
    """Query 7 alone, among others and after them has the same rows; another seed gives others."""
    preset = find_preset(name, documents=20)
    alone = make_rows(preset, np.array([7]), seed=3)
    among = make_rows(preset, np.array([9, 7, 2]), seed=3)
    kept = among.qid == 7
    assert np.array_equal(alone.values, among.values[:, kept])
    assert np.array_equal(alone.label, among.label[kept])
    assert not same_rows(alone, make_rows(preset, np.array([7]), seed=4))


@pytest.mark.parametrize("name", PRESETS)
def test_labels_have_the_presets_shares(name):
    """Over 600 queries each label's share is within a fifth, or half a percent, of what the preset says."""
    preset = find_preset(name, documents=100)
    label = make_rows(preset, np.arange(1, 601), seed=1).label
    expected = np.array(preset.shares) * np.where(np.arange(len(preset.shares)), 1 - preset.unjudged, 1)
    expected[0] = 1 - expected[1:].sum()
    found = np.bincount(label, minlength=len(expected)) / len(label)
    assert np.all(np.abs(found - expected) < np.maximum(0.005, 0.2 * expected))


def test_presets_have_the_shapes_they_are_named_after():
    """Features, documents per query, sparseness and sentinels are those of the public sets, more or less."""
    queries = np.arange(1, 51)
    shapes = {}
    for name, preset in PRESETS.items():
        rows = make_rows(preset, queries, seed=1)
        mean = len(rows.qid) / len(queries)
        present, sentinel = np.mean(rows.values != ABSENT), np.mean(rows.values == SENTINEL)
        shapes[name] = (len(rows.values), mean, present, sentinel)
        assert abs(mean - preset.documents) < 0.2 * preset.documents
    assert [shapes[name][0] for name in ("mslr", "yahoo", "istella")] == [136, 700, 220]
    assert shapes["mslr"][2:] == (1, 0)
    assert 0.25 < shapes["yahoo"][2] < 0.35
    assert 0.02 < shapes["istella"][3] < 0.1
    assert shapes["long"][1] == 1000


def test_yahoos_values_are_within_0_and_1():
    """Every value that is there is a decimal from 0 to 1 with 3 to 5 digits, or a flag."""
    rows = make_rows(PRESETS["yahoo"], np.arange(1, 20), seed=1)
    there = rows.values != ABSENT
    assert np.all((rows.values >= 0) | ~there)
    assert np.all((rows.values <= 10 ** rows.decimals[:, None]) | ~there)
    assert set(rows.decimals) == {0, 3, 4, 5}


def test_near_normal_numbers():
    """The bell has mean 0, variance 1 and its quantiles near the normal's, 1.645 at 95 %; 0 and 1 are finite."""
    u = (np.arange(100_000) + 0.5) / 100_000
    x = bell(u)
    assert abs(x.mean()) < 1e-9
    assert abs(x.std() - 1) < 1e-3
    assert abs(np.quantile(x, 0.95) - 1.645) < 0.01
    assert np.isfinite(bell(np.array([0.0, 1 - 2.0**-53]))).all()


def mean_ndcg(rows, score):
    """Return the mean NDCG@10 of queries with a relevant document."""
    offsets = np.append(np.flatnonzero(np.diff(rows.qid, prepend=-1)), len(rows.qid))
    found = ndcg.ndcg(rows.label, np.asarray(score, float), offsets, cutoffs=(10,))
    return float(ndcg.mean(found, empty=None)[0])


def test_a_ranker_learns_and_more_data_helps():
    """On held-out queries: random < the best column < LambdaMART on 12 queries < LambdaMART on 200."""
    preset = find_preset("mslr", documents=50)
    held_out = make_rows(preset, np.arange(1001, 1101), seed=1)

    def matrix(rows):
        return np.column_stack(to_batch(rows).columns[2:])

    def learnt(queries):
        rows = make_rows(preset, np.arange(1, 1 + queries), seed=1)
        data = lightgbm.Dataset(matrix(rows), rows.label, group=np.bincount(rows.qid)[1:])
        settings = {"objective": "lambdarank", "num_leaves": 7, "verbose": -1, "num_threads": 1, "seed": 1}
        return mean_ndcg(held_out, lightgbm.train(settings, data, 60).predict(matrix(held_out)))

    random = mean_ndcg(held_out, np.random.default_rng(1).random(len(held_out.qid)))
    single = max(mean_ndcg(held_out, sign * column) for column in held_out.values for sign in (1, -1))
    few, many = learnt(12), learnt(200)
    assert random + 0.1 < single < few < many - 0.02
    assert many > single + 0.08


# ---- Text -------------------------------------------------------------------------------------------------


def test_text_by_hand():
    """Signs, leading zeros, integers, an absent feature and the sentinel, as a person would write them."""
    values = np.array([[-5, ABSENT], [1_234_567, 0], [SENTINEL, 12]])
    rows = Rows(np.array([10, 10**17]), np.array([3, 0]), values, np.array([2, 6, 0]))
    assert to_lines(rows).to_pylist() == [
        "3 qid:10 1:-0.05 2:1.234567 3:1.79769313486e+308\n",
        "0 qid:100000000000000000 2:0.000000 3:12\n",
    ]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1, max_size=12),
    decimals=st.integers(0, 6),
)
def test_numbers_agree_with_decimal(values, decimals):
    """Each number reads back as the exact decimal that it stands for, with all its digits."""
    column = np.array([values], np.int64)
    zeros = np.zeros(len(values), np.int64)
    lines = to_lines(Rows(zeros, zeros, column, np.array([decimals]))).to_pylist()
    for line, value in zip(lines, values, strict=True):
        token = line.rstrip().rpartition(":")[2]
        assert Decimal(token) == Decimal(value).scaleb(-decimals)
        assert len(token.partition(".")[2]) == decimals


# ---- Files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_parquet_holds_what_the_text_says(tmp_path, name):
    """Both formats hold the same float32 values, labels and queries in the same order, in every split."""
    for kind in generate.FORMATS:
        generate.run(name, tmp_path / kind, rows=300, seed=5, documents=12, kind=kind)
    for split in generate.SPLITS:
        text = read(tmp_path / "letor", split)
        table = pl.read_parquet(tmp_path / "parquet" / f"{split}.parquet").drop("row_id")
        assert text.equals(table.select(text.columns))


def test_threads_and_blocks_change_no_byte(tmp_path):
    """One thread or three, large blocks or one query each: the same text; gzip holds it too."""
    generate.run("mslr", tmp_path / "one", rows=2000, documents=20)
    generate.run("mslr", tmp_path / "gzip", rows=2000, documents=20, compress=True)
    generate.run("mslr", tmp_path / "three", rows=2000, documents=20, threads=3, block_rows=1)
    for split in generate.SPLITS:
        expected = (tmp_path / "one" / f"{split}.txt").read_bytes()
        assert (tmp_path / "three" / f"{split}.txt").read_bytes() == expected
        assert read(tmp_path / "gzip", split, ".txt.gz").equals(read(tmp_path / "one", split))


def test_a_larger_set_begins_with_the_smaller_one(tmp_path):
    """The files of 500 rows are the beginnings of those of 3,000."""
    for rows in (500, 3000):
        generate.run("istella", tmp_path / str(rows), rows=rows, documents=30)
    for split in generate.SPLITS:
        small = (tmp_path / "500" / f"{split}.txt").read_bytes()
        assert (tmp_path / "3000" / f"{split}.txt").read_bytes().startswith(small)


@settings(max_examples=15, deadline=None)
@given(amount=st.integers(1, 3000), by_size=st.booleans(), threads=st.integers(1, 3))
def test_the_last_query_is_the_one_that_reaches_the_target(tmp_path_factory, amount, by_size, threads):
    """Rows (or bytes) reach what was asked for; without the last query they would not, or queries were 5."""
    out = tmp_path_factory.mktemp("generate")
    amount *= 100 if by_size else 1
    target = {"text_bytes": amount} if by_size else {"rows": amount}
    facts = generate.run("long", out, documents=7, threads=threads, **target)
    queries = sum(facts["queries"].values())
    text = b"".join((out / f"{split}.txt").read_bytes() for split in generate.SPLITS)
    assert facts["text_bytes"] == len(text)
    assert text.count(b"\n") == sum(facts["rows"].values()) == 7 * queries == sum(facts["labels"])
    had = len(text) if by_size else 7 * queries
    last = [line + b"\n" for line in text.splitlines() if b" qid:%d " % queries in line]
    assert had >= amount
    assert queries == 5 or had - (sum(map(len, last)) if by_size else 7) < amount


def test_three_of_five_queries_train(tmp_path):
    """Queries 1 to 10: 1, 2, 3, 6, 7, 8 train, 4 and 9 validate, 5 and 10 test; the card says so."""
    facts = generate.run("long", tmp_path, rows=30, documents=3)
    found = {split: read(tmp_path, split)["qid"].unique().sort().to_list() for split in generate.SPLITS}
    assert found == {"train": [1, 2, 3, 6, 7, 8], "vali": [4, 9], "test": [5, 10]}
    assert facts["queries"] == {"train": 6, "vali": 2, "test": 2}
    assert json.loads((tmp_path / "generate.json").read_text()) == facts


def test_progress_adds_up(tmp_path):
    """The rows told while working are the rows made."""
    told = []
    facts = generate.run("yahoo", tmp_path, rows=400, advance=told.append)
    assert sum(told) == sum(facts["rows"].values())


def test_only_an_earlier_set_is_replaced(tmp_path):
    """Made again in its place; a directory with anything else in it is left alone."""
    out = tmp_path / "set"
    for rows in (20, 40):
        generate.run("long", out, rows=rows, documents=4)
    assert read(out)["qid"].n_unique() == 6
    (out / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match=r"holds other files \(mine\.txt\)"):
        generate.run("long", out, rows=20)


def test_nothing_is_left_of_a_failure(tmp_path):
    """When making stops half way, no directory and no temporary file stays."""

    def fail(_done):
        raise MemoryError

    with pytest.raises(MemoryError):
        generate.run("long", tmp_path / "set", rows=20_000, threads=2, advance=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"), [("1GB", 10**9), ("1.5 MiB", 3 << 19), ("2000", 2000), ("7b", 7), ("3 kb", 3000)]
)
def test_sizes(text, expected):
    """Units of 1000 and of 1024, in any case, with or without a space."""
    assert generate.size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "1XB", "-5MB", "0", "nan", "inf", "1e400", "1 2"])
def test_what_is_no_size(text):
    """Anything else is refused, with an example."""
    with pytest.raises(ConfigError, match="write one such as 500MB"):
        generate.size(text)


@pytest.mark.parametrize(
    ("preset", "options", "what"),
    [
        ("mlsr", {"rows": 5}, "no preset 'mlsr'. Did you mean 'mslr'"),
        ("mslr", {}, "give --rows or --bytes"),
        ("mslr", {"rows": 5, "text_bytes": 5}, "give --rows or --bytes"),
        ("mslr", {"rows": 0}, "--rows: must be 1 or more"),
        ("mslr", {"text_bytes": 0}, "--bytes: must be 1 or more"),
        ("mslr", {"rows": 5, "seed": -1}, "--seed -1"),
        ("mslr", {"rows": 5, "documents": 0}, "--docs 0"),
        ("mslr", {"rows": 5, "documents": 100_001}, "--docs 100001"),
        ("mslr", {"rows": 5, "kind": "csv"}, "--format csv"),
        ("mslr", {"text_bytes": 5, "kind": "parquet"}, "--bytes counts bytes of text"),
        ("mslr", {"rows": 5, "kind": "parquet", "compress": True}, "--gzip is for text"),
    ],
)
def test_mistakes(tmp_path, preset, options, what):
    """Each is named before anything is written."""
    with pytest.raises(ConfigError, match=what):
        generate.run(preset, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
