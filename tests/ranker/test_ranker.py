"""LambdaMART in its child process: the model's bytes, the ways it can fail, and predictions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from pipeline.core import tables
from pipeline.core.config import RankerConfig
from pipeline.core.errors import DeviceError, StorageError, TrainingError
from pipeline.dataset import parts
from pipeline.ranker import fit as ranker
from pipeline.ranker import processes as child
from pipeline.ranker.predict import predict
from tests.samples import NOISE_FEATURES, judgments, write_part

CONFIG = RankerConfig(trees=12, leaves=5, min_rows_per_leaf=5)
FEATURES = [f"f{i}" for i in range(1, NOISE_FEATURES + 2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a directory with ``train.parquet``, ``vali.parquet`` and a model of ``train`` on one thread."""
    where = tmp_path_factory.mktemp("ranker")
    write_part(where / "train.parquet", judgments(seed=1))
    write_part(where / "vali.parquet", judgments(20, seed=2))
    fit(where, where / "model.txt")
    return where


def fit(data, model, *, file="train.parquet", config=CONFIG, threads=1, **options):
    """Fit on one file of ``data``."""
    return ranker.fit([data / file], model, config=config, seed=7, threads=threads, **options)


def own_children():
    """Return the ranker processes of this process."""
    return [child for child in psutil.Process().children() if "pipeline.ranker" in " ".join(child.cmdline())]


def wait_until(condition, seconds=30):
    """Return whether ``condition`` came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# ---- The model ---------------------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_threads(data, tmp_path):
    """Two threads write the very model of one, and the facts and reports are plausible."""
    told = []
    facts = fit(data, tmp_path / "model.txt", threads=2, trees_done=told.append)
    assert (tmp_path / "model.txt").read_bytes() == (data / "model.txt").read_bytes()
    assert facts.trees == 12
    assert facts.rows == 40 * 12
    assert facts.seconds > 0
    assert 50 < facts.peak_memory_mb < 4000
    assert told == sorted(told)
    assert set(told) <= set(range(1, 13))


def test_agrees_with_lightgbm_called_directly(data, tmp_path):
    """The child trains what ``lightgbm.train`` does with the same parameters, labels, groups and weights."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = judgments(seed=1).with_columns(weight=pl.Series(np.linspace(0.5, 3, 480), dtype=pl.Float32))
    write_part(tmp_path / "weighted.parquet", frame)
    fit(tmp_path, tmp_path / "model.txt", file="weighted.parquet")
    dataset = lightgbm.Dataset(
        frame.select(FEATURES).to_numpy(),
        label=frame["label"].to_numpy(),
        group=np.full(40, 12),
        weight=frame["weight"].to_numpy(),
    )
    settings = ranker.parameters(CONFIG, seed=7) | {"num_threads": 1}
    direct = lightgbm.train(settings, dataset, num_boost_round=12)
    scored = predict([tmp_path / "model.txt"], [tmp_path / "weighted.parquet"], threads=1)
    expected = direct.predict(frame.select(FEATURES).to_numpy(), num_threads=1)
    np.testing.assert_allclose(scored["score"].to_numpy(), expected, rtol=1e-12)
    unweighted = predict([data / "model.txt"], [tmp_path / "weighted.parquet"], threads=1)
    assert not np.allclose(unweighted["score"].to_numpy(), expected)


def test_rows_left_out_are_as_if_they_were_not_there(tmp_path):
    """A list of rows trains the very model of a file with those rows alone, at weight 1."""
    frame = judgments(seed=1)
    some = frame.filter((pl.col("row_id") % 3 != 0) | (pl.col("label") > 0))
    write_part(tmp_path / "train.parquet", frame)
    write_part(tmp_path / "some.parquet", some.with_columns(weight=pl.lit(1.0, pl.Float32)))
    some.select("row_id").sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "rows.parquet")
    facts = fit(tmp_path, tmp_path / "listed.txt", rows=tmp_path / "rows.parquet")
    fit(tmp_path, tmp_path / "alone.txt", file="some.parquet")
    assert facts.rows == some.height
    assert (tmp_path / "listed.txt").read_bytes() == (tmp_path / "alone.txt").read_bytes()


def test_early_stopping_keeps_fewer_trees(data, tmp_path):
    """Trees after the best validation NDCG are not in the model; those before are the same ones."""
    config = CONFIG.model_copy(update={"trees": 300, "learning_rate": 0.5, "early_stopping": 5})
    facts = fit(data, tmp_path / "model.txt", config=config, vali=[data / "vali.parquet"], cutoff=3)
    assert 0 < facts.trees < 290
    text = (tmp_path / "model.txt").read_text()
    assert text.count("\nTree=") == facts.trees


def test_learns(data):
    """The ranker puts relevant documents of queries it never saw above the others, mostly."""
    scored = predict([data / "model.txt"], [data / "vali.parquet"], threads=1)
    mean = scored.group_by(pl.col("label") > 0).agg(pl.col("score").mean()).sort("label")["score"]
    assert mean[1] > mean[0] + 0.5


# ---- Failures ----------------------------------------------------------------------------------------------


def test_a_killed_child_is_named(data, tmp_path):
    """A child killed while it boosts becomes one line that names what was trained and the likely cause."""

    def kill(_):
        for process in own_children():
            process.kill()

    config = CONFIG.model_copy(update={"trees": 100_000})
    with pytest.raises(TrainingError) as caught:
        fit(data, tmp_path / "model.txt", config=config, what="arm 'top-20'", trees_done=kill)
    assert str(caught.value).startswith(
        "training arm 'top-20': the process was killed (SIGKILL), most likely"
    )
    assert not (tmp_path / "model.txt").exists()


def test_an_interrupt_ends_the_child(data, tmp_path):
    """What the callback raises comes through at once, and no child is left behind."""

    def interrupt(_):
        raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"trees": 100_000})
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path / "model.txt", config=config, trees_done=interrupt)
    assert wait_until(lambda: not own_children(), seconds=5)


@pytest.mark.parametrize("files", [1, 2000], ids=["short job", "job longer than a pipe holds"])
@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            "kill -SEGV $$",
            "LightGBM crashed (SIGSEGV); its last words: line 2000; nothing else is lost, run again",
        ),
        (
            "kill -ABRT $$",
            "LightGBM crashed (SIGABRT); its last words: line 2000; nothing else is lost, run again",
        ),
        ("exit 3", "the process ended with code 3; its last words: line 2000"),
        ("exit 0", "the process ended with code 0; its last words: line 2000"),
    ],
    ids=["segmentation fault", "abort", "code", "silence"],
)
def test_a_child_that_dies_is_described(tmp_path, monkeypatch, files, end, message):
    """Whether or not it read its job, a dead child's signal or code and its last words are told in full."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nfor i in $(seq 2000); do echo line $i; done >&2\necho >&2\n{end}\n")
    program.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(program))
    with pytest.raises(TrainingError) as caught:
        ranker.fit([tmp_path / ("x" * 60)] * files, tmp_path / "m", config=CONFIG, seed=1, threads=1)
    assert str(caught.value) == f"training the ranker: {message}"


def test_noise_on_standard_output_is_passed_over(tmp_path, monkeypatch):
    """Lines of a driver between the events do no harm."""
    answer = json.dumps({"trees": 1, "rows": 2, "seconds": 0.5, "peak_memory_mb": 3})
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\nread job\necho driver 1.0\necho '{{\"trees_done\": 1}}'\necho '{answer}'\necho bye\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(program))
    told = []
    done = ranker.fit([Path("x")], tmp_path / "m", config=CONFIG, seed=1, threads=1, trees_done=told.append)
    assert done == ranker.Fit(trees=1, rows=2, seconds=0.5, peak_memory_mb=3)
    assert told == [1]


def test_a_query_too_long_for_lightgbm(tmp_path):
    """A query of 10,001 rows is named, with the limit and what to do, in one line."""
    frame = judgments(3, 10_001, first_qid=70).select("row_id", "qid", "label", "f1")
    write_part(tmp_path / "train.parquet", frame.filter((pl.col("qid") == 71) | (pl.col("row_id") % 5 == 0)))
    with pytest.raises(TrainingError) as caught:
        fit(tmp_path, tmp_path / "model.txt")
    assert str(caught.value) == (
        "training the ranker: query 71 has 10001 rows and LightGBM takes 10000 at most; keep fewer negatives"
    )


def test_what_lightgbm_refuses_is_one_line(tmp_path):
    """A label beyond LightGBM's gains is refused by LightGBM itself, in one line."""
    frame = judgments().with_columns(label=pl.lit(40, pl.UInt8))
    write_part(tmp_path / "train.parquet", frame)
    with pytest.raises(TrainingError, match=r"^training the ranker: .*label") as caught:
        fit(tmp_path, tmp_path / "model.txt")
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_written(data, tmp_path):
    """The path and the reason reach the user as a storage error."""
    model = tmp_path / "nowhere" / "model.txt"
    with pytest.raises(
        StorageError,
        match=rf"^training the ranker: {model}: cannot be made here; choose another directory with --out$",
    ):
        fit(data, model, config=CONFIG.model_copy(update={"trees": 1}))


def test_a_list_of_rows_that_is_gone(data, tmp_path):
    """The file is named, also where the error has no more than a text."""
    with pytest.raises(StorageError, match=r"^training the ranker: .*gone\.parquet") as caught:
        fit(data, tmp_path / "model.txt", rows=tmp_path / "gone.parquet")
    assert "None" not in str(caught.value)


def test_one_ranker_that_fails_ends_those_beside_it(data, tmp_path):
    """Its error is that of all, and nobody waits for the hundred thousand trees of the other one."""
    write_part(tmp_path / "long.parquet", judgments(1, 10_001).select("row_id", "qid", "label", "f1"))
    files = [data / "train.parquet", tmp_path / "long.parquet", data / "train.parquet"]
    each = [ranker.Training([file], tmp_path / f"{n}.txt") for n, file in enumerate(files)]
    config, told = CONFIG.model_copy(update={"trees": 100_000}), [0]
    with pytest.raises(TrainingError, match=r"^training the rankers: query \d+ has 10001 rows"):
        ranker.fit_all(each, config=config, seed=1, threads=2, trees_done=told.append)
    assert told[-1] < 50_000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["long.parquet"]


@pytest.mark.parametrize(
    ("threads", "device", "expected"),
    [(1, "cpu", (1, 1)), (2, "cpu", (2, 1)), (16, "cpu", (4, 4)), (16, "gpu", (1, 16))],
)
def test_threads_are_shared_out_among_the_rankers_of_a_child(monkeypatch, threads, device, expected):
    """Nine rankers: one thread each as long as they are few, four at a time at most, one on a device."""
    asked = []

    def run(_module, job, *, threads, **_):
        asked.append((job["side_by_side"], threads))
        return {"trees": 1, "rows": 1, "seconds": 0.0, "peak_memory_mb": 1}

    monkeypatch.setattr(child, "run", run)
    each = [ranker.Training([Path("x")], Path(f"{n}.txt")) for n in range(9)]
    ranker.fit_all(each, config=CONFIG.model_copy(update={"device": device}), seed=1, threads=threads)
    assert asked == [expected]


def test_a_damaged_part_is_a_storage_error(tmp_path):
    """A prepared set that is no Parquet file is named, and comes out of the child as what it is."""
    (tmp_path / "train.parquet").write_text("not Parquet at all")
    with pytest.raises(StorageError, match=r"train.parquet: not a readable Parquet file .*delete it and run"):
        fit(tmp_path, tmp_path / "model.txt")


PARENT = """
import sys, time
from pathlib import Path
from pipeline import child, ranker
from pipeline.core.config import RankerConfig
file, model, jobs = sys.argv[1:]
with child.reused():
    for trees in map(int, jobs.split(",")):
        config = RankerConfig(trees=trees, leaves=5, min_rows_per_leaf=5)
        ranker.fit([Path(file)], Path(model), config=config, seed=1, threads=1,
                   trees_done=lambda done: trees > 1 and print(done, flush=True))
    print(0, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("jobs", ["100000", "1,100000", "1"], ids=["first job", "second job", "waiting"])
def test_the_child_ends_with_its_parent(data, tmp_path, jobs):
    """When the run is killed with no chance to clean up, its child goes on neither with a job nor to wait."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PARENT, str(data / "train.parquet"), str(tmp_path / "model.txt"), jobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout.readline().strip().isdigit()
        [child] = psutil.Process(parent.pid).children()
        os.kill(parent.pid, signal.SIGKILL)
    assert parent.returncode == -signal.SIGKILL
    gone = wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=20)
    if not gone:
        child.kill()
    assert gone


# ---- Devices -----------------------------------------------------------------------------------------------


def test_the_cpu_is_always_there():
    """No test is needed, and no child started."""
    ranker.require_device("cpu")


def test_cuda_says_how_to_get_it():
    """The wheel on PyPI has no CUDA: one line says so, and what LightGBM said."""
    with pytest.raises(DeviceError) as caught:
        ranker.require_device("cuda")
    assert str(caught.value).startswith(
        "ranker.device = 'cuda' does not work here: it needs an NVIDIA GPU and a"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_opencl_ranks_like_the_cpu(data, tmp_path):
    """The OpenCL device's model gives the CPU model's scores."""
    try:
        ranker.require_device("gpu")
    except DeviceError as error:
        if os.environ.get("RANKSIEVE_REQUIRE_GPU"):  # where a device was installed on purpose
            raise
        pytest.skip(str(error))
    fit(data, tmp_path / "gpu.txt", config=CONFIG.model_copy(update={"device": "gpu"}))
    files = [data / "vali.parquet"]
    gpu, cpu = (
        predict([model], files, threads=1)["score"].to_numpy()
        for model in (tmp_path / "gpu.txt", data / "model.txt")
    )
    np.testing.assert_allclose(gpu, cpu, rtol=1e-6, atol=1e-6)


def test_rankers_side_by_side_are_those_trained_one_after_the_other(tmp_path):
    """Two threads train two rankers at once, or two bags, and write the bytes that one thread writes."""
    file = write_part(tmp_path / "train.parquet", judgments(30, 10, seed=5))
    rows = []
    for number in range(3):
        ids = pl.DataFrame({"row_id": np.arange(300)[np.arange(300) // 10 % 3 != number]})
        parts.write_table(tmp_path / f"rows-{number}", ids, tables.row_ids())
        rows.append(tmp_path / f"rows-{number}")
    for threads in (1, 2, 3):
        where = tmp_path / str(threads)
        where.mkdir()
        each = [ranker.Training([file], where / f"{n}.txt", rows=r) for n, r in enumerate(rows)]
        assert ranker.fit_all(each, config=CONFIG, seed=1, threads=threads).rows == 600
        ranker.fit_all(each, config=CONFIG, seed=1, threads=threads, together=where / "sum.txt")
    for name in ("0.txt", "1.txt", "2.txt", "sum.txt"):
        one = (tmp_path / "1" / name).read_bytes()
        assert one == (tmp_path / "2" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    alone = ranker.Training([file], tmp_path / "alone.txt", rows=rows[1])
    ranker.fit_all([alone], config=CONFIG, seed=1, threads=1)
    assert (tmp_path / "alone.txt").read_bytes() == (tmp_path / "1" / "1.txt").read_bytes()


def test_a_child_does_several_jobs_where_it_may(data, tmp_path):
    """Inside the block one process trains twice, and one that has ended is replaced; behind it none is left."""
    with child.reused():
        fit(data, tmp_path / "1.txt")
        [first] = own_children()
        fit(data, tmp_path / "2.txt")
        assert own_children() == [first]
        first.kill()
        first.wait(30)
        fit(data, tmp_path / "3.txt")
        [second] = own_children()
        assert second.pid != first.pid
        with pytest.raises(StorageError):
            fit(data, tmp_path / "no" / "directory.txt")
        assert own_children() == []
    assert len({(tmp_path / f"{number}.txt").read_bytes() for number in (1, 2, 3)}) == 1


def test_no_child_waits_behind_the_block(data, tmp_path):
    """The last block ends the children that wait, and so does each training outside of any."""
    with child.reused(), child.reused():
        fit(data, tmp_path / "1.txt")
        assert len(own_children()) == 1
    assert own_children() == []
    fit(data, tmp_path / "2.txt")
    assert own_children() == []
