"""What `ranksieve inspect` shows: tables that fit in 100 columns and say nothing by colour alone."""

from collections.abc import Callable, Iterable, Sequence
from textwrap import TextWrapper
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.inspect.tables import Facts
from pipeline.report.formatting import MISSING, compared, number

_NAMES: Final = 12  # names listed before the rest is counted
_COLUMNS: Final = 40  # columns of an unknown file listed before the rest is counted
_FILES: Final = 20
_CUTOFFS: Final = 4
_CELL: Final = 18  # characters of a shown value


def show(console: Console, facts: Facts) -> None:
    """Print what :func:`pipeline.inspect.look.inspect` found."""
    {"run": _run, "dataset": _dataset, "files": _files, "parts": _table, "file": _table}[facts["kind"]](
        console, facts
    )


# ---- Pieces -----------------------------------------------------------------------------------------------


def _grid(heads: Iterable[str], *, left: Sequence[str] = (), title: str | None = None) -> Table:
    """Return an empty table; columns named in ``left`` hold text, the others figures."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for head in heads:
        table.add_column(escape(head), justify="left" if head in left else "right", no_wrap=head not in left)
    return table


def _print(console: Console, text: str, **options: Any) -> None:
    console.print(escape(text), highlight=False, soft_wrap=options.pop("soft_wrap", False), **options)


def _facts(console: Console, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print a title and lines of ``name  value``, long values under themselves, paths never broken."""
    _print(console, title, style="bold", soft_wrap=True)
    wrap = TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * 13
    for name, value in facts:
        _print(console, wrap.fill(f"  {name:<10} {value}"), soft_wrap=True)


def _count(value: int | None) -> str:
    return number(value, ",")


def _share(value: float | None) -> str:
    return number(value, ".1%")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _listed(names: Sequence[str], most: int = _NAMES) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


# ---- A run ------------------------------------------------------------------------------------------------


def _run(console: Console, facts: Facts) -> None:
    source, dataset = facts["source"], facts["dataset"]
    lines = [("seed", str(facts["seed"])), ("arms", _listed(facts["arms"]))]
    if source:
        there = "" if all(file["there"] for file in source["files"]) else " (not all there any more)"
        files = _listed([file["path"] for file in source["files"]], 3)
        lines.insert(0, ("source", f"{source['layout']}: {files}{there}"))
    if facts["folds"] > 1:
        lines.append(("folds", str(facts["folds"])))
    lines.append(
        ("work", f"{facts['seconds']:,.1f} s in all steps, peak memory {_count(facts['peak_memory_mb'])} MB")
    )
    _facts(console, f"run {facts['path']}", lines)
    console.print()
    if dataset:
        _splits(console, dataset)
    _stages(console, facts)
    for notice in facts["notices"]:
        _print(console, f"notice: {notice}")
    if facts["summary"]:
        console.print()
        summary_table(console, facts["summary"])
        for sentence in facts["verdict"]:
            _print(console, sentence.replace("`", ""))


def _stages(console: Console, facts: Facts) -> None:
    table = _grid(
        ["step", "steps", "done", "seconds", "peak MB", "state"], left=("step", "state"), title="steps"
    )
    for stage in facts["stages"]:
        bad = [f"{stage[state]:,} {state}" for state in ("missing", "damaged", "stale") if stage[state]]
        table.add_row(
            stage["stage"], _count(stage["steps"]), _count(stage["done"]), f"{stage['seconds']:,.1f}",
            _count(stage["peak_memory_mb"]), ", ".join(bad) or "done", style="red" if bad else "",
        )  # fmt: skip
    console.print(table)
    for state in ("missing", "damaged", "stale"):
        if names := [step["name"] for step in facts["steps"] if step["state"] == state]:
            _print(console, f"{state}: {_listed(names)}")
    if facts["finish"]:
        _print(console, f"`{facts['finish']}` makes what is not done, and nothing else", soft_wrap=True)
    if left := facts["unchecked"]["files"]:
        size = _size(facts["unchecked"]["bytes"])
        _print(
            console,
            f"not compared with their fingerprints: {_plural(left, 'file')}, {size}; --check reads all",
        )


def summary_table(console: Console, summary: Sequence[Facts]) -> None:
    """Print the test rows of SUMMARY; ``*`` marks the recommended arm."""
    rows = [row for row in summary if row["split"] == "test"]
    cutoffs = sorted({row["cutoff"] for row in rows})
    if not rows:
        return _print(console, "no test lists")
    ndcg = {(row["arm"], row["cutoff"]): row["ndcg"] for row in rows}
    deciding = [row for row in rows if row["cutoff"] == cutoffs[-1]]
    to_all, to_random = compared(deciding, to="all"), compared(deciding, to="random")
    heads = ["arm", "rows", "share", *(f"@{k}" for k in cutoffs[-_CUTOFFS:])]
    heads += ["vs all", "p Holm"] * to_all + ["vs random"] * to_random
    table = _grid(heads, title=f"NDCG on the {deciding[0]['queries']:,} test queries")
    table.columns[0].justify = "left"
    for row in deciding:
        table.add_row(
            ("* " if row["recommended"] else "  ") + escape(row["arm"]), _count(row["rows"]),
            _share(row["rows_fraction"]), *(number(ndcg[row["arm"], k]) for k in cutoffs[-_CUTOFFS:]),
            *[number(row["delta"], "+z.4f"), number(row["p_holm"], ".3f")] * to_all,
            *[number(row["delta_random"], "+z.4f")] * to_random,
            style="bold" if row["recommended"] else "",
        )  # fmt: skip
    console.print(table)
    if any(row["recommended"] for row in deciding):
        _print(console, "* recommended, chosen on the validation lists")
    return None


# ---- A dataset --------------------------------------------------------------------------------------------


def _dataset(console: Console, facts: Facts) -> None:
    _facts(console, f"dataset {facts['path']}", [("layout", facts["layout"])])
    console.print()
    _splits(console, facts)
    for notice in facts["notices"]:
        _print(console, f"notice: {notice}")


def _splits(console: Console, facts: Facts) -> None:
    title = f"{_shape(facts)}, {_size(facts['bytes'])}"
    heads = ["split", "rows", "queries", "negatives", "longest", "no positive", "size", "rows by label"]
    table = _grid(heads, left=("split", "rows by label"), title=title)
    for split in facts["splits"]:
        table.add_row(
            split["name"], _count(split["rows"]), _count(split["queries"]),
            _share(split["negatives_fraction"]), _count(split["longest"]),
            _count(split["queries_without_positive"]), _size(split["bytes"]), _labels(split["labels"]),
        )  # fmt: skip
    console.print(table)
    for problem in facts["problems"]:
        _print(console, f"problem: {problem}", style="red", soft_wrap=True)
    console.print()


def _shape(facts: Facts) -> str:
    documents = "with document ids" if facts["doc_id"] else "no document ids"
    return f"{_plural(facts['features'], 'feature')}, {facts['qid']} query ids, {documents}"


def _labels(labels: Sequence[Facts] | None) -> str:
    if labels is None:
        return "not readable"
    return ", ".join(f"{number(row['label'], 'g')}: {row['rows']:,}" for row in labels)


# ---- Parquet ----------------------------------------------------------------------------------------------


def _files(console: Console, facts: Facts) -> None:
    _print(console, f"directory {facts['path']}", style="bold", soft_wrap=True)
    table = _grid(["file", "table", "rows", "row groups", "size"], left=("file", "table"))
    for file in facts["files"]:
        table.add_row(
            escape(file["name"]), file["table"] or "unknown", _count(file["rows"]),
            _count(file["row_groups"]), _size(file["bytes"]),
        )  # fmt: skip
    console.print(table)
    _print(console, "inspect one of them to see what it holds")


def _table(console: Console, facts: Facts) -> None:
    kind = facts["table"] or "a table ranksieve does not know"
    groups = _plural(facts["row_groups"], "row group")
    lines = [
        ("rows", f"{_count(facts['rows'])} in {groups}, {_size(facts['bytes'])}"),
        ("columns", _columns(facts["columns"])),
    ]
    if len(facts["files"]) > 1:
        lines.insert(0, ("parts", _listed([file["name"] for file in facts["files"]], _FILES)))
    _facts(console, f"{facts['path']}: {kind}", lines)
    console.print()
    if facts["table"]:
        _CONTENTS[facts["table"]](console, facts["contents"])
        console.print()
    if facts["table"] != "SUMMARY":  # which is shown whole
        _first(console, facts["first"])


def _columns(columns: Sequence[Facts]) -> str:
    kinds = [f"{column['name']} {column['type']}{'?' if column['nullable'] else ''}" for column in columns]
    return _listed(kinds, _COLUMNS)


def _judgments(console: Console, contents: Facts) -> None:
    lengths = f"the longest of {_count(contents['longest'])} rows"
    empty = f"{_count(contents['queries_without_positive'])} without a positive"
    lines = [
        ("queries", f"{_count(contents['queries'])}, {lengths}, {empty}"),
        ("features", _shape(contents)),
        ("negatives", f"{_count(contents['negatives'])} ({_share(contents['negatives_fraction'])})"),
        ("labels", _labels(contents["labels"])),
    ]
    if weights := contents.get("weights"):
        low, high = (number(weights[key], ".4g") for key in ("smallest", "largest"))
        lines.append(("weights", f"sum {number(weights['sum'], ',.1f')}, from {low} to {high}"))
    if grades := contents.get("grades"):
        counts = [{"label": row["grade"], "rows": row["rows"]} for row in grades]
        lines.append(("grades", f"{_labels(counts)} (to train on; 1: hard negative)"))
    _facts(console, "what it holds", lines)


def _scores(console: Console, contents: Facts) -> None:
    quantiles = list(contents["labels"][0]["quantiles"]) if contents["labels"] else []
    heads = ["label", "rows", "mean", *(_quantile(q) for q in quantiles)]
    table = _grid(heads, title="scores by label")
    for row in contents["labels"]:
        values = (number(value, ".3f") for value in [row["mean"], *row["quantiles"].values()])
        table.add_row(str(row["label"]), _count(row["rows"]), *values)
    console.print(table)
    _print(console, "scored by")
    for row in contents["folds"]:
        by = "the in-sample ranker" if row["fold"] < 0 else f"initial ranker {row['fold']}"
        _print(console, f"  {by}: {_plural(row['rows'], 'row')} of {_count(row['queries'])} queries")


def _quantile(name: str) -> str:
    return {"0": "least", "0.5": "median", "1": "most"}.get(name, f"{float(name):.0%}")


def _selection(console: Console, contents: Facts) -> None:
    table = _grid(
        ["reason", "kept", "rows", "weights"], left=("reason", "kept"), title="why rows are kept or not"
    )
    for row in contents["reasons"]:
        table.add_row(
            escape(row["reason"]),
            "kept" if row["kept"] else "left out",
            _count(row["rows"]),
            f"{row['weight']:,.1f}",
        )
    console.print(table)
    share = contents["negatives_kept"] / contents["negatives"] if contents["negatives"] else None
    kept = f"{_count(contents['kept'])} rows of {_count(contents['queries'])} queries kept"
    negatives = f"{_share(share)} of {_count(contents['negatives'])} negatives"
    _print(console, f"{kept}, among them {negatives}; weights sum to {contents['weight']:,.1f}")


def _metrics(console: Console, contents: Facts) -> None:
    means = contents["means"]
    cutoffs = sorted({row["cutoff"] for row in means})
    ndcg = {(row["split"], row["arm"], row["cutoff"]): row for row in means}
    for split in dict.fromkeys(row["split"] for row in means):
        heads = ["arm", *(f"@{k}" for k in cutoffs[-2 * _CUTOFFS :]), "queries", "no positive"]
        table = _grid(heads, left=("arm",), title=f"mean NDCG on {split} (queries with a relevant document)")
        for arm in dict.fromkeys(row["arm"] for row in means if row["split"] == split):
            cells = [ndcg.get((split, arm, k), {}) for k in cutoffs[-2 * _CUTOFFS :]]
            last = cells[-1]
            table.add_row(
                escape(arm), *(number(cell.get("ndcg")) for cell in cells), _count(last.get("queries")),
                _count(last.get("queries_empty")),
            )  # fmt: skip
        console.print(table)
        console.print()
    if len(contents["folds"]) > 1:
        _print(console, f"over {len(contents['folds'])} folds, each query where it is tested")


def _summary(console: Console, contents: Facts) -> None:
    summary_table(console, contents["summary"])


def _search(console: Console, contents: Facts) -> None:
    table = _grid(["rung", "trees", "arms", "kept", "best", "NDCG on vali"], left=("best",), title="rungs")
    for row in contents["rungs"]:
        counts = [_count(row[name]) for name in ("rung", "trees", "arms", "kept")]
        table.add_row(*counts, escape(row["best"]), number(row["ndcg_vali"]))
    console.print(table)


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
    if not rows:
        return _print(console, "no rows")
    cells = {name: [_cell(row[name]) for row in rows] for name in rows[0]}
    fits: list[str] = []
    room = console.width
    for name, column in cells.items():
        room -= max(map(len, [name, *column])) + 2
        if room >= 0 or not fits:
            fits.append(name)
        else:
            break
    table = _grid(fits, title=f"first {_plural(len(rows), 'row')}")
    for place in range(len(rows)):
        table.add_row(*(escape(cells[name][place]) for name in fits))
    console.print(table)
    return None


def _cell(value: Any) -> str:
    text = MISSING if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
