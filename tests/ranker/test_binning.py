"""Binned splits: their bytes, the models trained on them, and when they are made again."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from pipeline.core.config import RankerConfig
from pipeline.core.errors import StorageError
from pipeline.ranker import binning
from pipeline.ranker.bin_cache import binned_split
from pipeline.ranker.fit import Training, bin_rows, fit_all, parameters
from pipeline.ranker.predict import predict
from tests.samples import NOISE_FEATURES, judgments, write_part

CONFIG = RankerConfig(trees=8, leaves=5, min_rows_per_leaf=5)
PARAMETERS = parameters(CONFIG, seed=7)
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
    facts = bin_rows([where / "train.parquet"], where / "bins", config=CONFIG, threads=1)
    assert facts["rows"] == 60 * 20
    return where


def fit(split, model, *, rows=None, bins=None):
    """Fit on the split."""
    training = Training([split / "train.parquet"], model, rows)
    return fit_all([training], config=CONFIG, seed=7, threads=1, bins=bins)


# ---- What is in the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampled", [False, True], ids=["bins of all rows", "bins of a sample"])
def test_bytes_do_not_depend_on_threads_and_row_groups(tmp_path, sampled):
    """Two parts of many row groups on two threads give the file of one row group on one."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = with_holes()
    one = write_part(tmp_path / "one.parquet", frame)
    many = [
        write_part(tmp_path / "a.parquet", frame.head(500), rows=30),
        write_part(tmp_path / "b.parquet", frame[500:], rows=30),
    ]
    for name, files, threads in (("one", [one], 1), ("many", many, 2)):
        settings = {**PARAMETERS, "num_threads": threads}
        data = binning.build(files, parameters=settings, sample_rows=300 if sampled else binning.SAMPLE_ROWS)
        binning.save(data, tmp_path / name)
        assert isinstance(data, lightgbm.Dataset)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_bins_are_lightgbms_own(split):
    """Without sampling, every feature has as many bins as LightGBM gives it, and labels are the rows'."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = with_holes()
    data = binning.load(split / "bins", PARAMETERS)
    own = lightgbm.Dataset(
        frame.select(FEATURES).to_numpy(),
        label=frame["label"].to_numpy(),
        params=binning.settings(PARAMETERS),
    ).construct()
    assert [data.feature_num_bin(i) for i in range(4)] == [own.feature_num_bin(i) for i in range(4)]
    np.testing.assert_array_equal(data.get_label(), frame["label"].to_numpy())
    assert data.get_feature_name() == FEATURES


@pytest.mark.parametrize("key", ["num_leaves", "min_data_in_leaf", "learning_rate", "seed", "objective"])
def test_settings_of_the_trees_do_not_count(key):
    """Only what decides the bins is in the settings they are kept under."""
    assert binning.settings({**PARAMETERS, key: 3}) == binning.settings(PARAMETERS)
    assert binning.settings({**PARAMETERS, "max_bin": 63}) != binning.settings(PARAMETERS)


# ---- Models ------------------------------------------------------------------------------------------------


def test_bins_train_the_model_of_the_rows(split, tmp_path):
    """A split trains the very same model from its bins as from its rows."""
    fit(split, tmp_path / "rows.txt")
    facts = fit(split, tmp_path / "bins.txt", bins=split / "bins")
    assert facts["rows"] == 1200
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
        bin_rows([split / "train.parquet"], tmp_path / "nowhere" / "bins", config=CONFIG, threads=1)


# ---- Keeping them ------------------------------------------------------------------------------------------


def kept(split, at, config=CONFIG):
    """Ask a new run for the bins of the split; returns the file and which one it is."""
    file = binned_split([split / "train.parquet"], at, config=config, threads=2)
    return file, file.stat().st_ino


def test_bins_are_made_once(split, tmp_path):
    """A second run, and one with other trees, finds them; their bytes do not depend on the threads."""
    made = kept(split, tmp_path / "bins")
    other = CONFIG.model_copy(update={"trees": 3, "leaves": 9, "min_rows_per_leaf": 77})
    assert kept(split, tmp_path / "bins", other) == made
    assert made[0].read_bytes() == (split / "bins").read_bytes()


def test_those_that_ask_at_once_wait_for_the_first(split, tmp_path):
    """Four threads, which open the lock as processes do, get one and the same file, made once."""
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: kept(split, tmp_path / "bins"), range(4)))
    assert len(found) == 1
    assert sorted(path.name for path in (tmp_path / "bins").iterdir()) == [".lock", "bins.bin", "bins.json"]


@pytest.mark.parametrize("change", ["deleted", "cut short", "card", "rows", "settings"])
def test_stale_bins_are_made_again(split, tmp_path, change):
    """Bins that are gone, damaged, or of other rows or settings are made again, and then they are good."""
    source = tmp_path / "source"
    shutil.copytree(split, source)
    file, first = kept(source, tmp_path / "bins")
    whole, config = file.read_bytes(), CONFIG
    keep = tmp_path / "keep"  # so that the file system cannot give its number to the next file
    os.link(file, keep)
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
    _, second = kept(source, tmp_path / "bins", config)
    assert second != first
    assert (file.read_bytes() == whole) == (change not in ("rows", "settings"))
    assert kept(source, tmp_path / "bins", config) == (file, second)
