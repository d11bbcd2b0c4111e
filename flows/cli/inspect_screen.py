"""What `ranksieve inspect` shows: tables that fit the screen and say nothing by colour alone."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import TextWrapper
from typing import Any, Final

import polars as pl
from rich import filesize
from rich.console import Console

from flows.cli.summary_screen import print_sentences, print_summary
from flows.cli.table import listed, print_line, print_table
from pipeline.core.records import Facts
from pipeline.report.formatting import MISSING, number
from pipeline.report.view import Column, summary_view

_COLUMNS: Final = 40  # columns of an unknown file listed before the rest is counted
_FILES: Final = 20
_CELL: Final = 18  # characters of a shown value


def show(console: Console, facts: Facts) -> None:
    """Print what :func:`pipeline.inspect.look.inspect` found."""
    screens = {"run": _run, "dataset": _dataset, "files": _files, "parts": _table, "file": _table}
    screens[facts["kind"]](console, facts)


def _named_lines(console: Console, title: str, lines: Mapping[str, str]) -> None:
    """Print a title and lines of ``name  value``, long values under themselves, paths never broken."""
    print_line(console, title, style="bold", whole=True)
    room = max(10, *map(len, lines))
    wrap = TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * (room + 3)
    for name, value in lines.items():
        print_line(console, wrap.fill(f"  {name:<{room}} {value}"), whole=True)


def _count(value: int | None) -> str:
    return number(value, ",")


def _share(value: float | None) -> str:
    return number(value, ".1%")


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else filesize.decimal(count)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_KNOWN: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "name": ("split", _count),
    "stage": ("step", _count),
    "negatives_fraction": ("negatives", _share),
    "queries_without_positive": ("no positive", _count),
    "queries_empty": ("no positive", _count),
    "bytes": ("size", _size),
    "peak_memory_mb": ("peak MB", _count),
    "row_groups": ("row groups", _count),
    "seconds": ("seconds", "{:,.1f}".format),
    "weight": ("weights", "{:,.1f}".format),
    "mean": ("mean", lambda value: number(value, ".3f")),
    "ndcg_vali": ("NDCG on vali", number),
}
"""How to head and format facts; one that is not here is headed by its key, and is text or a count."""


def _columns(rows: Sequence[Facts], *keys: str) -> list[Column]:
    """Return a column per key of the rows; text at the left, figures at the right."""
    columns = []
    for key in keys:
        head, form = _KNOWN.get(key, (key, number if key.startswith("@") else _count))
        cells = [row.get(key) for row in rows]
        text = all(isinstance(cell, str) for cell in cells)
        columns.append(Column(head, tuple(map(str if text else form, cells)), left=text))
    return columns


def _run(console: Console, facts: Facts) -> None:
    lines = {}
    if source := facts["source"]:
        there = "" if all(file["there"] for file in source["files"]) else " (not all there any more)"
        files = listed([file["path"] for file in source["files"]], 3)
        lines["source"] = f"{source['layout']}: {files}{there}"
    lines |= {"seed": str(facts["seed"]), "arms": listed(facts["arms"])}
    if facts["folds"] > 1:
        lines["folds"] = str(facts["folds"])
    peak = _count(facts["peak_memory_mb"])
    lines["work"] = f"{facts['seconds']:,.1f} s in all steps, peak memory {peak} MB"
    _named_lines(console, f"run {facts['path']}", lines)
    console.print()
    if facts["dataset"]:
        _splits(console, facts["dataset"])
    _stages(console, facts)
    _notices(console, facts)
    if facts["summary"]:
        console.print()
        _summary(console, facts)
        print_sentences(console, facts["verdict"])


def _stages(console: Console, facts: Facts) -> None:
    states, stages = ("missing", "damaged", "stale"), []
    for stage in facts["stages"]:
        bad = ", ".join(f"{stage[state]:,} {state}" for state in states if stage[state])
        stages.append({**stage, "state": bad or "done"})
    columns = _columns(stages, "stage", "steps", "done", "seconds", "peak_memory_mb", "state")
    styles = ["" if stage["state"] == "done" else "red" for stage in stages]
    print_table(console, columns, title="steps", styles=styles)
    for state in states:
        if names := [step["name"] for step in facts["steps"] if step["state"] == state]:
            print_line(console, f"{state}: {listed(names)}")
    if facts["finish"]:
        print_line(console, f"`{facts['finish']}` makes what is not done, and nothing else", whole=True)
    if left := facts["unchecked"]["files"]:
        size = f"{_plural(left, 'file')}, {_size(facts['unchecked']['bytes'])}"
        print_line(console, f"not compared with their fingerprints: {size}; --check reads all")


def _summary(console: Console, facts: Facts) -> None:
    """Print the test rows of SUMMARY."""
    if facts["summary"]:
        print_summary(console, summary_view(pl.DataFrame(facts["summary"], infer_schema_length=None)))
    else:
        print_line(console, "no test lists")


def _dataset(console: Console, facts: Facts) -> None:
    _named_lines(console, f"dataset {facts['path']}", {"layout": facts["layout"]})
    console.print()
    _splits(console, facts)
    _notices(console, facts)


def _notices(console: Console, facts: Facts) -> None:
    for notice in facts["notices"]:
        print_line(console, f"notice: {notice}")


def _splits(console: Console, facts: Facts) -> None:
    keys = ("name", "rows", "queries", "negatives_fraction", "longest", "queries_without_positive", "bytes")
    columns = _columns(facts["splits"], *keys)
    print_table(console, columns, title=f"{_shape(facts)}, {_size(facts['bytes'])}")
    labels = {split["name"]: _labels(split["labels"]) for split in facts["splits"]}
    _named_lines(console, "rows by label", labels)
    for problem in facts["problems"]:
        print_line(console, f"problem: {problem}", style="red", whole=True)
    console.print()


def _shape(facts: Facts) -> str:
    documents = "with document ids" if facts["doc_id"] else "no document ids"
    return f"{_plural(facts['features'], 'feature')}, {facts['qid']} query ids, {documents}"


def _labels(labels: Sequence[Facts] | None, key: str = "label") -> str:
    if labels is None:
        return "not readable"
    return ", ".join(f"{number(row[key], 'g')}: {row['rows']:,}" for row in labels)


def _files(console: Console, facts: Facts) -> None:
    files = [{**file, "file": file["name"], "table": file["table"] or "unknown"} for file in facts["files"]]
    columns = _columns(files, "file", "table", "rows", "row_groups", "bytes")
    print_table(console, columns, title=f"directory {facts['path']}")
    print_line(console, "inspect one of them to see what it holds")


def _table(console: Console, facts: Facts) -> None:
    kind = facts["table"] or "a table ranksieve does not know"
    groups = _plural(facts["row_groups"], "row group")
    lines = {}
    if len(facts["files"]) > 1:
        lines["parts"] = listed([file["name"] for file in facts["files"]], _FILES)
    lines["rows"] = f"{_count(facts['rows'])} in {groups}, {_size(facts['bytes'])}"
    types = (f"{c['name']} {c['type']}{'?' if c['nullable'] else ''}" for c in facts["columns"])
    lines["columns"] = listed(list(types), _COLUMNS)
    _named_lines(console, f"{facts['path']}: {kind}", lines)
    console.print()
    if facts["table"]:
        _CONTENTS[facts["table"]](console, facts["contents"])
        console.print()
    if facts["table"] != "SUMMARY":  # which is shown whole
        _first(console, facts["first"])


def _judgments(console: Console, contents: Facts) -> None:
    queries, longest, empty = (
        _count(contents[key]) for key in ("queries", "longest", "queries_without_positive")
    )
    lines = {
        "queries": f"{queries}, the longest of {longest} rows, {empty} without a positive",
        "features": _shape(contents),
        "negatives": f"{_count(contents['negatives'])} ({_share(contents['negatives_fraction'])})",
        "labels": _labels(contents["labels"]),
    }
    if weights := contents.get("weights"):
        low, high = (number(weights[key], ".4g") for key in ("smallest", "largest"))
        lines["weights"] = f"sum {number(weights['sum'], ',.1f')}, from {low} to {high}"
    if grades := contents.get("grades"):
        lines["grades"] = f"{_labels(grades, 'grade')} (to train on; 1: hard negative)"
    _named_lines(console, "what it holds", lines)


def _scores(console: Console, contents: Facts) -> None:
    rows, heads = contents["labels"], {"0": "least", "0.5": "median", "1": "most"}
    columns = _columns(rows, "label", "rows", "mean")
    for quantile in rows[0]["quantiles"] if rows else ():
        values = tuple(number(row["quantiles"][quantile], ".3f") for row in rows)
        columns.append(Column(heads.get(quantile, f"{float(quantile):.0%}"), values))
    print_table(console, columns, title="scores by label")
    print_line(console, "scored by")
    for row in contents["folds"]:
        by = "the in-sample ranker" if row["fold"] < 0 else f"initial ranker {row['fold']}"
        print_line(console, f"  {by}: {_plural(row['rows'], 'row')} of {_count(row['queries'])} queries")


def _selection(console: Console, contents: Facts) -> None:
    reasons = [row | {"kept": "kept" if row["kept"] else "left out"} for row in contents["reasons"]]
    columns = _columns(reasons, "reason", "kept", "rows", "weight")
    print_table(console, columns, title="why rows are kept or not")
    share = contents["negatives_kept"] / contents["negatives"] if contents["negatives"] else None
    kept = f"{_count(contents['kept'])} rows of {_count(contents['queries'])} queries kept"
    negatives = f"{_share(share)} of {_count(contents['negatives'])} negatives"
    print_line(console, f"{kept}, among them {negatives}; weights sum to {contents['weight']:,.1f}")


def _metrics(console: Console, contents: Facts) -> None:
    heads = [f"@{k}" for k in sorted({row["cutoff"] for row in contents["means"]})]
    splits: dict[str, dict[str, Facts]] = {}
    for row in contents["means"]:
        arm = splits.setdefault(row["split"], {}).setdefault(row["arm"], {})
        arm |= {**row, f"@{row['cutoff']}": row["ndcg"]}
    for split, arms in splits.items():
        columns = _columns(list(arms.values()), "arm", *heads, "queries", "queries_empty")
        title = f"mean NDCG on {split} (queries with a relevant document)"
        keep = [heads[-1], "queries", "no positive", *reversed(heads)]
        print_table(console, columns, title=title, keep=keep)
        console.print()
    if len(contents["folds"]) > 1:
        print_line(console, f"over {len(contents['folds'])} folds, each query where it is tested")


def _search(console: Console, contents: Facts) -> None:
    columns = _columns(contents["rungs"], "rung", "trees", "arms", "kept", "best", "ndcg_vali")
    print_table(console, columns, title="rungs", keep=["best", "NDCG on vali"])


_CONTENTS: Final[dict[str, Callable[[Console, Facts], None]]] = {
    "JUDGMENTS": _judgments,
    "PREPARED": _judgments,
    "SCORES": _scores,
    "SELECTION": _selection,
    "METRICS": _metrics,
    "SUMMARY": _summary,
    "SEARCH": _search,
}


def _first(console: Console, rows: Sequence[Facts]) -> None:
    """Print the first rows, as many columns as fit."""
    if rows:
        columns = [Column(name, tuple(_cell(row[name]) for row in rows)) for name in rows[0]]
        print_table(console, columns, title=f"first {_plural(len(rows), 'row')}")
    else:
        print_line(console, "no rows")


def _cell(value: Any) -> str:
    text = MISSING if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
