"""LambdaMART in its worker process: the model's bytes, the ways it can fail, and predictions."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import psutil
import pytest

from pipeline.core import tables
from pipeline.core.config import RankerConfig
from pipeline.core.errors import DeviceError, StorageError, TrainingError
from pipeline.dataset import parts
from pipeline.ranker import fit as ranker
from pipeline.ranker import processes
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


def fit(
    data, model, *, file="train.parquet", config=CONFIG, threads=1, rows=None, what="the ranker", **options
):
    """Fit one ranker on one file of ``data``."""
    training = ranker.Training([data / file], model, rows)
    return ranker.fit_all([training], config=config, seed=7, threads=threads, what=what, **options)


def own_workers():
    """Return the ranker processes of this process."""
    return [one for one in psutil.Process().children() if "pipeline.ranker" in " ".join(one.cmdline())]


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
    assert facts["trees"] == 12
    assert facts["rows"] == 40 * 12
    assert facts["train_seconds"] > 0
    assert 50 < facts["peak_memory_mb"] < 4000
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
    assert facts["rows"] == some.height
    assert (tmp_path / "listed.txt").read_bytes() == (tmp_path / "alone.txt").read_bytes()


def test_early_stopping_keeps_fewer_trees(data, tmp_path):
    """Trees after the best validation NDCG are not in the model; those before are the same ones."""
    config = CONFIG.model_copy(update={"trees": 300, "learning_rate": 0.5, "early_stopping": 5})
    facts = fit(data, tmp_path / "model.txt", config=config, vali=[data / "vali.parquet"], cutoff=3)
    assert 0 < facts["trees"] < 290
    text = (tmp_path / "model.txt").read_text()
    assert text.count("\nTree=") == facts["trees"]


def test_early_stopping_of_rankers_that_are_merged(data, tmp_path):
    """Each is stopped for itself, and the model has the trees of both: its scores are the sum of theirs."""
    config = CONFIG.model_copy(update={"trees": 60, "learning_rate": 0.5, "early_stopping": 5})
    files = [data / "train.parquet", write_part(tmp_path / "other.parquet", judgments(seed=4))]
    models = [tmp_path / "0.txt", tmp_path / "1.txt"]
    each = [ranker.Training([file], model) for file, model in zip(files, models, strict=True)]
    options = {"config": config, "seed": 7, "threads": 1, "vali": [data / "vali.parquet"]}
    ranker.fit_all(each, **options)
    facts = ranker.fit_all(each, merged_model=tmp_path / "sum.txt", **options)
    assert 2 < facts["trees"] < 100
    assert (tmp_path / "sum.txt").read_text().count("\nTree=") == facts["trees"]
    first, second, both = (
        predict([model], files[:1], threads=1)["score"].to_numpy()
        for model in (*models, tmp_path / "sum.txt")
    )
    np.testing.assert_allclose(both, first + second, atol=1e-12)


def test_learns(data):
    """The ranker puts relevant documents of queries it never saw above the others, mostly."""
    scored = predict([data / "model.txt"], [data / "vali.parquet"], threads=1)
    mean = scored.group_by(pl.col("label") > 0).agg(pl.col("score").mean()).sort("label")["score"]
    assert mean[1] > mean[0] + 0.5


# ---- Failures ----------------------------------------------------------------------------------------------


def test_a_killed_worker_is_named(data, tmp_path):
    """A worker killed while it boosts becomes one line that names what was trained and the likely cause."""

    def kill(_):
        for process in own_workers():
            process.kill()

    config = CONFIG.model_copy(update={"trees": 100_000})
    with pytest.raises(TrainingError) as caught:
        fit(data, tmp_path / "model.txt", config=config, what="arm 'top-20'", trees_done=kill)
    assert str(caught.value).startswith(
        "training arm 'top-20': the process was killed (SIGKILL), most likely"
    )
    assert not (tmp_path / "model.txt").exists()


def test_end_all_kills_the_workers_that_have_a_job(data, tmp_path):
    """One that waits in the pool is left for the next job."""
    config = CONFIG.model_copy(update={"trees": 100_000})
    with processes.worker_pool():
        fit(data, tmp_path / "1.txt")
        fit(data, tmp_path / "2.txt")
        [waiting] = own_workers()
        with pytest.raises(TrainingError, match="SIGKILL"):
            fit(data, tmp_path / "3.txt", config=config, trees_done=lambda _: processes.end_all())
        processes.end_all()
        assert not waiting.is_running()
        fit(data, tmp_path / "4.txt")
        [waiting] = own_workers()
        processes.end_all()
        fit(data, tmp_path / "5.txt")
        assert own_workers() == [waiting]


def test_an_interrupt_ends_the_worker(data, tmp_path):
    """What the callback raises comes through at once, and no worker is left behind."""

    def interrupt(_):
        raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"trees": 100_000})
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path / "model.txt", config=config, trees_done=interrupt)
    assert wait_until(lambda: not own_workers(), seconds=5)


def crash(job):
    """Write much to standard error, and die: in a worker that runs this module."""
    print("\n".join(f"line {number}" for number in range(2001)), file=sys.stderr, flush=True)
    print(file=sys.stderr, flush=True)
    if job["signal"]:
        os.kill(os.getpid(), job["signal"])
    os._exit(job["code"])


def chat(job):
    """Print what a driver might print, between two events."""
    print("driver 1.0", flush=True)
    processes.send_event(trees_done=1)
    print("bye", flush=True)
    return {"length": len(job["files"])}


def run(job, **options):
    """Have this module do a job."""
    return processes.run("tests.ranker.test_ranker", job, threads=1, what="training the ranker", **options)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            {"signal": signal.SIGSEGV},
            "LightGBM crashed (SIGSEGV); its last words: line 2000; nothing else is lost, run again",
        ),
        (
            {"signal": signal.SIGABRT},
            "LightGBM crashed (SIGABRT); its last words: line 2000; nothing else is lost, run again",
        ),
        ({"code": 3}, "the process ended with code 3; its last words: line 2000"),
        ({"code": 0}, "the process ended with code 0; its last words: line 2000"),
    ],
    ids=["segmentation fault", "abort", "code", "silence"],
)
def test_a_worker_that_dies_is_described(end, message):
    """The signal or code of a dead worker and the last line of its standard error are told in full."""
    with pytest.raises(TrainingError) as caught:
        run({"do": "crash", "signal": None, "code": None, **end})
    assert str(caught.value) == f"training the ranker: {message}"


@pytest.mark.parametrize("files", [1, 2000], ids=["short job", "job longer than a pipe holds"])
def test_a_worker_that_dies_before_it_reads_its_job(files):
    """A module that is not there ends at once; what Python says about it is told."""
    job = {"do": "train", "files": ["x" * 60] * files}
    with pytest.raises(
        TrainingError, match=r"^a test: the process ended with code 1; its last words: .*nothing"
    ):
        processes.run("pipeline.ranker.nothing", job, threads=1, what="a test")


def test_noise_on_standard_output_is_passed_over():
    """Lines of a driver between the events do no harm."""
    told = []
    assert run({"do": "chat", "files": ["x" * 60] * 2000}, trees_done=told.append) == {"length": 2000}
    assert told == [1]


def test_a_worker_runs_this_package_and_no_other(data, tmp_path, monkeypatch):
    """Neither the current directory nor a folder that is searched before ours is looked into for a ``pipeline``."""
    foreign = tmp_path / "foreign"
    for package in ("pipeline", "pipeline/ranker"):
        (foreign / package).mkdir(parents=True)
        (foreign / package / "__init__.py").write_text("raise SystemExit('foreign code')")
    (foreign / "json.py").write_text("raise SystemExit('foreign code')")
    monkeypatch.chdir(foreign)
    fit(data, tmp_path / "1.txt")
    monkeypatch.syspath_prepend(str(foreign))
    fit(data, tmp_path / "2.txt")
    assert (tmp_path / "1.txt").read_bytes() == (tmp_path / "2.txt").read_bytes()
    assert (tmp_path / "1.txt").read_bytes() == (data / "model.txt").read_bytes()


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
def test_threads_are_shared_out_among_the_rankers_of_a_worker(threads, device, expected):
    """Nine rankers: one thread each as long as they are few, four at a time at most, one on a device."""
    assert ranker.share_threads(9, threads=threads, device=device) == expected


def test_a_damaged_part_is_a_storage_error(tmp_path):
    """A prepared set that is no Parquet file is named, and comes out of the child as what it is."""
    (tmp_path / "train.parquet").write_text("not Parquet at all")
    with pytest.raises(StorageError, match=r"train.parquet: not a readable Parquet file .*delete it and run"):
        fit(tmp_path, tmp_path / "model.txt")


PARENT = """
import sys, time
from pathlib import Path
from pipeline.core.config import RankerConfig
from pipeline.ranker import processes
from pipeline.ranker.fit import Training, fit_all
file, model, jobs = sys.argv[1:]
with processes.worker_pool():
    for trees in map(int, jobs.split(",")):
        config = RankerConfig(trees=trees, leaves=5, min_rows_per_leaf=5)
        fit_all([Training([Path(file)], Path(model))], config=config, seed=1, threads=1,
                trees_done=lambda done: trees > 1 and print(done, flush=True))
    print(0, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("jobs", ["100000", "1,100000", "1"], ids=["first job", "second job", "waiting"])
def test_a_worker_ends_with_its_parent(data, tmp_path, jobs):
    """When the run is killed with no chance to clean up, its worker goes on neither with a job nor to wait."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PARENT, str(data / "train.parquet"), str(tmp_path / "model.txt"), jobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout.readline().strip().isdigit()
        [worker] = psutil.Process(parent.pid).children()
        os.kill(parent.pid, signal.SIGKILL)
    assert parent.returncode == -signal.SIGKILL
    gone = wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, seconds=20)
    if not gone:
        worker.kill()
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
        assert ranker.fit_all(each, config=CONFIG, seed=1, threads=threads)["rows"] == 600
        ranker.fit_all(each, config=CONFIG, seed=1, threads=threads, merged_model=where / "sum.txt")
    for name in ("0.txt", "1.txt", "2.txt", "sum.txt"):
        one = (tmp_path / "1" / name).read_bytes()
        assert one == (tmp_path / "2" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    alone = ranker.Training([file], tmp_path / "alone.txt", rows=rows[1])
    ranker.fit_all([alone], config=CONFIG, seed=1, threads=1)
    assert (tmp_path / "alone.txt").read_bytes() == (tmp_path / "1" / "1.txt").read_bytes()


def test_a_worker_does_several_jobs_in_a_pool(data, tmp_path):
    """Inside the block one process trains twice, and one that has ended is replaced; behind it none is left."""
    with processes.worker_pool():
        fit(data, tmp_path / "1.txt")
        [first] = own_workers()
        fit(data, tmp_path / "2.txt")
        assert own_workers() == [first]
        first.kill()
        first.wait(30)
        fit(data, tmp_path / "3.txt")
        [second] = own_workers()
        assert second.pid != first.pid
        with pytest.raises(StorageError):
            fit(data, tmp_path / "no" / "directory.txt")
        assert own_workers() == []
    assert len({(tmp_path / f"{number}.txt").read_bytes() for number in (1, 2, 3)}) == 1


def test_no_worker_waits_behind_the_pool(data, tmp_path):
    """The last block ends the children that wait, and so does each training outside of any."""
    with processes.worker_pool(), processes.worker_pool():
        fit(data, tmp_path / "1.txt")
        assert len(own_workers()) == 1
    assert own_workers() == []
    fit(data, tmp_path / "2.txt")
    assert own_workers() == []


if __name__ == "__main__":  # in a worker
    processes.worker_main({"crash": crash, "chat": chat})
