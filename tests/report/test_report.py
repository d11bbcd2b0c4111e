"""The page and the Markdown table: whole, safe, offline, the same bytes again, every figure in them."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from pipeline.core import tables
from pipeline.core.config import Config
from pipeline.evaluation.verdict import verdict
from pipeline.report import html, markdown, svg
from pipeline.report.view import ArmFlags, summary_view
from tests.report.samples import DATASET, PANEL, arm_facts, metrics_of, split_facts, summary_of

VOID = {"meta", "br", "line", "circle", "polygon", "polyline", "rect", "text", "path"}
CONFIG = Config().model_dump(mode="json")


@pytest.fixture(scope="module")
def metrics() -> pl.DataFrame:
    """METRICS of a full panel."""
    return metrics_of(PANEL)


@pytest.fixture(scope="module")
def summary(metrics: pl.DataFrame) -> pl.DataFrame:
    """SUMMARY of a full panel."""
    return summary_of(metrics, PANEL)


@pytest.fixture(scope="module")
def page(summary: pl.DataFrame, metrics: pl.DataFrame) -> str:
    """The page of a full panel."""
    return _page(summary, metrics)


def _page(summary: pl.DataFrame, metrics: pl.DataFrame, **given: Any) -> str:
    return html.page(summary, metrics, **{"dataset": DATASET, "config": CONFIG, "notices": [], **given})


class _Balance(HTMLParser):
    """Follows a browser's parser; ``open`` holds what is not closed yet, ``wrong`` what closed wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.attributes += attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.wrong.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def _tree(page: str) -> ElementTree.Element:
    """Parse a page as a browser does and as XML does; both must find it whole."""
    balance = _Balance()
    balance.feed(page)
    assert (balance.open, balance.wrong) == ([], [])
    return ElementTree.fromstring(page)  # noqa: S314 - our own page


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _tables(page: str) -> list[list[list[str]]]:
    """Return the cells of every table, their lines joined by a space."""
    return [
        [[" ".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        for table in _tree(page).iter("table")
    ]


def test_page_is_whole_and_its_parts_stand_in_order(page: str) -> None:
    """The page is well-formed and leads from the verdict over charts and figures to the settings."""
    headings = [_text(h) for h in _tree(page).iter() if h.tag in ("h1", "h2", "summary")]
    assert headings[0] == "Which negatives to keep"
    assert headings[1:-3] == [
        "Verdict",
        "NDCG@10 against training rows kept",
        "Difference of NDCG@10 to all",
        "All figures on test",
        "The same on validation",
    ]
    assert headings[-3] == "Queries without a relevant document"
    assert headings[-2].startswith("Query by query")
    assert headings[-1] == "Settings"


def test_page_needs_nothing_from_outside(page: str) -> None:
    """No script, no link, no image, no font and no address: the file works on a machine without a network."""
    balance = _Balance()
    balance.feed(page)
    assert not {"src", "href", "xlink:href", "srcset", "action"} & {name for name, _ in balance.attributes}
    assert not re.search(r"https?:|url\(|@import|@font-face|<script|<link|<img|javascript:", page)


def test_same_input_gives_the_same_bytes(page: str, summary: pl.DataFrame, metrics: pl.DataFrame) -> None:
    """Neither time nor the order of METRICS' rows leaves a trace in the page."""
    assert _page(summary, metrics.sample(fraction=1, shuffle=True, seed=3)) == page


def test_run_reads_and_writes_files(
    page: str, summary: pl.DataFrame, metrics: pl.DataFrame, tmp_path: Path
) -> None:
    """``run`` writes just the page that ``page`` returns, and says what is recommended."""
    files = [tmp_path / name for name in ("summary.parquet", "metrics.parquet", "report.html")]
    summary.write_parquet(files[0])
    metrics.write_parquet(files[1])
    facts = html.run(*files, dataset=DATASET, config=CONFIG, notices=[])
    assert files[2].read_text(encoding="utf-8") == page
    assert facts == {"cutoff": 10, "recommended": summary.filter("recommended")["arm"][0]}


def test_head_gives_the_source_s_shape(page: str) -> None:
    """60,000 rows in 500 queries with 30 features, 90 % negatives, 120 rows in the longest query."""
    facts = [_text(d) for d in _tree(page).iter() if d.tag in ("dt", "dd")]
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "rows": "60,000",
        "queries": "500",
        "features": "30",
        "negatives": "90.0%",
        "longest query": "120 rows",
        "without a relevant document": "3 queries",
    }


def test_shape_counts_the_rows_of_folds_once() -> None:
    """Five partitions of 100 rows are 500 rows; five folds that each hold 300 rows are 300 rows."""
    partitions = {"features": 3, "splits": {f"S{i}": split_facts(100, 10) for i in range(1, 6)}}
    assert html.shape(partitions)["rows"] == "500"
    assert html.shape(partitions)["folds"] == "5"
    splits = {
        f"Fold{i}/{name}": split_facts(100, 10) for i in range(1, 6) for name in ("train", "vali", "test")
    }
    assert html.shape({"features": 3, "splits": splits})["rows"] == "300"


def test_every_arm_s_figures_stand_in_the_tables(page: str, summary: pl.DataFrame) -> None:
    """Arm by arm and split by split, the tables hold SUMMARY's figures at each cutoff."""
    for split, (_, *rows) in zip(("test", "vali"), _tables(page), strict=False):
        assert [row[0].split()[0] for row in rows] == PANEL
        for cells, last in zip(rows, summary.filter(split=split, cutoff=10).to_dicts(), strict=True):
            first = summary.filter(split=split, cutoff=1, arm=last["arm"]).to_dicts()[0]
            line = " ".join(cells).replace("\u2212", "-").split()
            figures = [
                f"{last['rows']:,}",
                f"{last['rows_fraction']:.1%}",
                f"{first['ndcg']:.4f}",
                f"{last['ndcg']:.4f}",
            ]
            if last["delta"] is not None:
                figures += [f"{last[key]:+z.4f}" for key in ("delta", "delta_low", "delta_high")]
            assert set(figures) <= set(line), last["arm"]


def test_verdict_and_notices_are_told(summary: pl.DataFrame, metrics: pl.DataFrame) -> None:
    """Each sentence of the verdict is a paragraph, each notice an item."""
    tree = _tree(_page(summary, metrics, notices=["first `notice`", "second"]))
    said = [_text(p) for p in tree.findall(".//section[@class='verdict']/p")]
    assert said == [s.replace("`", "") for s in verdict(summary, cutoff=10)]
    assert [_text(li) for li in tree.iter("li")] == ["first notice", "second"]


def test_chart_has_a_mark_and_a_tip_for_every_arm(page: str, summary: pl.DataFrame) -> None:
    """All arms but `all` have a mark; `all` is a line with its name and value; one arm is ringed."""
    chart, differences, _ = _tree(page).iter("svg")
    tips = [_text(t) for t in chart.findall("./g/title")]
    assert sorted(tip.split(":")[0] for tip in tips) == sorted(PANEL[1:])
    level = summary.filter(arm="all", split="test", cutoff=10)["ndcg"][0]
    assert f"all {level:.4f}" in [_text(t) for t in chart.iter("text")]
    assert len(chart.findall(".//circle[@class='ring']")) == 1
    assert [_text(g.find("text")) for g in differences.findall("./g")] == PANEL[1:]  # type: ignore[arg-type]


def test_significant_arms_are_filled_and_others_hollow(page: str, summary: pl.DataFrame) -> None:
    """An arm's mark in the chart of differences is filled where its Holm-adjusted p is below 0.05."""
    _, chart, _ = _tree(page).iter("svg")
    hollow = {
        _text(group.findall("text")[0])
        for group in chart.findall("./g")
        if any("hollow" in part.get("class", "") for part in group)
    }
    unsure = summary.filter(pl.col("p_holm") >= 0.05, split="test", cutoff=10)["arm"]
    assert hollow == set(unsure)
    assert 0 < len(hollow) < len(PANEL) - 1


def test_labels_keep_their_distance_and_stay_inside(page: str) -> None:
    """No label of the chart overlaps another, and none leaves the drawing."""
    for chart in _tree(page).iter("svg"):
        width, height = (float(part) for part in (chart.get("viewBox") or "").split()[2:])
        texts = [(float(t.get("x") or 0), float(t.get("y") or 0)) for t in chart.iter("text")]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in texts)
        labels = sorted(y for t in chart.findall("text[@class='label']") for y in [float(t.get("y") or 0)])
        assert all(below - above >= 16.9 for above, below in pairwise(labels))


@pytest.mark.parametrize(
    "evil",
    ["<script>alert(1)</script>", "a&b", 'say "x"', "it's", "`<b>`", "nul\x00 and \ud800", "</style></svg>"],
)
def test_text_is_escaped_wherever_it_comes_from(evil: str) -> None:
    """An arm, a setting or a notice that looks like markup is shown, never obeyed."""
    arm = evil.replace("\ud800", "") + "-10"
    arms = ["all", arm]
    metrics = metrics_of(arms)
    page = _page(summary_of(metrics, arms), metrics, config={"a": {evil: [evil, 1]}}, notices=[evil])
    page.encode("utf-8")
    tree = _tree(page)
    shown = re.sub("[\x00\ud800]", "\ufffd", evil)
    assert _text(next(tree.iter("li"))) == shown.replace("`", "")
    assert not list(tree.iter("script"))
    assert not list(tree.iter("b"))
    assert [row[0] for row in _tables(page)[-1][1:]] == [f"a.{shown}"]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("queries", [1, 3, 400])
def test_any_number_of_arms_and_queries(count: int, queries: int) -> None:
    """From one arm to 40, and from one query (without a relevant document) up, the page is whole."""
    arms = ["all", *(f"strategy{chr(97 + i % 20)}{i}-{i % 7 + 1}" for i in range(count - 1))]
    metrics = metrics_of(arms, queries=queries)
    frame = summary_of(metrics, arms)
    assert [row[0].split()[0] for row in _tables(_page(frame, metrics))[0][1:]] == arms


def _blank(arms: list[str]) -> pl.DataFrame:
    """SUMMARY of arms on one test query without a relevant document: every figure is null."""
    schema = pl.from_arrow(tables.SUMMARY.empty_table()).schema  # type: ignore[union-attr]
    known = (
        arm_facts(arms)
        .select("arm", "rows", "rows_fraction", "negatives_fraction")
        .with_columns(split=pl.lit("test"), cutoff=pl.lit(10), queries=pl.lit(1), queries_empty=pl.lit(1))
    )
    return pl.concat(
        [
            pl.DataFrame(schema=schema),
            known.cast({"cutoff": pl.Int16, "queries": pl.Int64, "queries_empty": pl.Int64}),
        ],
        how="diagonal",
    )


_AWKWARD: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "no differences": lambda s: s.with_columns(
        pl.lit(None, pl.Float64).alias(c)
        for c in ("delta", "delta_low", "delta_high", "p", "p_holm", "delta_random", "p_random")
    ).with_columns(recommended=pl.lit(None, pl.Boolean)),
    "no intervals": lambda s: s.with_columns(
        pl.lit(None, pl.Float64).alias(c) for c in ("low", "high", "delta_low", "delta_high")
    ).with_columns(recommended=pl.lit(None, pl.Boolean)),
    "no validation": lambda s: s.filter(split="test"),
    "no recommendation": lambda s: s.with_columns(recommended=pl.lit(None, pl.Boolean)),
    "all recommended": lambda s: s.with_columns(recommended=pl.col("arm") == "all"),
    "no seconds": lambda s: s.with_columns(train_seconds=pl.lit(None, pl.Float64)),
    "no baseline": lambda s: s.filter(pl.col("arm") != "all"),
    "only validation": lambda s: s.filter(split="vali"),
    "nothing": lambda s: s.clear(),
    "all the same": lambda s: s.with_columns(
        ndcg=0.5, low=0.5, high=0.5, rows_fraction=0.2, delta=0.0, delta_low=0.0, delta_high=0.0
    ),
    "rounding apart": lambda s: s.with_columns(
        ndcg=0.5 + 1e-17 * pl.col("rows"), low=0.5, high=0.5, delta=1e-17, delta_low=0.0, delta_high=1e-16
    ),
}


@pytest.mark.parametrize("name", _AWKWARD)
def test_page_copes_with_what_is_missing(name: str, summary: pl.DataFrame, metrics: pl.DataFrame) -> None:
    """Nulls, missing splits and equal values leave a whole page without a 'nan', a 'None' or an 'inf'."""
    page = _page(_AWKWARD[name](summary), metrics)
    body = _text(_tree(page).find("body"))  # type: ignore[arg-type]
    assert not re.search(r"\b(nan|None|inf|null)\b", body)


@pytest.mark.parametrize("arms", [["mixed-20-guard75"], ["random-20", "mixed-20-guard75"]])
def test_page_without_all_has_no_empty_part(arms: list[str]) -> None:
    """Neither differences nor a look query by query, no column of dashes; the verdict says how to compare."""
    metrics = metrics_of(arms)
    page = _page(summary_of(metrics, arms), metrics)
    tree = _tree(page)
    assert [_text(h) for h in tree.iter("h2")] == [
        "Verdict",
        "NDCG@10 against training rows kept",
        "All figures on test",
        "Queries without a relevant document",
    ]
    head, *rows = _tables(page)[0]
    assert [row[0] for row in rows] == arms
    assert head[-1] == "NDCG @10"
    assert "\u2013" not in {cell for row in rows for cell in row}
    assert f"--arms {','.join(['all', *arms])}" in [_text(code) for code in tree.iter("code")]
    assert len(list(tree.iter("svg"))) == 1


def test_long_names_are_whole_in_the_table_and_cut_in_charts() -> None:
    """The table shows an arm's full name; a chart keeps both ends of it."""
    long = "a" * 60 + "-strategy-10"
    arms, metrics = ["all", long], metrics_of(["all", long])
    page = _page(summary_of(metrics, arms), metrics)
    assert _tables(page)[0][2][0].split()[0] == long
    assert all(len(_text(t)) <= 60 for chart in _tree(page).iter("svg") for t in chart.iter("text"))
    assert svg.shorten("abcdefghij", 7) == "abc…hij"
    assert svg.shorten("abcdefg", 7) == "abcdefg"


def test_page_of_folds_says_that_they_are_pooled() -> None:
    """Under five partitions the page counts the folds and every query once."""
    metrics = metrics_of(PANEL[:3], folds=5)
    dataset = {**DATASET, "splits": {f"S{i}": split_facts(3_000, 8) for i in range(1, 6)}}
    page = _page(summary_of(metrics, PANEL[:3]), metrics, dataset=dataset)
    body = _text(_tree(page).find("body"))  # type: ignore[arg-type]
    assert "The test lists of the 5 folds are pooled." in body
    assert "1 of the 40 test queries has no relevant document." in body


def test_view_has_the_figures_of_summary_and_flags_what_matters(summary: pl.DataFrame) -> None:
    """A column per figure, a cell per arm; flags say what is recommended, significant, significantly worse."""
    view = summary_view(summary)
    rows = summary.filter(split="test", cutoff=10).to_dicts()
    assert [column.name for column in view.columns] == [
        *("arm", "rows", "share", "negatives", "train s", "@1", "@10"),
        *("vs all", "interval", "p Holm", "p"),
    ]
    assert view.columns[0].cells == tuple(PANEL)
    assert view.column("vs random") is None
    assert view.columns[8].cells[2].replace("\u2212", "-").split(" to ") == [
        f"{rows[2][key]:+z.4f}" for key in ("delta_low", "delta_high")
    ]
    for row, arm in zip(rows, view.arms, strict=True):
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        assert arm == ArmFlags(row["recommended"], significant=sure, worse=sure and row["delta"] < 0)
    assert view.title == "NDCG on the 40 test queries"
    assert view.sentences == tuple(verdict(summary, cutoff=10))


def test_markdown_table_by_hand() -> None:
    """Two arms, figures rounded, the recommended arm in bold, a dash for what is missing."""
    arms = ["all", "top-10"]
    frame = _blank(arms).with_columns(
        ndcg=pl.Series([0.5, 0.25]),
        delta=pl.Series([None, -0.25]),
        p_holm=pl.Series([None, 0.0002]),
        recommended=pl.Series([True, False]),
        train_seconds=pl.Series([12.34, None]),
    )
    assert markdown.table(summary_view(frame)).splitlines() == [
        "| arm | rows | share | training s | NDCG @10 | to all | Holm\u00a0p |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| **all** | 36,000 | 100.0% | 12.3 | 0.5000 | \u2013 | \u2013 |",
        "| top-10 | 3,600 | 10.0% | \u2013 | 0.2500 | \u22120.2500 | <0.001 |",
    ]
    alone = frame.filter(arm="top-10").with_columns(
        delta=pl.lit(None, pl.Float64),
        delta_random=pl.lit(0.1),
        p_random=pl.lit(0.5),
        recommended=pl.lit(None, pl.Boolean),
    )
    assert markdown.table(summary_view(alone)).splitlines() == [
        "| arm | rows | share | training s | NDCG @10 | to random |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| top-10 | 3,600 | 10.0% | \u2013 | 0.2500 | +0.1000 |",
    ]


def test_markdown_summary_leads_with_the_verdict(summary: pl.DataFrame, tmp_path: Path) -> None:
    """The text has the run's name, the verdict and one line per arm."""
    root = tmp_path / "digits"
    root.mkdir()
    summary.write_parquet(root / "summary.parquet")
    title, said, table = markdown.summary(root).split("\n\n")
    assert title == "# digits"
    assert said == " ".join(verdict(summary, cutoff=10))
    assert [line.split("|")[1].strip(" *") for line in table.splitlines()[2:]] == PANEL
