"""The report for a browser: one file that needs no network, no script and no second file."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.verdict import BASELINE, verdict
from pipeline.report import forest, listing, shares, wins
from pipeline.report.formatting import Row, compared, deciding, figures
from pipeline.report.svg import escape, tag


def run(
    summary: Path,
    metrics: Path,
    out: Path,
    *,
    dataset: dict[str, Any],
    config: dict[str, Any],
    notices: list[str],
) -> dict[str, Any]:
    """Write the page.

    Args:
        summary: SUMMARY over all folds.
        metrics: METRICS over all folds; read only where the page needs it.
        out: The file to write.
        dataset: What ``dataset.json`` says.
        config: Every setting, nested.
        notices: What a careful user should know.

    Returns:
        ``cutoff``, the one that decides, and ``recommended``, an arm or None.
    """
    table = pl.read_parquet(summary)
    cutoff, arm = deciding(table), _recommended(table)
    lists = (
        pl.scan_parquet(metrics)
        .filter(split="test", cutoff=cutoff)
        .filter(pl.col("arm").is_in([BASELINE, arm or BASELINE]))
        .collect()
    )
    text = page(table, lists, dataset=dataset, config=config, notices=notices)
    out.write_bytes(text.encode("utf-8"))
    return {"cutoff": cutoff, "recommended": arm}


def page(
    summary: pl.DataFrame,
    metrics: pl.DataFrame,
    *,
    dataset: dict[str, Any],
    config: dict[str, Any],
    notices: list[str],
) -> str:
    """Return the page; the same input gives the same text.

    Args:
        summary: SUMMARY.
        metrics: METRICS; only `all` and the recommended arm on test at the largest cutoff are looked at.
        dataset: What ``dataset.json`` says.
        config: Every setting, nested.
        notices: What a careful user should know, one line each.
    """
    cutoff = deciding(summary)
    rows = figures(summary, cutoff=cutoff).to_dicts()
    shape = listing.shape(dataset)
    sections = [
        _head(shape, dataset),
        _verdict(summary, cutoff),
        _notices(notices),
        _shares(rows, cutoff, folds=shape.get("folds")),
        _differences(rows, cutoff),
        _figures(summary, cutoff, config),
        _conventions(summary, rows, cutoff),
        _per_query(summary, metrics, rows, cutoff),
        _details("Settings", listing.settings(config)),
    ]
    style = files("pipeline.report").joinpath("style.css").read_text(encoding="utf-8")
    title = f"ranksieve: {shape['rows']} rows, {shape['queries']} queries"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", escape(title)),
        tag("style", f"\n{style}"),
    )
    body = tag("body", tag("main", "\n".join(part for part in sections if part)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _has_all(rows: list[Row]) -> bool:
    return any(row["arm"] == BASELINE for row in rows)


def _apart(rows: list[Row]) -> bool:
    """Tell whether the arms stand for themselves: one alone, or several without `all`."""
    return bool(rows) and (len(rows) == 1 or not _has_all(rows))


def _recommended(summary: pl.DataFrame) -> str | None:
    chosen = summary.filter(pl.col("recommended"))["arm"]
    return str(chosen[0]) if len(chosen) else None


def _head(shape: dict[str, str], dataset: dict[str, Any]) -> str:
    facts = "".join(
        tag("div", tag("dt", escape(name)), tag("dd", escape(value)), class_="fact")
        for name, value in shape.items()
    )
    return tag(
        "header",
        tag("h1", "Which negatives to keep"),
        tag("dl", facts, class_="facts"),
        tag("p", escape(listing.splits(dataset)), class_="note"),
    )


def _verdict(summary: pl.DataFrame, cutoff: int) -> str:
    sentences = "".join(tag("p", _inline(sentence)) for sentence in verdict(summary, cutoff=cutoff))
    return tag("section", tag("h2", "Verdict"), sentences, class_="verdict")


def _notices(notices: list[str]) -> str:
    if not notices:
        return ""
    items = "".join(tag("li", _inline(notice)) for notice in notices)
    return tag("section", tag("h2", "Please note"), tag("ul", items), class_="notices")


def _shares(rows: list[Row], cutoff: int, *, folds: str | None) -> str:
    chart = shares.chart(rows, cutoff=cutoff)
    if not chart:
        return _section("NDCG against training rows kept", _note("There is no NDCG to show."))
    pooled = f" The test lists of the {folds} folds are pooled." if folds else ""
    ring = " The ring marks the recommended arm." if any(row["recommended"] for row in rows) else ""
    note = (
        "Each mark is an arm: its height is the mean over the test queries, the bar its 95 % interval. Marks "
        "of the same share stand side by side."
    )
    if _has_all(rows):
        note += " The dashed line and the band are `all`, trained on every row."
    if compared(rows, to="all"):
        note += " Bars that overlap do not mean that arms are equal: the next chart compares query by query."
    return _section(f"NDCG@{cutoff} against training rows kept", _chart(chart), _note(note + ring + pooled))


def _differences(rows: list[Row], cutoff: int) -> str:
    chart = forest.chart(rows, cutoff=cutoff)
    title = f"Difference of NDCG@{cutoff} to all"
    if not chart:
        return "" if _apart(rows) else _section(title, _note("There is no difference to `all` to show."))
    far = (
        " An arrow points to an arm beyond the scale; its figures are at the right."
        if forest.off_scale(rows)
        else ""
    )
    note = (
        "The mean of the per-query differences on the same test queries. Filled marks and bold figures: "
        f"significant, Holm-adjusted p below {ALPHA:g}.{far}"
    )
    return _section(title, _chart(chart), _note(note))


def _figures(summary: pl.DataFrame, cutoff: int, config: dict[str, Any]) -> str:
    if summary.is_empty():
        return ""
    resamples = config.get("evaluate", {}).get("resamples")
    of = f" of {resamples:,} resamples" if isinstance(resamples, int) else ""
    rows = figures(summary, cutoff=cutoff).to_dicts()
    to_all, to_random = compared(rows, to="all"), compared(rows, to="random")
    chance = (
        "to `random` at the same fraction, which tells whether the choice of negatives did it or their number"
    )
    to = ", and ".join(["to `all`"] * to_all + [chance] * to_random)
    note = (
        (f"Differences are at cutoff {cutoff}, paired by query: {to}. " if to else "")
        + (f"Intervals: 95 %, bootstrap over queries{of}. " if to_all else "")
        + ("p: two-sided sign-flip test. " if to else "")
        + ("Holm: adjusted for all arms at this cutoff. " if to_all else "")
        + "Training seconds: wall time, all folds."
    )
    body = [listing.arms(summary, split="test", cutoff=cutoff), _note(note)]
    if len(figures(summary, cutoff=cutoff, split="vali")):
        chosen = [_note("The recommendation is made on these lists alone.")] if _recommended(summary) else []
        body.append(
            _details("The same on validation", listing.arms(summary, split="vali", cutoff=cutoff), *chosen)
        )
    return _section("All figures on test", *body)


def _conventions(summary: pl.DataFrame, rows: list[Row], cutoff: int) -> str:
    if not rows:
        return ""
    empty, queries = rows[0]["queries_empty"], rows[0]["queries"]
    count = (
        f"{empty:,} of the {queries:,} test queries {'has' if empty == 1 else 'have'} no relevant document."
    )
    return _section(
        "Queries without a relevant document", _note(count), listing.conventions(summary, cutoff=cutoff)
    )


def _per_query(summary: pl.DataFrame, metrics: pl.DataFrame, rows: list[Row], cutoff: int) -> str:
    arm, title = _recommended(summary), "Query by query"
    if arm is None and _apart(rows):
        return ""  # the verdict tells how to compare
    if arm is None:
        return _section(title, _note("No arm is recommended, so there is none to look at query by query."))
    if arm == BASELINE:
        return _section(title, _note(f"The recommended arm is `{BASELINE}` itself: nothing changes."))
    change = wins.differences(metrics, arm=arm, cutoff=cutoff)
    chart = wins.chart(change, arm=arm, cutoff=cutoff)
    if not chart:
        return _section(title, _note("No test query has a relevant document."))
    lost, tied, won = wins.counts(change)
    note = (
        f"NDCG@{cutoff} of `{arm}` minus that of `{BASELINE}`, {len(change):,} test queries: "
        f"{won:,} won, {tied:,} tied, {lost:,} lost."
    )
    return _section(f"{title}: {arm} against {BASELINE}", _chart(chart), _note(note))


def _section(title: str, *parts: str) -> str:
    return tag("section", tag("h2", escape(title)), *parts)


def _details(title: str, *parts: str) -> str:
    return tag("details", tag("summary", escape(title)), *parts)


def _chart(svg: str) -> str:
    return tag("figure", svg)


def _note(sentences: str) -> str:
    return tag("p", _inline(sentences), class_="note")


def _inline(sentence: str) -> str:
    """Escape a sentence; `backticks` become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))
