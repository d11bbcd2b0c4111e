"""The report for a browser: one file that needs no network, no script and no second file."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.core.records import Facts
from pipeline.dataset.folds import of_splits
from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.verdict import BASELINE
from pipeline.report import forest, shares, wins
from pipeline.report.formatting import MISSING, number
from pipeline.report.view import Column, SummaryView, deciding_cutoff, figures, summary_view

_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_STACKED: Final = {"rows": "share", "vs all": "interval", "p Holm": "p", "vs random": "p random"}
"""Columns of the table that have another one as their smaller second line."""


def run(
    summary: Path, metrics: Path, out: Path, *, dataset: Facts, config: Facts, notices: Sequence[str]
) -> Facts:
    """Write the page of SUMMARY and METRICS, with what ``dataset.json`` says, every setting, nested, and notices.

    Returns:
        ``cutoff``, the one that decides, and ``recommended``, an arm or None.
    """
    table = pl.read_parquet(summary)
    cutoff, arm = deciding_cutoff(table), _recommended(table)
    shown = pl.col("arm").is_in([BASELINE, arm or BASELINE])
    lists = pl.scan_parquet(metrics).filter(shown, split="test", cutoff=cutoff)
    text = page(table, lists.collect(), dataset=dataset, config=config, notices=notices)
    out.write_bytes(text.encode("utf-8"))
    return {"cutoff": cutoff, "recommended": arm}


def page(
    summary: pl.DataFrame, metrics: pl.DataFrame, *, dataset: Facts, config: Facts, notices: Sequence[str]
) -> str:
    """Return the page, as :func:`run` writes it; the same input gives the same text."""
    from jinja2 import Environment, StrictUndefined

    cutoff, recommended = deciding_cutoff(summary), _recommended(summary)
    rows = figures(summary, cutoff=cutoff)
    folder = files("pipeline.report")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"number": number, "by_backticks": _by_backticks}
    text = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8")).render(
        style=(folder / "style.css").read_text(encoding="utf-8"),
        shape=shape(dataset),
        splits=_one_fold(dataset),
        notices=notices,
        settings=_settings(config),
        cutoff=cutoff,
        alpha=ALPHA,
        resamples=config.get("evaluate", {}).get("resamples"),
        test=summary_view(summary),
        vali=summary_view(summary, split="vali"),
        stacked=_stacked,
        baseline=next((row for row in rows if row["arm"] == BASELINE), None),
        recommended=recommended,
        first=rows[0] if rows else None,
        shares=shares.chart(rows, cutoff=cutoff),
        differences=forest.chart(rows, cutoff=cutoff),
        off_scale=forest.off_scale(rows),
        queries=_query_by_query(metrics, recommended, cutoff),
    )
    return _UNPRINTABLE.sub("\ufffd", f"{text}\n")


def shape(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the source's shape, ready to read; where every fold holds the same rows, one fold's."""
    splits = _one_fold(dataset)
    rows, queries, negatives, empty = (
        sum(split[key] for split in splits.values())
        for key in ("rows", "queries", "negatives", "queries_without_positive")
    )
    facts = {
        "rows": f"{rows:,}",
        "queries": f"{queries:,}",
        "features": f"{dataset['features']:,}",
        "negatives": f"{negatives / rows:.1%}" if rows else MISSING,
        "longest query": f"{max((split['longest'] for split in splits.values()), default=0):,} rows",
        "without a relevant document": f"{empty:,} queries",
    }
    folds = len(of_splits(list(dataset["splits"])))
    return facts | ({"folds": str(folds)} if folds > 1 else {})


def _one_fold(dataset: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the splits of the first fold, in the order train, vali, test."""
    fold = of_splits(list(dataset["splits"]))[0]
    names = dict.fromkeys((*fold.train, *fold.vali, *fold.test))
    return {name: dataset["splits"][name] for name in names if name in dataset["splits"]}


def _settings(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return every setting with its value, nested ones with dotted names."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _settings(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found.append((f"{prefix}{key}", MISSING if value is None else text))
    return found


def _recommended(summary: pl.DataFrame) -> str | None:
    return next(iter(summary.filter(pl.col("recommended"))["arm"]), None)


def _query_by_query(metrics: pl.DataFrame, arm: str | None, cutoff: int) -> Facts:
    """Return the chart of one arm's gains and losses per query, and the counts beside it."""
    if arm in (None, BASELINE):
        return {}
    change = wins.differences(metrics, arm=arm, cutoff=cutoff)
    lost, tied, won = wins.counts(change)
    chart = wins.chart(change, arm=arm, cutoff=cutoff)
    return {"chart": chart, "count": len(change), "lost": lost, "tied": tied, "won": won}


def _stacked(view: SummaryView) -> list[tuple[Column, Column | None]]:
    """Return the table's columns, each with the one below it."""
    below = set(_STACKED.values())
    above = [column for column in view.columns if column.name not in below]
    return [(column, view.column(_STACKED.get(column.name, ""))) for column in above]


def _by_backticks(sentence: str) -> list[str]:
    """Split a sentence at `code`, which is every second part."""
    return re.split(r"`([^`]+)`", sentence)
