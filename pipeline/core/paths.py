"""Where everything lies in a run's directory: the one place for paths and names of outputs."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.core import records


def part_files(directory: Path) -> list[Path]:
    """Return a split's Parquet files, in order."""
    return sorted(directory.glob("part-*.parquet"))


@dataclass(frozen=True)
class FoldPaths:
    """The files of one fold; a source without folds has one, in the run's own directory.

    Attributes:
        root: Where the files of its arms lie.
        scored: Where its scores and bins lie: ``root``, but for a trial of a search.
    """

    root: Path
    scored: Path

    @property
    def scores(self) -> Path:
        """SCORES of the training rows."""
        return self.scored / "scores.parquet"

    @property
    def bins(self) -> Path:
        """Binned features of the training split: no result, made again when they are gone."""
        return self.scored / "bins"

    def initial_model(self, number: int) -> Path:
        """An initial ranker: those of the first repeat come first, by the fold they score; -1: in-sample."""
        return self.scored / "models" / ("initial.txt" if number < 0 else f"initial-{number}.txt")

    @property
    def metrics(self) -> Path:
        """METRICS of this fold's arms."""
        return self.root / "metrics.parquet"

    def selection(self, arm: str) -> Path:
        """SELECTION of an arm."""
        return self.root / "selection" / f"{arm}.parquet"

    def last_scores(self, arm: str) -> Path:
        """SCORES that the last choice of an arm went by, where they are its own ranker's."""
        return self.root / "scores" / f"{arm}.parquet"

    def prepared(self, arm: str) -> Path:
        """The prepared set of an arm: a directory of Parquet parts."""
        return self.root / "prepared" / arm

    def model(self, arm: str) -> Path:
        """The retrained ranker of an arm."""
        return self.root / "models" / f"{arm}.txt"

    def arm_metrics(self, arm: str) -> Path:
        """METRICS of one arm, before they are put together."""
        return self.root / "metrics" / f"{arm}.parquet"


@dataclass(frozen=True)
class RunPaths:
    """The files of a run.

    Attributes:
        root: The run's directory.
        shared: For a trial of a search the directory of its run, from which it reads dataset, scores and bins.
    """

    root: Path
    shared: Path | None = None

    @property
    def dataset(self) -> Path:
        """JUDGMENTS of every split."""
        return (self.shared or self.root) / "dataset"

    @property
    def dataset_card(self) -> Path:
        """What the dataset holds, as JSON."""
        return self.dataset / "dataset.json"

    @property
    def config(self) -> Path:
        """Every setting, resolved."""
        return self.root / "config.toml"

    @property
    def manifest(self) -> Path:
        """What was done, from what, with what result: all records of the run."""
        return self.root / records.MANIFEST

    @property
    def events(self) -> Path:
        """What happens in a run under way, for who shows it."""
        return self.root / ".events.jsonl"

    @property
    def metrics(self) -> Path:
        """METRICS over all folds."""
        return self.root / "metrics.parquet"

    @property
    def summary(self) -> Path:
        """SUMMARY over all folds."""
        return self.root / "summary.parquet"

    @property
    def search(self) -> Path:
        """SEARCH: what a search tried."""
        return self.root / "search.parquet"

    @property
    def report(self) -> Path:
        """The report for a browser."""
        return self.root / "report.html"

    def trial(self, step: str) -> Path:
        """METRICS of one trial of a search, which is all that it leaves."""
        return self.root / f"{step}.parquet"

    def fold(self, prefix: str) -> FoldPaths:
        """Return the files of a fold.

        Args:
            prefix: What its paths begin with, such as ``fold-2/``; empty for a source without folds.
        """
        return FoldPaths(self.root / prefix, (self.shared or self.root) / prefix)
