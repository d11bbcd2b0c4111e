"""The flow against real Prefect servers, run as a user runs it: in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import polars as pl
import pytest

from tests.flows.conftest import ranksieve

pytestmark = pytest.mark.flow

SETTINGS = [
    "--set",
    "ranker.trees=5",
    "--set",
    "ranker.min_rows_per_leaf=5",
    "--arms",
    "all,random-20,top-20,mixed-20-guard75",
]


def results(run: Path) -> dict[str, bytes]:
    """Return the files whose bytes must not depend on how the run was made."""
    names = ["scores.parquet", "metrics.parquet"]
    files = [
        *(run / "selection").iterdir(),
        *(run / "models").iterdir(),
        *(run / "prepared").rglob("*.parquet"),
    ]
    return {str(f.relative_to(run)): f.read_bytes() for f in [*files, *(run / name for name in names)]}


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without Prefect, on one thread."""
    root = tmp_path_factory.mktemp("plain") / "run"
    done = ranksieve(
        "run", source, "--out", root, "--plain", "--threads", 1, *SETTINGS, home=root.parent / "home"
    )
    assert done.returncode == 0, done.stderr
    return root


def test_configured_server_sees_the_run_and_the_bytes_are_those_of_a_plain_one(
    source: Path, plain: Path, server: str, tmp_path: Path
) -> None:
    """Against a configured server the flow completes, its tasks and its table are there, results are equal."""
    done = ranksieve(
        "run",
        source,
        "--out",
        tmp_path / "run",
        "--threads",
        2,
        *SETTINGS,
        home=tmp_path,
        PREFECT_API_URL=server,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert results(tmp_path / "run") == results(plain)
    runs = httpx.post(f"{server}/flow_runs/filter", json={}).json()
    [run] = [run for run in runs if run["parameters"]["out"] == str(tmp_path / "run")]
    assert run["state_type"] == "COMPLETED"
    mine = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = httpx.post(f"{server}/task_runs/filter", json=mine).json()
    assert {run["state_type"] for run in tasks} == {"COMPLETED"}
    assert sum(run["name"].startswith("train") for run in tasks) == 4
    [artifact] = httpx.post(f"{server}/artifacts/filter", json=mine).json()
    assert artifact["key"] == "ranksieve-summary"
    assert "mixed-20-guard75" in artifact["data"]


def test_temporary_server_needs_nothing_and_leaves_nothing_on_the_screen(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    """Without a server the same command starts one, ends it, and says nothing of it on stdout."""
    done = ranksieve(
        "run", source, "--out", tmp_path / "run", "--json", *SETTINGS, home=tmp_path / "home", PREFECT_API_URL=""
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [row["arm"] for row in json.loads(done.stdout)["summary"][:2]] == ["all", "random-20"]
    assert results(tmp_path / "run") == results(plain)


def test_a_search_under_prefect_is_that_of_a_plain_one(source: Path, server: str, tmp_path: Path) -> None:
    """Its trials are tasks of the same flow run, and what it tried and chose does not differ."""
    settings = ["search.fractions=[0.2]", 'search.guards=["guard75"]', "search.bags=[1]", "search.rungs=1"]
    options = ["--search", *SETTINGS[:4], *(word for setting in settings for word in ("--set", setting))]
    for root, more in ((tmp_path / "flow", ()), (tmp_path / "plain", ("--plain",))):
        done = ranksieve(
            "run", source, "--out", root, *options, *more, home=tmp_path, PREFECT_API_URL=server
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert results(tmp_path / "flow") == results(tmp_path / "plain")
    tried = [(tmp_path / kind / "search.parquet").read_bytes() for kind in ("flow", "plain")]
    assert tried[0] == tried[1]
    tasks = httpx.post(f"{server}/task_runs/filter", json={}).json()
    assert sum(run["name"].startswith("try ") for run in tasks) == 4


def test_mistake_under_prefect_is_one_line(source: Path, server: str, tmp_path: Path) -> None:
    """A mistake that only reading finds is one line and exit code 2 under Prefect as well."""
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in source.iterdir():
        (bad / file.name).write_text(file.read_text())
    (bad / "test.txt").write_text("1 qid:1 1:0.5\n0 qid:1 0:3\n")
    done = ranksieve("run", bad, "--out", tmp_path / "run", *SETTINGS, home=tmp_path, PREFECT_API_URL=server)
    assert done.returncode == 2
    # A slow machine may print progress before.
    assert [line for line in done.stderr.splitlines() if line.startswith("ranksieve")] == [
        f"ranksieve: {bad / 'test.txt'}:2:9: feature index 0 in '0:3'; indexes count from 1, so add 1 to all of them"
    ]
    assert not (tmp_path / "run" / "dataset").exists()


def test_parameters_render_as_a_form() -> None:
    """The flow's parameters carry their types, bounds and descriptions into Prefect's interface."""
    code = "import json; from flows.prepare import prepare; print(prepare.parameters.model_dump_json())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    schema = json.loads(done.stdout)
    assert schema["properties"]["source"]["type"] == "string"
    assert schema["properties"]["search"]["type"] == "boolean"
    ranker = schema["definitions"]["RankerConfig"]["properties"]
    assert ranker["trees"]["minimum"] == 1
    assert ranker["device"]["enum"] == ["cpu", "gpu", "cuda"]
    assert "Leaves per tree" in ranker["leaves"]["description"]


def test_summary_of_the_plain_run_has_every_arm(plain: Path) -> None:
    """The run these tests compare with holds the arms asked for."""
    arms = pl.read_parquet(plain / "summary.parquet")["arm"].unique().sort().to_list()
    assert arms == ["all", "mixed-20-guard75", "random-20", "top-20"]
