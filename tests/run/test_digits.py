"""The digits set: made again byte for byte, splits that share no image, rows in no telling order."""

import gzip
import hashlib
import importlib.util
import re
import zlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import ndcg_score

DATA = Path(__file__).parents[2] / "data"
QUERIES = {"train": 300, "vali": 100, "test": 100}
CANDIDATES = 120
FEATURES = 30
ROW = re.compile(rb"([01]) qid:(\d+) (.+) #docid = digit-(\d{4})")


class Split(NamedTuple):
    label: np.ndarray
    query: np.ndarray
    document: np.ndarray
    feature: np.ndarray  # rows x FEATURES


def _read(split: str) -> Split:
    """Read a split by the format its description promises, with nothing but a regular expression."""
    lines = gzip.decompress((DATA / "digits" / f"{split}.txt.gz").read_bytes()).splitlines()
    label, query, features, document = zip(*(ROW.fullmatch(line).groups() for line in lines), strict=True)
    pairs = np.array(re.split(rb"[ :]", b" ".join(features)), float).reshape(len(lines), FEATURES, 2)
    assert (pairs[:, :, 0] == np.arange(1, FEATURES + 1)).all()
    return Split(np.array(label, int), np.array(query, int), np.array(document, int), pairs[:, :, 1])


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    """The three committed files."""
    return {split: _read(split) for split in QUERIES}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, imported from its path."""
    spec = importlib.util.spec_from_file_location("make_digits", DATA / "make_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regenerates_the_committed_bytes(script, tmp_path):
    """The script writes what is committed; zlib-ng packs the same text into other bytes."""
    source = load_digits()
    found = hashlib.sha256(source.images.astype("u1").tobytes() + source.target.astype("u1").tobytes())
    if found.hexdigest() != script.SOURCE_SHA256:
        pytest.skip("this scikit-learn ships other digits than the set was made from")
    script.main(["--out", str(tmp_path)])
    for split in QUERIES:
        made = (tmp_path / f"{split}.txt.gz").read_bytes()
        committed = (DATA / "digits" / f"{split}.txt.gz").read_bytes()
        assert gzip.decompress(made) == gzip.decompress(committed)
        assert made == committed or "zlib-ng" in zlib.ZLIB_RUNTIME_VERSION


def test_other_source_data_is_refused(script, monkeypatch):
    """Digits that are not those of the recorded fingerprint raise an error that shows both."""
    monkeypatch.setattr(script, "SOURCE_SHA256", "f" * 64)
    with pytest.raises(ValueError, match=r"has SHA-256 [0-9a-f]{64}, expected f{64}"):
        script.load_images()


def test_gzip_header_holds_no_time_and_no_name():
    """Flags 0 (no file name) and time 0, by RFC 1952."""
    for split in QUERIES:
        header = (DATA / "digits" / f"{split}.txt.gz").read_bytes()[:8]
        assert header == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_size_stays_small():
    """The three files together take at most 3 MB of the repository."""
    assert sum(path.stat().st_size for path in (DATA / "digits").glob("*.gz")) <= 3_000_000


def test_shapes(splits):
    """Every query has 120 different candidates and is not its own candidate."""
    for name, split in splits.items():
        queries, counts = np.unique(split.query, return_counts=True)
        assert len(queries) == QUERIES[name]
        assert (counts == CANDIDATES).all()
        assert len(np.unique(np.column_stack([split.query, split.document]), axis=0)) == len(split.label)
        assert (split.query != split.document).all()


def test_splits_share_no_image(splits):
    """An image is query or candidate in one split only."""
    images = [set(split.query) | set(split.document) for split in splits.values()]
    assert sum(map(len, images)) == len(set.union(*images)) == 1797


def test_labels_say_same_digit(splits):
    """A label is 1 exactly when scikit-learn gives both images the same digit."""
    digits = load_digits().target
    for split in splits.values():
        np.testing.assert_array_equal(split.label, digits[split.query] == digits[split.document])


def test_about_a_tenth_is_relevant_and_no_query_is_empty(splits):
    """Ten digits, drawn at their natural frequency."""
    for split in splits.values():
        assert 0.09 < split.label.mean() < 0.11
        assert (np.bincount(split.query, split.label)[np.unique(split.query)] >= 1).all()


def test_rows_are_shuffled(splits):
    """Queries are not contiguous, and the place of a row says nothing about its label."""
    for name, split in splits.items():
        assert (np.diff(split.query) != 0).mean() > 0.95
        assert len(np.unique(split.query[:1000])) > 0.9 * QUERIES[name]
        assert 0.05 < split.label[:1000].mean() < 0.15
        assert abs(np.corrcoef(np.arange(len(split.label)), split.label)[0, 1]) < 0.03


def test_features_are_finite_and_none_is_constant(splits):
    """Each of the 30 columns has finite values, and more than one."""
    for split in splits.values():
        assert np.isfinite(split.feature).all()
        assert (np.ptp(split.feature, axis=0) > 0).all()


def test_description_lists_the_columns(script):
    """The table in the README names the columns in the order they are written."""
    names = list(script.compare(*np.ones((2, 1, 8, 8), int) * np.arange(8)))
    text = (DATA / "README.md").read_text(encoding="utf-8")
    told = [
        (int(number), name)
        for columns, cell in re.findall(r"^\| (\d\S*(?:, \d+)*) \| (`[a-z].*?) \|", text, re.MULTILINE)
        for number, name in zip(re.findall(r"\d+", columns), re.findall(r"`(\w+)`", cell), strict=False)
    ]
    assert len(told) == 16
    assert [names[number - 1] for number, _ in told] == [name for _, name in told]
    assert len(names) == FEATURES


def test_an_image_is_like_itself(script):
    """All differences of an image to itself are 0 and its correlation is 1."""
    images, _ = script.load_images()
    values = {name: column for name, (_, column) in script.compare(images, images).items()}
    assert (values.pop("correlation") == 1).all()
    assert not any(column.any() for column in values.values())


def test_comparison_by_hand(script):
    """Two dots of ink 10, one pixel apart in a row: every column as counted on paper."""
    a, b = np.zeros((2, 1, 8, 8), int)
    a[0, 2, 3] = b[0, 2, 4] = 10
    values = {name: float(column[0]) for name, (_, column) in script.compare(a, b).items()}
    # Blurred: rows of weights 1 2 1, 2 4 2, 1 2 1 side by side differ by 1 1 -1 -1, 2 2 -2 -2, 1 1 -1 -1.
    expected = {"l1": 20, "l2": 14, "linf": 10, "l2_blurred": round(10 * 24**0.5 / 16), "centre_x": 1}
    expected |= {"column_4": 10, "column_5": 10, "edges_y": 40, "edges_x": 40, "correlation": -0.02}
    assert {name: value for name, value in values.items() if value} == expected


def test_neither_trivial_nor_hopeless(splits):
    """LambdaMART stays clearly below a perfect NDCG@10 and clearly above the best single distance."""
    train, vali = (_by_query(splits[name]) for name in ("train", "vali"))
    parameters = {
        "objective": "lambdarank", "num_leaves": 7, "min_data_in_leaf": 50, "learning_rate": 0.1,
        "num_threads": 1, "deterministic": True, "force_col_wise": True, "verbosity": -1,
    }  # fmt: skip
    groups = np.full(QUERIES["train"], CANDIDATES)
    model = lgb.train(parameters, lgb.Dataset(train.feature, train.label, group=groups), 100)
    label = vali.label.reshape(-1, CANDIDATES)
    learned = ndcg_score(label, model.predict(vali.feature).reshape(-1, CANDIDATES), k=10)
    single = [ndcg_score(label, s.reshape(-1, CANDIDATES), k=10) for c in vali.feature.T for s in (c, -c)]
    assert 0.84 < learned < 0.91
    assert learned > max(single) + 0.03


def _by_query(split: Split) -> Split:
    order = np.argsort(split.query, kind="stable")
    return Split(*(column[order] for column in split))
