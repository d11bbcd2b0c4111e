"""LETOR text and record batches: every rule of the format and every error, with its place."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError, SourceError, StorageError, TableError
from pipeline.dataset.letor import must_compile, read_letor, warm_up, write_letor
from pipeline.dataset.letor_blocks import Limits

ISTELLA_MISSING = 1.79769313486e308


@pytest.fixture
def letor(tmp_path):
    """Return a function that writes bytes to a file and reads them as LETOR; it takes limits like options."""

    def read(data: bytes, name: str = "train.txt", **options) -> list[pa.RecordBatch]:
        path = tmp_path / name
        path.write_bytes(data)
        limits = {key: options.pop(key) for key in Limits.__slots__ if key in options}
        return list(read_letor(path, limits=Limits(**limits), **options))

    return read


def rows(batches: list[pa.RecordBatch]) -> list[dict]:
    """Return the rows of all batches."""
    return [row for batch in batches for row in batch.to_pylist()]


def test_schema_and_values(letor):
    """A line becomes qid, label, doc_id and float32 features; only doc_id may be null."""
    (batch,) = letor(b"2 qid:10 1:0.5 3:-7 #docid = A\n0 qid:11 2:1e3\n")
    assert batch.schema == pa.schema(
        [
            pa.field("qid", pa.int64(), nullable=False),
            pa.field("label", pa.uint8(), nullable=False),
            pa.field("doc_id", pa.string()),
            *(pa.field(f"f{i}", pa.float32(), nullable=False) for i in (1, 2, 3)),
        ]
    )
    batch.validate(full=True)
    assert rows([batch]) == [
        {"qid": 10, "label": 2, "doc_id": "A", "f1": 0.5, "f2": 0.0, "f3": -7.0},
        {"qid": 11, "label": 0, "doc_id": None, "f1": 0.0, "f2": 1000.0, "f3": 0.0},
    ]


def test_no_doc_id_column_without_comments(letor):
    """The doc_id column is there only when a row has a document id."""
    (batch,) = letor(b"1 qid:1 1:2 #\n0 qid:1 1:3\n")
    assert batch.schema.names == ["qid", "label", "f1"]


@pytest.mark.parametrize(
    "text",
    [
        b"1 qid:5 1:2 2:3\n0 qid:5 2:4\n",
        b"1 qid:5 2:3 1:2\n0 qid:5 2:4\n",
        b"\xef\xbb\xbf1 qid:5 1:2 2:3\n0 qid:5 2:4\n",
        b"1 qid:5 1:2 2:3\r\n0 qid:5 2:4\r\n",
        b"1\tqid:5\t 1:2 \t2:3\t\n  0   qid:5 2:4   ",
        b"\n# head\n1 qid:5 1:2 2:3\n\n  \t\r\n   # more\n0 qid:5 2:4\n\n#",
        b"1.0 qid:5 01:+2 2:3.\n0.000 qid:5 2:.4e1",
        b"1e0 qid:5 1:2 2:3#\n-0 qid:5 2:4",
        b"+1 qid:5 0000000001:2 2:3 \x0b\x0c\n00 qid:5 2:0004\n",
    ],
)
def test_same_rows_however_they_are_spaced(letor, text):
    """Order of indexes, whitespace, line ends, blank lines, comments and a byte order mark change nothing."""
    for options in ({}, {"block_bytes": 1}, {"block_bytes": 1, "threads": 2}):
        assert [(r["qid"], r["label"], r["f1"], r["f2"]) for r in rows(letor(text, **options))] == [
            (5, 1, 2.0, 3.0),
            (5, 0, 0.0, 4.0),
        ]


@pytest.mark.parametrize(
    ("comment", "doc_id"),
    [
        (b"#docid = GX008-86 inc = 1 prob = 0.08", "GX008-86"),
        (b"#docid=X", "X"),
        (b"# inc = 1 DocID\t= X y", "X"),
        (b"#  docid =X\r", "X"),
        (b"# a free  comment \r", "a free  comment"),
        (b"## x", "# x"),
        (b"# mydocid = 3", "mydocid = 3"),
        (b"# docid docid = 3", "3"),
        (b"# docid", "docid"),
        (b"# docid = \xc3\xa9t\xc3\xa9", "\u00e9t\u00e9"),
        (b"# docid =", None),
        (b"#   ", None),
    ],
)
def test_document_ids(letor, comment, doc_id):
    """``docid = X`` anywhere in the comment names the document, else the comment itself does."""
    (batch,) = letor(b"0 qid:1 1:1 #other\n1 qid:1 1:1 " + comment)
    assert batch["doc_id"].to_pylist() == ["other", doc_id]


@pytest.mark.parametrize(
    "qid", ["0", "-5", "9223372036854775807", "-9223372036854775808", "922337203685477580"]
)
def test_integer_query_ids(letor, qid):
    """Canonical integers that fit int64 stay numbers."""
    (batch,) = letor(f"1 qid:{qid} 1:1\n".encode())
    assert batch["qid"].to_pylist() == [int(qid)]


@pytest.mark.parametrize(
    "qid",
    [
        "007",
        "-0",
        "-",
        "+1",
        "1.0",
        "q1",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
    ],
)
def test_text_query_ids(letor, qid):
    """Anything else makes the whole block's ids text, so that no id is changed."""
    (batch,) = letor(f"1 qid:12 1:1\n1 qid:{qid} 1:1\n".encode())
    assert batch["qid"].to_pylist() == ["12", qid]
    assert not batch.schema.field("qid").nullable


def test_missing_is_zero_or_nan(letor):
    """An absent feature is 0.0 or NaN; a written zero stays zero."""
    text = b"1 qid:1 1:0\n1 qid:1 2:5\n"
    assert letor(text)[0]["f1"].to_pylist() == [0.0, 0.0]
    column = letor(text, missing="nan")[0]["f1"].to_numpy()
    assert column[0] == 0.0
    assert np.isnan(column[1])


@pytest.mark.parametrize(
    ("sentinel", "hit", "near"),
    [
        (
            ISTELLA_MISSING,
            ["1.79769313486e+308", "179769313486E297", "1.797693134860e308"],
            "1.79769313487e308",
        ),
        (-999.0, ["-999", "-999.0", "-9.99e2"], "999"),
        (0.0, ["0", "-0.0", "0e5"], "1e-30"),
        (0.1, ["0.1", "1e-1", "0.10000000000000000555"], "0.10000000000000002"),
        (1e-300, ["1e-300", "0.01e-298"], "1.1e-300"),
        (1.7976931348623157e308, ["1.7976931348623157e308"], "-1.7976931348623157e308"),
        (float("inf"), ["inf", "1e999"], "-inf"),
    ],
)
def test_sentinel_becomes_nan(letor, sentinel, hit, near):
    """A value equal to the sentinel as a double is missing, however it is spelled; its neighbour is not."""
    text = "".join(f"1 qid:1 1:{token}\n" for token in [*hit, near]).encode()
    column = letor(text, sentinel=sentinel)[0]["f1"].to_numpy()
    assert np.isnan(column).tolist() == [True] * len(hit) + [False]


FLOATS = """
0 -0 -0.0 1 +1 1. .5 -.5 1e5 1E5 1e+5 1e-5 1e05 0.1 0.3 16777217 16777219 3.4028235e38 3.4028236e38
3.5e38 1e39 -1e39 1e400 1e-400 1.4e-45 7e-46 7.006492321624085e-46 7.006492321624086e-46 1.17549435e-38
9007199254740993 9007199254740992 123456789012345678901234567890 0.1234567890123456789012345678901
1.00000017881393432617187499 1.00000017881393432617187500 1.00000017881393432617187501 8.5899345920000005e9
1e22 1e23 1e-22 1e-23 123456789012345e-30 nan NaN -nan inf Inf -INF infinity +Infinity 1e00000000000000005
0.00000000000000000000000000000000000001 4.9e-324 1e-310 999999999999999999 9999999999999999999
""".split()  # noqa: SIM905 a quoted list is hard to read
FLOATS += ["0." + "0" * 400 + "1e401", "1" + "0" * 400 + "e-400", "1e-99999", "0e99999"]


def test_floats_equal_python(letor):
    """Each value is numpy.float32(float(token)) to the bit, on fast and slow paths, without a warning."""
    text = "".join(f"1 qid:1 1:{token}\n" for token in FLOATS).encode()
    with np.errstate(over="ignore"):
        expected = np.array([float(t) for t in FLOATS]).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = letor(text)[0]["f1"].to_numpy()
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
    np.testing.assert_array_equal(found, expected)


def made_up_numbers(count: int) -> list[str]:
    """Return numbers of every length and size, many of them as near to halfway between two float32 as can be."""
    rng = np.random.default_rng(11)
    each = count // 10
    digits = ["".join(map(str, rng.integers(0, 10, n))) for n in range(1, 31) for _ in range(40)]
    whole, part = (rng.choice(digits, each) for _ in range(2))
    power, sign = rng.integers(-60, 60, each), rng.choice(["", "-", "+"], each, p=[0.5, 0.4, 0.1])
    single = rng.integers(0, 0x7F7FFFFF, each, dtype=np.uint32)
    low, high = (single + np.uint32(k) for k in (0, 1))
    halfway = (low.view(np.float32).astype(np.float64) + high.view(np.float32)) / 2
    double = rng.integers(0, 2**64, each, dtype=np.uint64).view(np.float64)
    exact = [f"{value:.50e}" for value in halfway[: each // 2]]
    return [
        *(f"{s}{v!r}" for s, v in zip(sign, low.view(np.float32).astype(np.float64).tolist(), strict=True)),
        *map(repr, low.view(np.float32).tolist()),
        *map(repr, double.tolist()),
        *map(repr, halfway.tolist()),
        *map(repr, np.nextafter(halfway, rng.choice([0.0, np.inf], each)).tolist()),
        *exact,
        *(text.replace("e", "1e") for text in exact),
        *(f"{s}{a}.{b}" for s, a, b in zip(sign, whole, part, strict=True)),
        *(f"{s}{a}.{b}e{p}" for s, a, b, p in zip(sign, whole, part, power, strict=True)),
        *(f"{value:.6f}" for value in rng.normal(0, 100, each)),
        *(f"{s}{a}" for s, a in zip(sign, whole, strict=True)),
    ]


def test_two_million_numbers(letor):
    """Numbers of all kinds, a hundred in a line, are those of Python to the bit."""
    tokens = made_up_numbers(2_000_000)
    rng = np.random.default_rng(12)
    rng.shuffle(tokens)
    lines = [tokens[start : start + 100] for start in range(0, len(tokens), 100)]
    text = "".join(f"1 qid:1 {' '.join(f'{i}:{t}' for i, t in enumerate(line, 1))}\n" for line in lines)
    batches = letor(text.encode())
    found = np.concatenate([np.column_stack([batch[f"f{i}"] for i in range(1, 101)]) for batch in batches])
    with np.errstate(over="ignore"):
        expected = np.array([float(token) for token in tokens]).astype(np.float32)
    known = ~np.isnan(expected)
    assert len(tokens) == found.size == 2_000_000
    np.testing.assert_array_equal(np.isnan(found.ravel()), ~known)
    np.testing.assert_array_equal(found.ravel().view(np.uint32)[known], expected.view(np.uint32)[known])


ERRORS = [
    (b"x qid:1 1:1", 1, 1, "label 'x' is not a number"),
    (b"  nan qid:1 1:1", 1, 3, "label 'nan' is not a number"),
    (b"1_0 qid:1", 1, 1, "label '1_0' is not a number"),
    (b"-1 qid:1 1:1", 1, 1, "label '-1' is negative"),
    (b"1.5 qid:1 1:1", 1, 1, "label '1.5' is a fraction"),
    (b"31 qid:1 1:1", 1, 1, "label '31' is above 30"),
    (b"1e3 qid:1 1:1", 1, 1, "label '1e3' is above 30"),
    (b"1 1:2", 1, 3, "expected qid:ID after the label, found '1:2'"),
    (b"1", 1, 2, "expected qid:ID after the label, found the end of the line"),
    (b"1 # x", 1, 3, "expected qid:ID after the label, found the end of the line"),
    (b"1 qid", 1, 3, "expected qid:ID after the label, found 'qid'"),
    (b"1 qid: 1:2", 1, 3, "'qid:' has no query id"),
    (b"1 qid:1 0:2", 1, 9, "feature index 0 in '0:2'"),
    (b"1 qid:1 a:2", 1, 9, "feature index 'a' in 'a:2' is not a whole number"),
    (b"1 qid:1 -1:2", 1, 9, "feature index '-1' in '-1:2' is not a whole number"),
    (b"1 qid:1 7", 1, 9, "feature index '7' in '7' is not a whole number"),
    (b"1 qid:1 1:2 qid:3", 1, 13, "feature index 'qid' in 'qid:3' is not a whole number"),
    (b"1 qid:1 65537:2", 1, 9, "feature index '65537' is above 65536"),
    (b"1 qid:1 18446744073709551617:2", 1, 9, "feature index '18446744073709551617' is above 65536"),
    (b"1 qid:1 3:2 1:1 3:2", 1, 17, "feature index '3' is repeated as '3:2'"),
    (b"1 qid:1 1:", 1, 11, "value '' of feature 1 is not a number"),
    (b"1 qid:1 1: 2:3", 1, 11, "value '' of feature 1 is not a number"),
    (b"1 qid:1 1:1:2", 1, 11, "value '1:2' of feature 1 is not a number"),
    (b"1 qid:1 2:1,5", 1, 11, "value '1,5' of feature 2 is not a number"),
    (b"1 qid:1 1:1_000", 1, 11, "value '1_000' of feature 1 is not a number"),
    (b"1 qid:1 1:0x10", 1, 11, "value '0x10' of feature 1 is not a number"),
    (b"1 qid:1 1:1e", 1, 11, "value '1e' of feature 1 is not a number"),
    (b"1 qid:1 1:-", 1, 11, "value '-' of feature 1 is not a number"),
    (b"1 qid:1 1:nul", 1, 11, "value 'nul' of feature 1 is not a number"),
    (b"1 qid:1 1:NULL", 1, 11, "LETOR's raw NULL files hold missing values"),
    (b"1 qid:1 1:null", 1, 11, "LETOR's raw NULL files hold missing values"),
    (b"1 qid:1 1:" + b"9" * 50 + b"x", 1, 11, "value '" + "9" * 40 + "...'"),
    (b"0 qid:1 1:1\r\n\n# c\n1 qid:1 1:2\t1:3", 4, 13, "feature index '1' is repeated as '1:3'"),
    (b"\xef\xbb\xbf1 qid:1 1:z", 1, 11, "value 'z' of feature 1"),
    (b"1 qid:1 # caf\xe9 docid = \xe9", 1, 24, r"document id '\\xe9' is not UTF-8"),
    (b"1 qid:1 1:1 # ok\n1 qid:1 # \xff\n1 qid:x # ok", 2, 11, r"document id '\\xff' is not UTF-8"),
    (b"#" + b"-" * 5000 + b"\n1 qid:\xff 1:2", 2, 7, r"query id '\\xff' is not UTF-8"),
    (b"# \xff\n1 qid:\xff 0:2", 2, 7, r"query id '\\xff' is not UTF-8"),
    (b"# \xff\n1 qid:a 1:x 0:2\n1 qid:\xff", 2, 11, "value 'x' of feature 1 is not a number"),
    (b"#" + b"-" * 5000 + b"\n1 qid:1 1:2\n1 qid:1 1:2\0", 3, 12, "a NUL byte: looks like a binary file"),
]


@pytest.mark.parametrize(("text", "line", "column", "what"), ERRORS)
@pytest.mark.parametrize("options", [{}, {"block_bytes": 1}, {"block_bytes": 16, "threads": 2}])
def test_errors_say_where_and_what(letor, tmp_path, text, line, column, what, options):
    """Every mistake is one line with file, line, byte column and the token, for any blocks and threads."""
    with pytest.raises(SourceError) as caught:
        letor(text, **options)
    error = caught.value
    assert (error.file, error.line, error.column) == (tmp_path / "train.txt", line, column)
    assert str(error).startswith(f"{tmp_path / 'train.txt'}:{line}:{column}: ")
    assert what in str(error)
    assert "\n" not in str(error)


LATER = b"0 qid:1 1:1\n" * 300
MIXED = [b"1 qid:1 1:oops", b"1 qid:1 2:1 2:1", b"9.5 qid:1 1:1", b"1 qid:1 1:1 #\xff", b"1 qid:1 1:1 #\0"]


@pytest.mark.parametrize("first", MIXED)
@pytest.mark.parametrize("second", MIXED)
@pytest.mark.parametrize("options", [{}, {"block_bytes": 50, "threads": 2}])
def test_first_bad_line_is_reported(letor, first, second, options):
    """Whichever stage of reading finds it, the first bad line is the one reported."""
    text = b"#" * 5000 + b"\n" + b"\n".join([LATER, first, LATER, second, LATER])
    with pytest.raises(SourceError) as caught:
        letor(text, **options)
    assert caught.value.line == 1 + 301 + 1


def test_bad_line_before_the_damage_is_reported(letor):
    """With several blocks under way, a bad line comes before a truncation behind it, also in the file."""
    data = gzip.compress(b"0 qid:1 1:x\n" + LATER)[:-8]
    for options in ({}, {"block_bytes": 64, "threads": 2}):
        with pytest.raises(SourceError, match=r":1:11: value 'x'"):
            letor(data, "train.txt.gz", **options)


COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed(letor, suffix):
    """Compressed files give the same rows, also when they are several streams one after the other."""
    text = b"".join(b"%d qid:%d 1:%d\n" % (i % 3, i // 10, i) for i in range(5000))
    data = COMPRESS[suffix](text[:30_007]) + COMPRESS[suffix](text[30_007:])
    assert rows(letor(data, "t.txt" + suffix, block_bytes=4096)) == rows(letor(text))


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "garbled", "not compressed"])
def test_damaged_compression(letor, suffix, damage):
    """A truncated or corrupt compressed file is said to be one."""
    rng = np.random.default_rng(0)
    text = b"".join(b"1 qid:1 1:%d\n" % i for i in rng.integers(0, 10**9, 20_000).tolist())
    data = COMPRESS[suffix](text)
    middle = len(data) // 2
    broken = {
        "cut": data[:middle],
        "garbled": data[:middle] + bytes(64) + data[middle + 64 :],
        "not compressed": text,
    }[damage]
    with pytest.raises(SourceError, match=rf"truncated or corrupt {suffix} data|:\d+:\d+: ") as caught:
        letor(broken, "t.txt" + suffix)
    if damage != "garbled":
        assert "truncated or corrupt" in str(caught.value)
        assert caught.value.line is not None


@pytest.mark.parametrize(
    "head",
    [
        b"PAR1\x15\x04\x00\x00",
        b"\xff\xfe1\x00 \x00q\x00",
        b"\x89PNG\r\n\x1a\n",
        b"1 qid:1 1:1\n\x00",
        b"\xff\xfd",
    ],
)
def test_binary_files(letor, head):
    """A start that is not text is called a binary file."""
    with pytest.raises(SourceError, match="looks like a binary file"):
        letor(head)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_misnamed_compressed_file(letor, suffix):
    """A compressed file without its suffix is recognised by its first bytes."""
    with pytest.raises(SourceError, match=rf"it holds {suffix} data"):
        letor(COMPRESS[suffix](b"1 qid:1 1:1\n"))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only a comment\n", b"\xef\xbb\xbf"])
def test_no_rows(letor, data):
    """A file without a data row is an error, not an empty table."""
    with pytest.raises(SourceError, match="holds no rows"):
        letor(data)


def test_missing_file_names_its_neighbour(tmp_path):
    """A misspelled file name is answered with the one that exists."""
    (tmp_path / "train.txt").touch()
    with pytest.raises(SourceError, match=r"trian.txt: no such file. Did you mean 'train.txt'\?"):
        list(read_letor(tmp_path / "trian.txt"))
    with pytest.raises(SourceError, match="no such file"):
        list(read_letor(tmp_path / "nowhere" / "train.txt"))


def test_directory(tmp_path):
    """A directory is not a LETOR file."""
    with pytest.raises(SourceError, match="is a directory"):
        list(read_letor(tmp_path))


def test_unreadable_file(tmp_path, monkeypatch):
    """A file without read permission says so."""

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=r"cannot be read \(Permission denied\)"):
        list(read_letor(tmp_path / "train.txt"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"missing": "null"}, "missing"),
        ({"threads": 0}, "threads"),
        ({"limits": Limits(block_bytes=0)}, "block_bytes"),
    ],
)
def test_options_are_checked(options, what):
    """A setting out of its range is refused by name before the file is touched."""
    with pytest.raises(ConfigError, match=what):
        read_letor(Path("nowhere"), **options)


def test_lines_longer_than_a_block(letor):
    """A line longer than a block stays whole."""
    text = b"1 qid:1 " + b" ".join(b"%d:%d" % (i, i) for i in range(1, 5001))
    text += b"\n0 qid:2 1:3 #" + b"x" * 100 + b"\n"
    first, second = letor(text, block_bytes=100)
    assert first["f5000"].to_pylist() == [5000.0]
    assert second.num_columns == 4


def test_endless_line(letor):
    """A line beyond the limit is an error with its number, not a full memory."""
    with pytest.raises(SourceError, match=r"train.txt:2: the line is longer than 1 MiB"):
        letor(b"1 qid:1 1:1\n" + b"1 " * 3_000_000, line_bytes=2_000_000, block_bytes=1_000_000)


def test_wide_sparse_blocks_come_in_parts(letor):
    """A block whose dense form would be large comes as several batches of the same width, all rows there."""
    text = b"".join(b"%d qid:1 %d:+%d #d%d\n" % (i % 31, 1 + i * 4 % 400, i, i) for i in range(100))
    batches = letor(text, missing="nan", batch_cells=1000)
    assert [(b.num_rows, b.schema.names[-1]) for b in batches] == [(2, "f397")] * 50
    for i, row in enumerate(rows(batches)):
        present = {k: v for k, v in row.items() if k.startswith("f") and not np.isnan(v)}
        assert (row["label"], row["doc_id"], present) == (i % 31, f"d{i}", {f"f{1 + i * 4 % 400}": float(i)})


def test_many_tokens_for_python(letor):
    """More odd tokens than there is room for at first are all settled."""
    text = b"".join(b"+1 qid:1 1:-nan 2:1e-%05d\n" % i for i in range(1500))
    (batch,) = letor(text)
    assert batch["label"].to_pylist() == [1] * 1500
    assert np.isnan(batch["f1"].to_numpy()).all()
    assert batch["f2"].to_pylist() == [float(np.float32(float(f"1e-{i}"))) for i in range(1500)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_stored_bytes(letor, tmp_path, suffix, threads):
    """The progress calls add up to the size of the file as stored."""
    text = b"".join(b"1 qid:1 1:%d\n" % i for i in range(20_000))
    calls: list[int] = []
    data = gzip.compress(text) if suffix else text
    letor(data, "t.txt" + suffix, progress=calls.append, block_bytes=1000, threads=threads)
    assert sum(calls) == len(data)
    assert min(calls) > 0


def test_threads_keep_the_order(letor):
    """Rows come in input order with any number of threads, and the reader can be left early."""
    text = b"".join(b"1 qid:%d 1:1\n" % i for i in range(5000))
    assert [r["qid"] for r in rows(letor(text, block_bytes=200, threads=3))] == list(range(5000))


def test_reader_can_be_left_early(tmp_path):
    """Closing the iterator stops the threads and closes the file."""
    path = tmp_path / "t.txt"
    path.write_bytes(b"1 qid:1 1:1\n" * 5000)
    batches = read_letor(path, limits=Limits(block_bytes=100), threads=2)
    next(batches)
    batches.close()
    path.unlink()


def test_import_does_not_compile():
    """Importing the module loads no compiler."""
    code = "import sys, pipeline.dataset.letor; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


BATCH = pa.RecordBatch.from_pydict(
    {
        "qid": pa.array([3, 3]),
        "label": pa.array([2, 0], pa.uint8()),
        "doc_id": pa.array(["A", None]),
        "f1": pa.array([0.1, 0.0], pa.float32()),
        "f2": pa.array([-0.0, float("nan")], pa.float32()),
    }
)


def test_written_text(tmp_path):
    """Values are the shortest decimals that give the float32 back; zeros may be left out."""
    path = tmp_path / "out.txt"
    write_letor([BATCH], path)
    assert path.read_text() == "2 qid:3 1:0.1 2:-0 #docid = A\n0 qid:3 1:0 2:nan\n"
    write_letor([BATCH], path, sparse=True)
    assert path.read_text() == "2 qid:3 1:0.1 2:-0 #docid = A\n0 qid:3 2:nan\n"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_written_files_are_reproducible(tmp_path, suffix):
    """The same rows give the same compressed bytes, whatever the name and the time."""
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_letor([BATCH] * 3, first)
    write_letor([BATCH] * 3, second)
    assert first.read_bytes() == second.read_bytes()
    assert len(rows(list(read_letor(first)))) == 6


def test_gzip_header_has_no_time(tmp_path):
    """Bytes 4 to 8 of a gzip file are its time: zero here."""
    write_letor([BATCH], tmp_path / "a.gz")
    assert (tmp_path / "a.gz").read_bytes()[3:8] == bytes(5)


def with_column(name: str, values: pa.Array) -> pa.RecordBatch:
    """Return BATCH with one column replaced or added."""
    columns = dict(zip(BATCH.schema.names, BATCH.columns, strict=True))
    return pa.RecordBatch.from_pydict(columns | {name: values})


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        (BATCH.select(["label", "f1"]), "needs a column 'qid'"),
        (with_column("f1", pa.array([None, 1.0], pa.float32())), "'f1' has nulls"),
        (with_column("f0", pa.array([1.0, 1.0], pa.float32())), "'f0' is not a feature"),
        (with_column("label", pa.array([1, 31], pa.uint8())), "labels reach from 1 to 31"),
        (with_column("qid", pa.array(["a", "b c"])), "query id 'b c'"),
        (with_column("qid", pa.array(["a", ""])), "query id ''"),
        (with_column("doc_id", pa.array(["a", "b\nc"])), "document id"),
        (with_column("doc_id", pa.array(["a", " b"])), "document id ' b'"),
        (with_column("doc_id", pa.array(["a", "b docid = c"])), "would be read back in part"),
    ],
)
def test_what_cannot_be_written(tmp_path, batch, what):
    """A table the format cannot carry is refused, never written so that it reads back as another."""
    with pytest.raises(TableError, match=what):
        write_letor([batch], tmp_path / "out.txt")


def test_unwritable_place(tmp_path):
    """A directory that is not there is a storage error."""
    with pytest.raises(StorageError, match="cannot be written"):
        write_letor([BATCH], tmp_path / "nowhere" / "out.txt")


def test_nothing_to_compile_twice():
    """A kernel that this process has used is there."""
    warm_up()
    assert not must_compile()


ASK = "from pipeline.dataset.letor import must_compile, warm_up; print(must_compile()); warm_up()"


def test_compiling_is_foreseen(tmp_path):
    """It is necessary where the cache is empty, and not once a process has compiled."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ask = [sys.executable, "-c", f"{ASK}; print(must_compile())"]
    found = [subprocess.run(ask, env=environment, check=True, capture_output=True, text=True) for _ in "ab"]
    assert [process.stdout.split() for process in found] == [["True", "False"], ["False", "False"]]


def test_a_kernel_that_cannot_be_cached():
    """Where numba finds no place for the machine code, as for a function of no file, the kernel works anyhow."""
    from pipeline.dataset.letor_kernel import compiled

    names = {}
    exec(compile("def double(x): return 2 * x", "nowhere", "exec"), names)  # noqa: S102 - two words of our own
    assert compiled(names["double"])(3) == 6
