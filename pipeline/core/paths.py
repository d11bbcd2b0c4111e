"""Where everything lies in a run's directory: the one place for paths and names of outputs."""

from dataclasses import dataclass
from pathlib import Path


def parts(directory: Path) -> list[Path]:
    """Return a split's Parquet files, in order."""
    return sorted(directory.glob("part-*.parquet"))


def fold_prefix(number: int, *, of: int) -> str:
    """Return what the paths and step names of fold ``number`` begin with; nothing for a source without folds."""
    return "" if of == 1 else f"fold-{number}/"


@dataclass(frozen=True)
class FoldPaths:
    """The files of one fold; a source without folds has one, in the run's own directory."""

    root: Path

    @property
    def scores(self) -> Path:
        """SCORES of the training rows."""
        return self.root / "scores.parquet"

    @property
    def metrics(self) -> Path:
        """METRICS of this fold's arms."""
        return self.root / "metrics.parquet"

    def initial_model(self, number: int) -> Path:
        """An initial ranker: those of the first repeat come first, by the fold they score; -1: in-sample."""
        return self.root / "models" / ("initial.txt" if number < 0 else f"initial-{number}.txt")

    def selection(self, arm: str) -> Path:
        """SELECTION of an arm."""
        return self.root / "selection" / f"{arm}.parquet"

    def ranked(self, arm: str) -> Path:
        """SCORES that the last choice of an arm went by, where it is its own ranker's."""
        return self.root / "scores" / f"{arm}.parquet"

    @property
    def bins(self) -> Path:
        """Binned features of the training split: no result, made again when they are gone."""
        return self.root / "bins"

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
    """The files of a run."""

    root: Path

    @property
    def dataset(self) -> Path:
        """JUDGMENTS of every split."""
        return self.root / "dataset"

    @property
    def config(self) -> Path:
        """Every setting, resolved."""
        return self.root / "config.toml"

    @property
    def manifest(self) -> Path:
        """What was done, from what, with what result."""
        return self.root / "manifest.json"

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

    def trial(self, step: str) -> Path:
        """METRICS of one trial of a search, which is all that it leaves."""
        return self.root / f"{step}.parquet"

    @property
    def report(self) -> Path:
        """The report for a browser."""
        return self.root / "report.html"

    def fold(self, number: int, *, of: int) -> FoldPaths:
        """Fold ``number`` (from 1) of a source with ``of`` folds."""
        return FoldPaths(self.root / fold_prefix(number, of=of))
