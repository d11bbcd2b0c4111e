"""Binned splits: their bytes, the models trained on them, and when they are made again."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from pipeline.core.config import RankerConfig
from pipeline.core.errors import StorageError
from pipeline.core.files import Fingerprints
from pipeline.dataset import parts
from pipeline.ranker import bin_cache as bins
from pipeline.ranker import binning as binned
from pipeline.ranker import fit as ranker
from pipeline.ranker.bin_cache import Bins
from pipeline.ranker.predict import predict
from tests.samples import NOISE_FEATURES, judgments, write_part

CONFIG = RankerConfig(trees=8, leaves=5, min_rows_per_leaf=5)
PARAMETERS = ranker.parameters(CONFIG, seed=7)
FEATURES = [f"f{i}" for i in range(1, NOISE_FEATURES + 2)]


def with_holes():
    """Return rows with zeros, missing values, few values and values too small to be other than zero."""
    frame = judgments(60, 20, seed=3)
    place = pl.int_range(pl.len())
    return frame.with_columns(
        f2=pl.when(place % 3 == 0).then(0.0).otherwise("f2").cast(pl.Float32),
        f3=pl.when(place % 5 == 0).then(float("nan")).otherwise("f3").cast(pl.Float32),
        f4=pl.when(place % 7 == 0).then(1e-36).otherwise(place % 4).cast(pl.Float32),
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Return a directory with ``train.parquet`` and its ``bins`` of one thread."""
    where = tmp_path_factory.mktemp("binned")
    write_part(where / "train.parquet", with_holes())
    facts = ranker.bin_rows([where / "train.parquet"], where / "bins", config=CONFIG, threads=1)
    assert facts["rows"] == 60 * 20
    return where


def fit(split, model, **options):
    """Fit on the split."""
    return ranker.fit([split / "train.parquet"], model, config=CONFIG, seed=7, threads=1, **options)


# ---- What is in the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampled", [False, True], ids=["bins of all rows", "bins of a sample"])
def test_bytes_do_not_depend_on_threads_and_row_groups(tmp_path, monkeypatch, sampled):
    """Two parts of many row groups on two threads give the file of one row group on one."""
    lightgbm = pytest.importorskip("lightgbm")
    if sampled:
        monkeypatch.setattr(binned, "SAMPLE_ROWS", 300)
    frame = with_holes()
    one = write_part(tmp_path / "one.parquet", frame)
    monkeypatch.setattr(parts, "rows_per_group", lambda features: 30)
    many = [
        write_part(tmp_path / "a.parquet", frame.head(500)),
        write_part(tmp_path / "b.parquet", frame[500:]),
    ]
    for name, files, threads in (("one", [one], 1), ("many", many, 2)):
        data = binned.build(files, parameters={**PARAMETERS, "num_threads": threads})
        binned.save(data, tmp_path / name)
        assert isinstance(data, lightgbm.Dataset)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_bins_are_lightgbms_own(split):
    """Without sampling, every feature has as many bins as LightGBM gives it, and labels are the rows'."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = with_holes()
    data = binned.load(split / "bins", PARAMETERS)
    own = lightgbm.Dataset(
        frame.select(FEATURES).to_numpy(), label=frame["label"].to_numpy(), params=binned.settings(PARAMETERS)
    ).construct()
    assert [data.feature_num_bin(i) for i in range(4)] == [own.feature_num_bin(i) for i in range(4)]
    np.testing.assert_array_equal(data.get_label(), frame["label"].to_numpy())
    assert data.get_feature_name() == FEATURES


@pytest.mark.parametrize("key", ["num_leaves", "min_data_in_leaf", "learning_rate", "seed", "objective"])
def test_settings_of_the_trees_do_not_count(key):
    """Only what decides the bins is in the settings they are kept under."""
    assert binned.settings({**PARAMETERS, key: 3}) == binned.settings(PARAMETERS)
    assert binned.settings({**PARAMETERS, "max_bin": 63}) != binned.settings(PARAMETERS)


# ---- Models ------------------------------------------------------------------------------------------------


def test_bins_train_the_model_of_the_rows(split, tmp_path):
    """A split trains the very same model from its bins as from its rows."""
    fit(split, tmp_path / "rows.txt")
    facts = fit(split, tmp_path / "bins.txt", bins=split / "bins")
    assert facts.rows == 1200
    assert (tmp_path / "rows.txt").read_bytes() == (tmp_path / "bins.txt").read_bytes()


def test_rows_taken_out_train_what_lightgbm_does_on_the_same_bins(split, tmp_path):
    """Some of the rows, of some of the queries, give the model of a data set made by the bins of the whole."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = with_holes()
    some = frame.filter((pl.col("qid") % 3 != 0) & ((pl.col("row_id") % 2 == 0) | (pl.col("label") > 0)))
    some.select("row_id").write_parquet(tmp_path / "rows.parquet")
    fit(split, tmp_path / "taken.txt", rows=tmp_path / "rows.parquet", bins=split / "bins")
    settings = {**PARAMETERS, "num_threads": 1}
    whole = lightgbm.Dataset(
        frame.select(FEATURES).to_numpy(), label=frame["label"].to_numpy(), params=settings
    )
    data = lightgbm.Dataset(
        some.select(FEATURES).to_numpy(),
        label=some["label"].to_numpy(),
        group=some["qid"].rle().struct.field("len").to_numpy(),
        reference=whole,
        params=settings,
    )
    direct = lightgbm.train(settings, data, num_boost_round=8)
    scored = predict([tmp_path / "taken.txt"], [split / "train.parquet"], threads=1)
    expected = direct.predict(frame.select(FEATURES).to_numpy(), num_threads=1)
    np.testing.assert_allclose(scored["score"].to_numpy(), expected, rtol=1e-12)


def test_bins_that_cannot_be_written(split, tmp_path):
    """The directory that is not there reaches the user as a storage error."""
    with pytest.raises(StorageError, match=r"^binning the training split: .*nowhere/bins: cannot"):
        ranker.bin_rows([split / "train.parquet"], tmp_path / "nowhere" / "bins", config=CONFIG, threads=1)


# ---- Keeping them ------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """Bin in this process, and count how often."""
    count = []

    def here(files, out, *, config, threads):
        count.append(threads)
        binned.save(binned.build(files, parameters=ranker.parameters(config, seed=0)), out)

    monkeypatch.setattr(ranker, "bin_rows", here)
    return count


def kept(split, at, config=CONFIG):
    """Ask a new run for the bins of the split."""
    return Bins(Fingerprints(), threads=2).of([split / "train.parquet"], at, config=config)


def test_bins_are_made_once(split, tmp_path, made):
    """A second run, and one with other trees, finds them; their bytes are those of the child."""
    file = kept(split, tmp_path / "bins")
    other = CONFIG.model_copy(update={"trees": 3, "leaves": 9, "min_rows_per_leaf": 77})
    assert kept(split, tmp_path / "bins", other) == file
    assert made == [2]
    assert file.read_bytes() == (split / "bins").read_bytes()


@pytest.mark.parametrize("change", ["deleted", "cut short", "card", "rows", "settings"])
def test_stale_bins_are_made_again(split, tmp_path, made, change):
    """Bins that are gone, damaged, or of other rows or settings are made again, and then they are good."""
    source = tmp_path / "source"
    shutil.copytree(split, source)
    file = kept(source, tmp_path / "bins")
    whole, config = file.read_bytes(), CONFIG
    if change == "deleted":
        shutil.rmtree(tmp_path / "bins")
    elif change == "cut short":
        file.write_bytes(whole[:-100])
    elif change == "card":
        (tmp_path / "bins" / "bins.json").write_text(json.dumps({"key": "?"}))
    elif change == "rows":
        write_part(source / "train.parquet", with_holes().head(900))
    else:
        config = CONFIG.model_copy(update={"max_bin": 15})
    kept(source, tmp_path / "bins", config)
    assert len(made) == 2
    assert (file.read_bytes() == whole) == (change not in ("rows", "settings"))
    kept(source, tmp_path / "bins", config)
    assert len(made) == 2


def test_a_small_split_is_binned_where_it_is_needed(split, monkeypatch):
    """1,200 rows of 4 features are 4,800 values."""
    assert not bins.are_worth_it([split / "train.parquet"])
    monkeypatch.setattr(bins, "WORTH", 4800)
    assert bins.are_worth_it([split / "train.parquet"])
    monkeypatch.setattr(bins, "WORTH", 4801)
    assert not bins.are_worth_it([split / "train.parquet"])
