"""What a person sees of a job as it goes, and of its end on a narrow, a usual and a wide screen."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from flows.cli.summary_screen import print_summary, show_search, show_summary
from flows.cli.table import print_table
from pipeline.core import tables
from pipeline.core.records import read_record, write_record
from pipeline.evaluation.verdict import verdict
from pipeline.report.view import Column, summary_view
from tests.report.samples import metrics_of, summary_of

WIDTHS = (80, 100, 140)
ARMS = ["all", "random-20", "top-20", "mixed-10-guard75-bag2", "false-positive-20-guard75-rounds3"]
KEPT = ["arm", "share", "@10", "vs all", "p Holm", "vs random"]
NOTICE = "the arms are the best of 72 that were tried on the validation lists, so their figures are too high"


def printed(width: int, show: Callable[[Console], None]) -> list[str]:
    """Return the lines that appear on a screen of some width, without colour."""
    out = io.StringIO()
    show(Console(file=out, width=width, no_color=True))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def words(line: str) -> list[str]:
    """Return the cells of a table's row: what two spaces or more keep apart."""
    return re.split(r"\s{2,}", line.strip())


@pytest.fixture(scope="module")
def summary() -> pl.DataFrame:
    """SUMMARY of five arms at four cutoffs; `top` is far worse, and two arms differ from random ones."""
    frame = summary_of(metrics_of(ARMS, queries=1200, cutoffs=(1, 3, 5, 10)), ARMS)
    own = pl.col("arm").str.contains("guard")
    return frame.with_columns(
        delta_random=pl.when(own).then(0.0123),
        p_random=pl.when(own).then(0.2),
        p_holm=pl.col("p_holm") / 10,
        rows=pl.col("rows") * 100,
        recommended=pl.col("arm") == "random-20",
    )


@pytest.fixture
def run(summary: pl.DataFrame, small_run: Path, tmp_path: Path) -> Path:
    """A run with that summary, a notice and the arms a search tried."""
    summary.write_parquet(tmp_path / "summary.parquet")
    record = read_record(small_run, "report")
    assert record is not None
    write_record(tmp_path, "report", replace(record, parameters={**record.parameters, "notices": [NOTICE]}))
    schema = pl.from_arrow(tables.SEARCH.empty_table()).schema  # type: ignore[union-attr]
    tried = [
        {"rung": rung, "arm": f"false-positive-{i}-guard75-rounds3", "trees": 4 * 3**rung, "rows": 10**6 + i}
        | {"ndcg_vali": 0.5 - i / 100, "kept": i < 20 // rung}
        for rung in (1, 2, 3)
        for i in range(1, 60 // rung)
    ]
    pl.DataFrame(tried, schema=schema).write_parquet(tmp_path / "search.parquet")
    return tmp_path


@pytest.mark.parametrize("width", WIDTHS)
def test_the_end_of_a_run_fits_the_screen(run: Path, width: int) -> None:
    """No line but a path is longer than the screen is wide, and no cell is cut."""
    lines = printed(width, lambda console: (show_search(console, run), show_summary(console, run))[0])
    assert max(len(line) for line in lines if str(run) not in line) <= width
    assert "…" not in "".join(lines)
    assert f"  {'report':14} {run / 'report.html'}" in lines


@pytest.mark.parametrize("width", WIDTHS)
def test_every_arm_has_one_row_with_its_whole_name(summary: pl.DataFrame, width: int) -> None:
    """The rows are the arms in panel order, as many cells in each as heads; one has the star."""
    title, head, *rows, note = printed(width, lambda c: print_summary(c, summary_view(summary)))
    rows = [row for row in rows if not row.startswith("not shown")]
    assert title == "NDCG on the 1,200 test queries"
    assert [words(row)[0].removeprefix("* ") for row in rows] == ARMS
    assert {len(words(row)) for row in rows} == {len(words(head))}
    assert [row[:2] for row in rows] == ["  ", "* ", "  ", "  ", "  "]
    assert note == "  * recommended, chosen on the validation lists"


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (80, KEPT, "rows, train s, @1, @3, @5"),
        (100, ["arm", "share", "@3", "@5", *KEPT[2:]], "rows, train s, @1"),
        (140, ["arm", "rows", "share", "train s", "@1", "@3", "@5", *KEPT[2:]], None),
    ],
)
def test_columns_go_by_what_they_matter(
    summary: pl.DataFrame, width: int, shown: list[str], left_out: str | None
) -> None:
    """The comparisons stay; other cutoffs, seconds and rows go, and a line names what went."""
    lines = printed(width, lambda console: print_summary(console, summary_view(summary)))
    assert words(lines[1]) == shown
    notes = [line for line in lines if line.startswith("not shown")]
    assert notes == ([] if left_out is None else [f"not shown at this width: {left_out}"])


def test_figures_are_those_of_summary(summary: pl.DataFrame) -> None:
    """A row's cells are SUMMARY's values; a p below 0.001 is given as that."""
    lines = printed(140, lambda console: print_summary(console, summary_view(summary)))
    row = summary.filter(arm="top-20", split="test", cutoff=10).to_dicts()[0]
    assert row["p_holm"] < 0.001
    cells = words(next(line for line in lines if "top-20" in line))
    assert cells[:4] == ["top-20", "720,000", "20.0%", "6.0"]
    delta = f"{row['delta']:+.4f}".replace("-", "\u2212")
    assert cells[-4:] == [f"{row['ndcg']:.4f}", delta, "<0.001", "\u2013"]


def test_verdict_and_notices_follow_the_table(run: Path, summary: pl.DataFrame) -> None:
    """Every sentence and the notice stand whole below the table, wrapped at words."""
    text = " ".join(" ".join(printed(80, lambda console: show_summary(console, run))).split())
    for sentence in verdict(summary, cutoff=10):
        assert sentence.replace("`", "") in text
    assert f"note: {NOTICE}" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_shows_who_came_furthest(run: Path, width: int) -> None:
    """Fifteen arms, those trained on have a star, and a line says how many more there are and where."""
    _, title, head, *rows, note = printed(width, lambda console: show_search(console, run))
    assert title == "Validation NDCG of the 59 arms tried, after so many trees"
    assert words(head) == ["arm", "rows", "12", "36", "108"]
    assert len(rows) == 15
    assert words(rows[0])[0] == "* false-positive-1-guard75-rounds3"
    assert note == f"  * trained with all trees; 44 more in {run / 'search.parquet'}"


def test_a_name_wider_than_the_screen_is_folded_and_not_cut() -> None:
    """All of a name is there, whatever the width; what does not fit beside it is named."""
    columns = [Column("arm", ("a" * 50 + "-10", "a" * 50 + "-20"), left=True), Column("rows", ("1", "2"))]
    lines = printed(40, lambda console: print_table(console, columns, title="names"))
    assert "".join(lines[2:-1]) == "a" * 50 + "-10" + "a" * 50 + "-20"
    assert lines[-1] == "not shown at this width: rows"


def test_a_summary_without_test_lists_says_so(summary: pl.DataFrame) -> None:
    """There is no table then."""
    only = summary_view(summary.filter(split="vali"))
    assert printed(80, lambda console: print_summary(console, only)) == ["no test lists"]
