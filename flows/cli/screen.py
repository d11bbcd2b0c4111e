"""What a person sees: progress with counts and time left, the summary table, errors in one line."""

import threading
import time
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.core.paths import RunPaths
from pipeline.core.records import Manifest
from pipeline.evaluation.verdict import verdict
from pipeline.report.markdown import compared, figures, number
from pipeline.run.job import Job
from pipeline.run.plan import Ahead, Event

_QUIET_SECONDS = 15.0


class Watch:
    """Shows a job's progress: bars on a terminal, now and then a line in a log.

    Work is counted in bytes while reading and in row-trees while training, so that the time left is that of
    the work and not of the number of steps.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._what = "reading"
        self._steps = self._of_steps = 0
        self._training: float | None = None
        self._work = 0.0
        self._advanced: dict[str, float] = {}
        self._active: dict[str, None] = {}
        self._began = self._said = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[count]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bars.add_task("reading", total=None, count="", now="")

    def of(self, job: Job) -> None:
        """Say whose steps are watched."""
        self._job = job
        total = sum(file.stat().st_size for file in job.source.files) if job.has_source else None
        self._bars.update(self._task, total=total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Take one event; called from the threads that run steps."""
        with self._lock:
            if event.ahead is not None:
                self._begin(event.ahead)
            elif event.state == "start":
                self._active[event.step] = None
            elif event.state == "wait":
                self._active = {event.step: None, **self._active}
                self._said = -inf  # told at once
            elif event.state == "advance":
                self._advance(event.step, event.done)
            else:
                self._active.pop(event.step, None)
                self._finish(event)
            self._show()

    def _advance(self, step: str, work: float) -> None:
        self._advanced[step] = self._advanced.get(step, 0.0) + work
        self._work += work

    def _finish(self, event: Event) -> None:
        if event.step == "ingest" and self._job is not None:
            self._begin(self._job.ahead())
        elif event.done:
            self._steps += 1
            self._work += event.done - self._advanced.get(event.step, 0.0)

    def _begin(self, ahead: Ahead) -> None:
        """Count from nothing up to the trainings to come."""
        self._training, self._of_steps = ahead.work, ahead.rankers
        self._what, self._work, self._steps = ahead.what, 0.0, 0
        self._bars.reset(self._task, total=ahead.work, description=ahead.what)

    def _show(self) -> None:
        now = ", ".join(list(self._active)[:2])
        count = f"{self._steps}/{self._of_steps} rankers" if self._of_steps else ""
        self._bars.update(self._task, completed=self._work, count=count, now=now)
        if not self._console.is_terminal and time.monotonic() - self._said > _QUIET_SECONDS:
            self._said = time.monotonic()
            share = f"{min(self._work / self._training, 1):.0%}, " if self._training else ""
            spent = self._said - self._began
            said = f"{self._what}: {share}{count}" if count else self._what
            self._console.print(f"{spent:6.0f} s  {said}  {now}", highlight=False)


def summary_table(root: Path) -> tuple[Table, list[str]]:
    """Return a run's summary table and what it says in plain words."""
    summary = pl.read_parquet(RunPaths(root).summary)
    cutoffs = summary["cutoff"].unique().sort().to_list()
    cutoff = cutoffs[-1]
    rows = figures(summary, cutoff=cutoff).to_dicts()
    title = f"NDCG on the {rows[0]['queries']:,} test queries" if rows else "no test lists"
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    to_all, to_random = compared(rows, to="all"), compared(rows, to="random")
    heads = ["rows", "share", "train s", *(f"@{k}" for k in cutoffs)]
    for head in heads + ["vs all", "p Holm"] * to_all + ["vs random"] * to_random:
        table.add_column(head, justify="right", no_wrap=True)
    at = {(r["arm"], r["cutoff"]): r["ndcg"] for r in summary.filter(pl.col("split") == "test").to_dicts()}
    for row in rows:
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        style = "bold" if row["recommended"] else ("red" if sure and row["delta"] < 0 else "")
        table.add_row(
            ("* " if row["recommended"] else "  ") + row["arm"], f"{row['rows']:,}", f"{row['rows_fraction']:.1%}",
            number(row["train_seconds"], ".1f"), *(number(at[row["arm"], k]) for k in cutoffs),
            *[number(row["delta"], "+z.4f"), number(row["p_holm"], ".3f")] * to_all,
            *[number(row["delta_random"], "+z.4f")] * to_random,
            style=style,
        )  # fmt: skip
    return table, verdict(summary, cutoff=cutoff)


_MOST_TRIED = 15


def search_table(root: Path) -> tuple[Table, str]:
    """Return the arms that a search tried, those that came furthest first, and where the others are."""
    layout = RunPaths(root)
    tried = pl.read_parquet(layout.search)
    rungs = tried.select("rung", "trees").unique().sort("rung").rows()
    order = tried.with_row_index("place").group_by("arm").agg(pl.col("rung", "place", "kept", "rows").last())
    best = order.sort(pl.col("rung"), pl.col("place"), descending=[True, False])
    title = f"Validation NDCG of the {best.height:,} arms tried, after so many trees"
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for head in ("rows", *(f"{trees:,}" for _, trees in rungs)):
        table.add_column(head, justify="right", no_wrap=True)
    at = {(row["arm"], row["rung"]): row["ndcg_vali"] for row in tried.to_dicts()}
    for row in best.head(_MOST_TRIED).to_dicts():
        kept = row["kept"]
        table.add_row(
            ("* " if kept else "  ") + row["arm"], "" if row["rows"] is None else f"{row['rows']:,}",
            *(number(at.get((row["arm"], rung)), ".4f") if (row["arm"], rung) in at else "" for rung, _ in rungs),
            style="bold" if kept else "",
        )  # fmt: skip
    rest = best.height - _MOST_TRIED
    others = f"; {rest:,} more in {layout.search}" if rest > 0 else ""
    return table, f"  * trained with all trees{others}"


def show_search(console: Console, root: Path) -> None:
    """Print what a search tried."""
    table, note = search_table(root)
    console.print()
    console.print(table)
    console.print(note, highlight=False, soft_wrap=True, style="dim")


def _notices(root: Path) -> list[str]:
    """Return what the run's report says a careful user should know."""
    report = Manifest(RunPaths(root).manifest).steps().get("report", {})
    return [str(notice) for notice in report.get("parameters", {}).get("notices", [])]


def show_summary(console: Console, root: Path) -> None:
    """Print a run's table, its verdict and where its files are."""
    table, sentences = summary_table(root)
    console.print()
    console.print(table)
    chosen = any(cell.startswith("* ") for cell in table.columns[0].cells if isinstance(cell, str))
    console.print("  * recommended, chosen on the validation lists\n" if chosen else "", style="dim")
    for sentence in sentences:
        console.print(sentence.replace("`", ""), highlight=False)
    for notice in _notices(root):
        console.print(f"note: {notice}", highlight=False, style="yellow")
    console.print()
    layout = RunPaths(root)
    for what, path in (
        ("prepared sets", "prepared/<arm>/"), ("selections", "selection/<arm>.parquet"), ("models", "models/<arm>.txt"),
        ("summary", layout.summary.name), ("what was done", layout.manifest.name), ("report", layout.report.name),
    ):  # fmt: skip
        console.print(f"  {what:14} {root / path}", highlight=False, soft_wrap=True)
