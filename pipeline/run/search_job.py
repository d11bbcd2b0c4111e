"""A run that finds its arms itself: the trials of :mod:`pipeline.run.search` as resumable steps of a job.

A trial is a step like any other. It selects, prepares, trains and evaluates an arm, and all that stays of it
is its validation METRICS: a prepared set for each of dozens of candidates would fill the disk.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.core.config import Config
from pipeline.core.errors import ConfigError
from pipeline.core.files import Fingerprints
from pipeline.core.paths import FoldPaths
from pipeline.core.records import Done, Facts
from pipeline.dataset.folds import Fold
from pipeline.negatives import arms as arm_names
from pipeline.negatives.arms import BASELINE, Arm
from pipeline.run import search
from pipeline.run.job import Job
from pipeline.run.plan import Ahead, Event, FoldArm, Observer, Plan


@dataclass(frozen=True)
class TrialOf:
    """One candidate in one fold, in a rung counted from 1."""

    fold: Fold
    arm: Arm
    rung: int

    def __str__(self) -> str:
        return f"{self.arm.name} (fold {self.fold.number}, rung {self.rung})"


class SearchJob(Job):
    """The steps of a run that tries the arms of ``config.search`` before it trains the best of them.

    Until :meth:`conclude`, ``arms`` are the candidates; from then on `all`, the survivors and their controls.

    Args:
        source: As :class:`~pipeline.run.job.Job`, and so are the others.
        root: The run's directory.
        config: Every setting.
        threads: Threads to use in all; never changes a result.
        arms: None: a search finds them.
        observer: Told of every step's start, progress and end; called from several threads.

    Raises:
        ConfigError: Arms are named, or the settings cross to too few.
    """

    def __init__(
        self, source: Path | None, root: Path, *, config: Config, threads: int = 1, arms: Sequence[str] = (),
        observer: Observer | None = None,
    ) -> None:  # fmt: skip
        if arms:
            raise ConfigError("a search finds the arms itself; leave out --arms or --search")
        found = [arm.name for arm in search.candidates(config.search)]
        super().__init__(source, root, config=config, threads=threads, arms=found, observer=observer)
        self._trees_of_rungs = search.trees(config.search, of=config.ranker.trees)
        self._left, self._explored = list(self.arms), list[pl.DataFrame]()

    # ---- The steps -------------------------------------------------------------------------------------

    def trials(self) -> list[TrialOf]:
        """Return the trials of the next rung; none when the search is over."""
        rung, rungs = len(self._explored) + 1, len(self._trees_of_rungs)
        if rung > rungs or len(self._left) <= self.config.search.keep:
            return []
        trials = [TrialOf(fold, arm, rung) for fold in self.folds for arm in self._left]
        self._announce(Ahead(f"rung {rung} of {rungs}", len(trials), sum(map(self._worth, trials))))
        return trials

    def attempt(self, of: TrialOf) -> TrialOf:
        """Step: SCORES and JUDGMENTS -> validation METRICS of a candidate trained with a rung's trees."""
        name = self._name(of.fold, of.arm.name, of.rung)
        config, train_files = self.config_of(of.rung), self.files(of.fold.train)
        ranker = self._plan_of(of).ranker(of.fold, of.arm)
        settings = {**of.arm.options(config.select), "hard_gain": config.select.hard_gain}

        def work(out: list[Path]) -> Facts:
            with _scratch(out[0]) as directory:
                return _Trial(self, of, name, directory).run(out[0])

        self._step(
            name, work,
            inputs={
                "train": train_files, "scores": [self.at(of.fold).scores], "vali": self.files(of.fold.vali)
            },
            parameters={
                "arm": of.arm.name, "ranker": ranker.model_dump(), "seed": config.seed,
                "cutoff": self.cutoff, "fold": of.fold.number, **settings,
            },
            outputs=[self.layout.trial(name)],
            worth=self._worth(of),
        )  # fmt: skip
        return of

    def halve(self, failed: Collection[Arm] = ()) -> None:
        """Rank the candidates of the rung just tried, and go on with the best.

        Args:
            failed: Candidates that LightGBM failed on.
        """
        rung, tried = len(self._explored) + 1, len(self._left)
        keep = search.quota(self.config.search, tried, last=rung == len(self._trees_of_rungs))
        rows = [self._outcome(arm, rung, failed=arm in failed) for arm in self._left]
        types = {"rows": pl.Int64, "ndcg_vali": pl.Float64, "model": pl.String}
        ranked = search.halve(pl.DataFrame(rows, schema_overrides=types), keep=keep)
        kept = set(ranked.filter("kept")["arm"])
        self._explored.append(ranked.with_columns(trees=pl.lit(self._trees_of_rungs[rung - 1])))
        self._left = [arm for arm in self._left if arm.name in kept]

    def conclude(self) -> None:
        """Step: validation METRICS of every trial -> SEARCH. The survivors become the arms of the run."""
        explored = search.together(self._explored)
        done = explored.filter(pl.col("ndcg_vali").is_not_null())
        names = [
            self._name(fold, arm, rung)
            for arm, rung in zip(done["arm"], done["rung"], strict=True)
            for fold in self.folds
        ]
        self._step(
            "search",
            lambda out: search.run(self._explored, out[0]),
            inputs={"metrics": [self.layout.trial(name) for name in names]},
            parameters={"explored": explored.to_dicts()},
            outputs=[self.layout.search],
        )
        controls = [arm.control for arm in self._left if arm.control is not None]
        survivors = [arm.name for arm in self._left]
        self.arms = arm_names.panel(self.config.select, [BASELINE, *controls, *survivors])
        self.__dict__.pop("plan", None)
        self._announce(Ahead("training", len(self.plan.every_arm()), self.plan.work_of_arms()))

    @property
    def beside(self) -> int:
        """Trials of a rung, which are made side by side."""
        return len(self.folds) * len(self._left)

    # ---- What a search knows ---------------------------------------------------------------------------

    def ahead(self) -> Ahead:
        """Return the trainings to come first: the initial rankers. Each rung says what comes next."""
        return Ahead("scoring", len(self.plan.initial()), self.plan.initial_work())

    def notices(self) -> list[str]:
        """Return what a careful user should know, which begins with how the arms were found."""
        tried = self._explored[0].height
        return [
            f"the arms are the best of {tried} that were tried on the validation lists, so their figures on"
            " validation are too high, and the choice among them leans on luck; those on test are not chosen",
            *super().notices(),
        ]

    def config_of(self, rung: int) -> Config:
        """Return the settings of a rung: fewer trees, and the deciding cutoff alone."""
        ranker = self.config.ranker.model_copy(update={"trees": self._trees_of_rungs[rung - 1]})
        evaluate = self.config.evaluate.model_copy(update={"cutoffs": (self.cutoff,)})
        return self.config.model_copy(update={"ranker": ranker, "evaluate": evaluate})

    def tell(self, event: Event) -> None:
        """Pass on what happens in a trial."""
        self._observer(event)

    def _announce(self, ahead: Ahead) -> None:
        self._observer(Event("search", "ahead", ahead=ahead))

    def _name(self, fold: Fold, arm: str, rung: int) -> str:
        return f"search/rung-{rung}/{self.plan.prefix(fold)}{arm}"

    def _worth(self, of: TrialOf) -> float:
        return self._plan_of(of).arm_work(FoldArm(of.fold, of.arm))

    def _plan_of(self, of: TrialOf) -> Plan:
        return Plan(self.dataset["splits"], config=self.config_of(of.rung), arms=[of.arm])

    def _outcome(self, arm: Arm, rung: int, *, failed: bool) -> dict[str, Any]:
        """Return a candidate's row for the ranking."""
        names = [self._name(fold, arm.name, rung) for fold in self.folds]
        if failed:
            return {"arm": arm.name, "rows": None, "ndcg_vali": None, "model": None}
        facts = [self.manifest.facts(name) or {} for name in names]
        return {
            "arm": arm.name,
            "rows": sum(fact["rows"] for fact in facts),
            "ndcg_vali": search.mean_ndcg([self.layout.trial(name) for name in names], cutoff=self.cutoff),
            "model": " ".join(fact["model"] for fact in facts),
        }


class _Trial(Job):
    """The steps of one arm in a directory of their own, without records.

    Args:
        job: The job it is a trial of: dataset, scores and bins are those of that job.
        of: The candidate.
        step: Name of the step that the trial is.
        directory: An empty one, for all that the steps make.
    """

    def __init__(self, job: SearchJob, of: TrialOf, step: str, directory: Path) -> None:
        super().__init__(
            None, job.layout.root, config=job.config_of(of.rung), threads=job.all_threads, arms=[of.arm.name],
            observer=lambda event: job.tell(replace(event, step=step)),
        )  # fmt: skip
        self._job, self._item, self._threads = job, FoldArm(of.fold, of.arm), job.threads_each(job.beside)
        self._place = _Scratch(directory, job.at(of.fold))
        self._found: dict[str, Facts] = {}

    def run(self, metrics: Path) -> Facts:
        """Do what is done to every arm and leave its validation METRICS; returns what was found."""
        for step in (self.choose, self.prepare, self.train, self.evaluate):
            step(self._item)
        fold, arm = self._item.fold, self._item.arm.name
        self._place.arm_metrics(arm).replace(metrics)
        trained = self._facts(fold, f"model/{arm}")
        return {
            "rows": self._facts(fold, f"selection/{arm}")["rows"],
            "model": Fingerprints().file(self._place.model(arm)),
            **{key: trained[key] for key in ("trees", "train_seconds", "peak_memory_mb")},
        }

    @property
    def threads(self) -> int:
        """Threads of the trial, one of many."""
        return self._threads

    def at(self, fold: Fold) -> FoldPaths:
        """Return where the trial's files lie: it is of one fold."""
        del fold
        return self._place

    def _bins(self, fold: Fold) -> Path | None:
        return self._job._bins(fold)

    def _evaluated(self, fold: Fold) -> dict[str, list[Path]]:
        return {"vali": self.files(fold.vali)}

    def _facts(self, fold: Fold, name: str) -> Facts:
        return self._found[self.plan.prefix(fold) + name]

    def _step(
        self, name: str, work: Callable[[list[Path]], Facts], *, outputs: Sequence[Path], **_: Any
    ) -> Done:
        self._job._require_going(name)
        for output in outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
        self._found[name] = work(list(outputs))
        return Done(self._found[name], ran=True)


@dataclass(frozen=True)
class _Scratch(FoldPaths):
    """The files of a trial; what it only reads lies where it does for every arm.

    Attributes:
        shared: The files of the fold.
    """

    shared: FoldPaths

    @property
    def scores(self) -> Path:
        return self.shared.scores

    @property
    def bins(self) -> Path:
        return self.shared.bins


@contextmanager
def _scratch(made: Path) -> Iterator[Path]:
    """Give a directory beside a file in the making; one that a killed run leaves is swept away as that is."""
    directory = made.with_name(f"{made.name}-work")
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
