"""The tables of the page: the source's shape, the arms, the conventions, the settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.dataset.folds import of_splits
from pipeline.evaluation.paired import ALPHA
from pipeline.evaluation.verdict import BASELINE
from pipeline.report.formatting import MISSING, Row, compared, figures, interval, number, p_value, significant
from pipeline.report.svg import escape, tag


def shape(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the source's shape, ready to read; where every fold holds the same rows, one fold's."""
    splits: dict[str, dict[str, int]] = dataset["splits"]
    folds = of_splits(list(splits))
    names = [name for name in (*folds[0].train, *folds[0].vali, *folds[0].test) if name in splits]
    rows, queries, negatives = (
        sum(splits[n][key] for n in names) for key in ("rows", "queries", "negatives")
    )
    empty = sum(splits[n]["queries_without_positive"] for n in names)
    facts = {
        "rows": f"{rows:,}",
        "queries": f"{queries:,}",
        "features": f"{dataset['features']:,}",
        "negatives": f"{negatives / rows:.1%}" if rows else MISSING,
        "longest query": f"{max((splits[n]['longest'] for n in names), default=0):,} rows",
        "without a relevant document": f"{empty:,} queries",
    }
    return facts | ({"folds": str(len(folds))} if len(folds) > 1 else {})


def splits(dataset: Mapping[str, Any]) -> str:
    """Return one sentence on the splits' sizes; of many folds, on the first fold's."""
    folds = of_splits(list(dataset["splits"]))
    names = dict.fromkeys((*folds[0].train, *folds[0].vali, *folds[0].test))
    sizes = ((name, dataset["splits"][name]) for name in names if name in dataset["splits"])
    return "; ".join(f"{name}: {s['rows']:,} rows in {s['queries']:,} queries" for name, s in sizes) + "."


def table(
    head: Sequence[str | tuple[str, str]], rows: Iterable[tuple[str | None, Sequence[str]]], *, class_: str
) -> str:
    """Return a table that scrolls sideways where the page is too narrow.

    Args:
        head: Column heads, plain text; a pair where the cells have a second line.
        rows: Per row its class and its cells, markup; the first cell is the row's head.
        class_: The table's class.
    """
    pairs = [(name, "") if isinstance(name, str) else name for name in head]
    heads = "".join(tag("th", _two(escape(name), escape(below)), scope="col") for name, below in pairs)
    body = "".join(
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells), class_=name)
        for name, (first, *cells) in rows
    )
    whole = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), class_=class_)
    return tag("div", whole, class_="scroll")


def _two(above: str, below: str) -> str:
    """Return a cell's markup with a smaller second line, where there is one to show."""
    return above + (tag("small", below) if below and below != MISSING else "")


def arms(summary: pl.DataFrame, *, split: str, cutoff: int) -> str:
    """Return every arm's figures on one split: NDCG at each cutoff, differences at the deciding one.

    Differences that no arm has, to an arm that was not trained, have no columns.
    """
    rows = figures(summary, cutoff=cutoff, split=split).to_dicts()
    cutoffs: list[int] = summary["cutoff"].unique().sort().to_list()
    per_arm = {
        (row["arm"], row["cutoff"]): row["ndcg"]
        for row in summary.filter(pl.col("split") == split).select("arm", "cutoff", "ndcg").to_dicts()
    }
    head: list[str | tuple[str, str]] = [
        "arm", ("rows", "share"), "negatives kept", "training s", *(f"NDCG @{k}" for k in cutoffs),
    ]  # fmt: skip
    to_all, to_random = compared(rows, to="all"), compared(rows, to="random")
    if to_all:
        head += [("to all", "95 % interval"), ("Holm\u00a0p", "plain p")]
    if to_random:
        head.append(("to random", "plain p"))
    body = [
        (
            "chosen" if row["recommended"] else None,
            _arm(row, [per_arm.get((row["arm"], k)) for k in cutoffs])
            + (_to_all(row) if to_all else [])
            + ([_to_random(row)] if to_random else []),
        )
        for row in rows
    ]
    return table(head, body, class_="arms")


def _arm(row: Row, ndcg: Sequence[float | None]) -> list[str]:
    """Return the cells of an arm's own figures."""
    name = escape(row["arm"]) + (tag("span", "recommended", class_="badge") if row["recommended"] else "")
    return [
        name, _two(f"{row['rows']:,}", f"{row['rows_fraction']:.1%}"), f"{row['negatives_fraction']:.1%}",
        number(row["train_seconds"], ",.1f"), *(number(value) for value in ndcg),
    ]  # fmt: skip


def _to_all(row: Row) -> list[str]:
    delta, holm = number(row["delta"], "+z.4f"), escape(p_value(row["p_holm"]))
    if significant(row, ALPHA):
        delta, holm = tag("strong", delta), tag("strong", holm)
    return [_two(delta, interval(row["delta_low"], row["delta_high"])), _two(holm, escape(p_value(row["p"])))]


def _to_random(row: Row) -> str:
    return _two(number(row["delta_random"], "+z.4f"), escape(p_value(row["p_random"])))


def conventions(summary: pl.DataFrame, *, cutoff: int) -> str:
    """Return what a query without a relevant document may count, and what that makes of an arm's NDCG.

    The arm is `all`, or the first where `all` was not trained.
    """
    of_test = figures(summary, cutoff=cutoff).to_dicts()
    row = next((row for row in of_test if row["arm"] == BASELINE), of_test[0])
    rows = [
        (
            "Left out",
            "The mean is over queries that have something to find, as everywhere on this page.",
            "ndcg",
        ),
        (
            "Counted as 0",
            "Such a query is a failure no ranker can avoid, as trec_eval and scikit-learn have it.",
            "ndcg_empty0",
        ),
        (
            "Counted as 1",
            "Such a query is a success no ranker can miss, as LightGBM's and XGBoost's own NDCG have it.",
            "ndcg_empty1",
        ),
    ]
    body = [(None, [name, escape(why), number(row[key])]) for name, why, key in rows]
    return table(["convention", "meaning", f"NDCG@{cutoff} of {row['arm']}"], body, class_="text")


def settings(config: Mapping[str, Any]) -> str:
    """Return every setting, nested ones with dotted names."""
    return table(
        ["setting", "value"], [(None, [escape(k), escape(v)]) for k, v in _flat(config)], class_="text"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            found.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            found.append((f"{prefix}{key}", MISSING if value is None else str(value)))
    return found
