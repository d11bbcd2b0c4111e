"""A run as resumable steps: what each stage reads, writes and depends on, and nothing else.

:class:`Job` is the one place that joins stages to files. It decides nothing about order or parallelism: the
flow calls its methods. Every method is a step of the manifest, so calling one again costs a check.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline import report
from pipeline.core.config import Config, to_toml
from pipeline.core.errors import ConfigError, SourceError, StorageError, TrainingError
from pipeline.core.files import write_text
from pipeline.core.paths import FoldPaths, RunPaths
from pipeline.core.records import Done, Facts, Manifest
from pipeline.dataset import ingest, letor, parts
from pipeline.dataset.folds import Fold
from pipeline.dataset.sources import Source, is_parquet, locate
from pipeline.evaluation import compare, evaluate
from pipeline.negatives import arms as arm_names
from pipeline.negatives import dynamic, grades, prepare, select
from pipeline.negatives.arms import Arm
from pipeline.ranker import processes as child
from pipeline.ranker import score, train
from pipeline.ranker.bin_cache import Bins, are_worth_it
from pipeline.ranker.fit import require_device
from pipeline.run.plan import Ahead, Event, FoldArm, Observer, Plan

WORKERS: Final = 4
"""Steps at a time, at most. Trainings side by side use the processors best: a small one does not fill two. Beyond
a few, memory counts for more."""


class Job:
    """The steps of one run.

    Args:
        source: What to read; None to go on from the dataset of an earlier run.
        root: The run's directory.
        config: Every setting.
        threads: Threads to use in all; never changes a result.
        arms: Arms by name, and no others, in place of the panel in ``config``.
        observer: Told of every step's start, progress and end; called from several threads.
    """

    def __init__(
        self,
        source: Path | None,
        root: Path,
        *,
        config: Config,
        threads: int = 1,
        arms: Sequence[str] = (),
        observer: Observer | None = None,
    ) -> None:
        self.config, self.layout, self.all_threads = config, RunPaths(root), threads
        self.workers = min(threads, WORKERS)
        self.room = threading.Semaphore(self.workers)
        """For who calls steps in more threads than there are to be at work."""
        self.arms = arm_names.panel(config.select, arms)
        self.preferred = arm_names.preferred(config.select)
        self._source_path, self._observer = source, observer or (lambda _: None)
        self._steps: list[str] = []
        self._stopped = False

    # ---- Before any work -------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what can be known to be wrong before any work: the source, the device."""
        if self.has_source:
            _ = self.source
        elif not (self.layout.dataset / "dataset.json").is_file():
            raise SourceError(
                "no dataset here; start with `ranksieve run SOURCE --out`", file=self.layout.root
            )
        require_device(self.config.ranker.device)

    @cached_property
    def has_source(self) -> bool:
        """Whether there is a source to read, or only the dataset that an earlier run made of it."""
        if self._source_path is None or os.path.exists(self._source_path):  # noqa: PTH110 - answers any path
            return self._source_path is not None
        record = self.manifest.steps().get("ingest", {"inputs": {}})
        files = [Path(name) for role in record["inputs"].values() for name in role or ()]
        return not files or not all(file.is_relative_to(self._source_path) for file in files)

    @cached_property
    def source(self) -> Source:
        """The located source."""
        if self._source_path is None:
            raise ConfigError("this run has no source to read")
        return locate(self._source_path)

    @cached_property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return Manifest(self.layout.manifest)

    @cached_property
    def bins(self) -> Bins:
        """Binned training splits."""
        return Bins(self.manifest.fingerprints, threads=self.all_threads)

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """What the dataset holds."""
        document: dict[str, Any] = json.loads(
            (self.layout.dataset / "dataset.json").read_text(encoding="utf-8")
        )
        return document

    @cached_property
    def plan(self) -> Plan:
        """What there is to do; known once the dataset is there."""
        return Plan(self.dataset["splits"], config=self.config, arms=self.arms)

    def ahead(self) -> Ahead:
        """Return the trainings to come, for who shows them."""
        rankers = len(self.plan.initial()) + len(self.plan.every_arm())
        return Ahead("training", rankers, self.plan.initial_work() + self.plan.work_of_arms())

    def threads_each(self, items: int) -> int:
        """Return the threads of each of some items that are worked on side by side."""
        return self.all_threads // min(self.workers, items)

    @property
    def threads(self) -> int:
        """Threads of each arm of each fold."""
        return self.threads_each(len(self.plan.every_arm()))

    @property
    def folds(self) -> list[Fold]:
        """The folds of the dataset."""
        return self.plan.folds

    def at(self, fold: Fold) -> FoldPaths:
        """Return where a fold's files lie."""
        return self.layout.fold(fold.number, of=len(self.folds))

    def files(self, splits: Sequence[str]) -> list[Path]:
        """Return the Parquet parts of dataset splits."""
        return parts.split_files(self.layout.dataset, splits)

    @property
    def cutoff(self) -> int:
        """The cutoff that decides: the last one."""
        return self.config.evaluate.cutoffs[-1]

    # ---- The steps -------------------------------------------------------------------------------------

    def ingest(self) -> None:
        """Step: SOURCE -> JUDGMENTS. An intact dataset whose source is gone is kept."""
        settings = self.config.model_dump(mode="json", include={"ingest", "split", "seed"})
        if self.has_source:
            self._ingest(settings)
        else:
            self._keep_dataset(settings)
        self._require_columns()
        write_text(self.layout.config, to_toml(self.config))

    def _keep_dataset(self, settings: dict[str, Any]) -> None:
        """Go on without a source; a dataset that was put here by hand is taken as it is."""
        record = self.manifest.steps().get("ingest")
        if record is None:
            return
        if not self.manifest.is_intact("ingest", [self.layout.dataset]):
            raise StorageError(f"{self.layout.dataset}: not as it was ingested; run again with its SOURCE")
        made = record["parameters"]
        for name in settings:
            if name in made and made[name] != settings[name]:
                raise ConfigError(
                    f"{name} decided how {self.layout.dataset} was made: run again with its SOURCE to change it"
                )

    def _require_columns(self) -> None:
        """Raise what an arm reads and the data does not have, before anything is trained."""
        for fold in self.folds:
            columns = parts.schema_of(self.files(fold.train)).names
            for arm in self.arms:
                select.require(arm, self.config.select, columns)

    def _ingest(self, settings: dict[str, Any]) -> None:
        def work(out: list[Path]) -> Facts:
            if not all(is_parquet(file) for file in self.source.files) and letor.must_compile():
                compiling = "compiling the reader: once, some 10 s"
                self._observer(Event(compiling, "wait"))
                letor.warm_up()
                self._observer(Event(compiling, "ready"))
            document = ingest.run(
                self.source, out[0], config=self.config.ingest, split=self.config.split, seed=self.config.seed,
                threads=self.all_threads, advance=lambda read: self._observer(Event("ingest", "advance", read)),
            )  # fmt: skip
            ingest.require_contrast(self.source, document["splits"])
            return document

        splits = {split.name: split.hold_out for split in self.source.splits}
        if not any(splits.values()):  # no split is drawn, so a new seed needs no new dataset
            settings = {"ingest": settings["ingest"]}
        self._step(
            "ingest", work,
            inputs={split.name: self.source.stored(split) for split in self.source.splits},
            parameters={**settings, "layout": self.source.layout, "splits": splits},
            outputs=[self.layout.dataset],
        )  # fmt: skip
        self.__dict__.pop("dataset", None)
        self.__dict__.pop("plan", None)

    def fit_initial(self, fold: Fold) -> Fold:
        """Step: JUDGMENTS -> the initial rankers of a fold."""
        train_files = self.files(fold.train)
        settings = self.plan.ranker(fold).model_copy(
            update={"early_stopping": 0, "trees": self.plan.initial_trees}
        )
        where = self._where(self.layout.dataset / fold.train[0])
        keys = parts.read_keys(train_files)
        repeats = self.plan.repeats
        folds = self.config.score.folds if repeats else 1
        if folds > keys["qid"].n_unique():
            raise ConfigError(
                f"score.folds = {folds} but there are only {keys['qid'].n_unique()} training queries; use fewer folds"
            )
        notices = select.too_long(keys, where)
        name = f"{self.plan.prefix(fold)}initial"
        share = self.config.score.model_dump(include={"negatives", "negatives_at_least"})
        shares = self._shares_bins(fold)

        def work(out: list[Path]) -> Facts:
            facts = score.fit(
                train_files, out, repeats=repeats, config=settings, negatives=share["negatives"],
                at_least=share["negatives_at_least"], seed=self.config.seed,
                bins=self._bins(fold) if shares else None, threads=self.threads_each(len(self.folds)),
                trees_done=self._trees(name, fold),
            )  # fmt: skip
            return {**facts, "notices": notices}

        self._step(
            name, work,
            inputs={"train": train_files},
            parameters={
                "ranker": settings.model_dump(), "seed": self.config.seed, "folds": folds, "repeats": repeats,
                **share, **({"bins": "of all rows"} if shares else {}),
            },
            outputs=self._initial_models(fold),
            worth=self.plan.initial_rows(fold) * self.plan.initial_trees,
        )  # fmt: skip
        return fold

    def _initial_models(self, fold: Fold) -> list[Path]:
        """Return the initial rankers of a fold, those of the first repeat first."""
        numbers = range(self.plan.initial_rankers) if self.plan.repeats else [score.IN_SAMPLE]
        return [self.at(fold).initial_model(number) for number in numbers]

    def score(self, fold: Fold) -> Fold:
        """Step: initial rankers -> SCORES."""
        models, repeats = self._initial_models(fold), max(self.plan.repeats, 1)
        train_files, threads = self.files(fold.train), self.threads_each(len(self.folds))
        self._step(
            f"{self.plan.prefix(fold)}scores",
            lambda out: score.run(
                train_files, models, out[0], repeats=repeats, seed=self.config.seed, threads=threads
            ),
            inputs={"train": train_files, "models": models},
            parameters={"seed": self.config.seed, "repeats": repeats},
            outputs=[self.at(fold).scores],
        )
        return fold

    def select(self, of: FoldArm) -> FoldArm:
        """Step: SCORES -> SELECTION of an arm; of one that chooses again, the last that its ranker trained on."""
        at, arm = self.at(of.fold), of.arm
        last: dict[str, Any] = {}
        if arm.chooses_again:
            self._boost(of)
            last = {"round": self._facts(of.fold, f"model/{arm.name}")["rounds"] - 1}
        ranked = at.ranked(arm.name) if last else None
        options = arm.options(self.config.select)
        # Most arms need the scores alone; the others are made again when the training split changes.
        train_files = self.files(of.fold.train) if arm.reads(self.config.select) else []
        self._step(
            f"{self.plan.prefix(of.fold)}selection/{arm.name}",
            lambda out: select.run(
                at.scores, out[0], arm=arm, config=self.config.select, seed=self.config.seed, files=train_files,
                ranked=ranked, **last,
            ),
            inputs={
                "scores": [at.scores], **({"train": train_files} if train_files else {}),
                **({"ranked": [ranked]} if ranked else {}),
            },
            parameters={"arm": arm.name, **options, "seed": self.config.seed, **last},
            outputs=[at.selection(arm.name)],
        )  # fmt: skip
        return of

    def prepare(self, of: FoldArm) -> FoldArm:
        """Step: SELECTION -> prepared set. An arm that keeps every row needs none: it is the dataset."""
        if self._keeps_everything(of):
            return of
        at, train_files = self.at(of.fold), self.files(of.fold.train)
        self._step(
            f"{self.plan.prefix(of.fold)}prepared/{of.arm.name}",
            lambda out: prepare.run(train_files, at.selection(of.arm.name), out[0], bags=of.arm.bags),
            inputs={"train": train_files, "selection": [at.selection(of.arm.name)]},
            parameters={"bags": of.arm.bags} if of.arm.bags > 1 else {},
            outputs=[at.prepared(of.arm.name)],
        )
        return of

    def _boost(self, of: FoldArm) -> None:
        """Step: JUDGMENTS + SCORES -> ranker of an arm that chooses again, and what its last choice went by."""
        name, at = f"{self.plan.prefix(of.fold)}model/{of.arm.name}", self.at(of.fold)
        train_files = self.files(of.fold.train)
        vali = self.files(of.fold.vali) if self.config.ranker.early_stopping else []
        self._step(
            name,
            lambda out: dynamic.run(
                train_files, at.scores, out[0], out[1], arm=of.arm, select=self.config.select,
                config=self.plan.ranker(of.fold), seed=self.config.seed, vali=vali, cutoff=self.cutoff,
                bins=self._bins(of.fold), threads=self.threads, trees_done=self._trees(name, of),
            ),
            inputs={"train": train_files, "scores": [at.scores], "vali": vali},
            parameters={
                "ranker": self.plan.ranker(of.fold).model_dump(), "seed": self.config.seed, "arm": of.arm.name,
                **of.arm.options(self.config.select), **({"cutoff": self.cutoff} if vali else {}),
            },
            outputs=[at.model(of.arm.name), at.ranked(of.arm.name)],
            worth=self.plan.arm_rows(of) * self.plan.arm_trees(of),
        )  # fmt: skip

    def _shares_bins(self, fold: Fold) -> bool:
        """Tell whether the initial rankers and `all` train on the bins of a fold.

        Its initial rankers must train on as many rows as it has, over all of them: to bin them all costs more
        than to bin the rows of each ranker otherwise. What arms there are changes nothing.
        """
        return self._has_bins(fold) and self.plan.initial_rows(fold) >= self.plan.rows(fold)

    def _has_bins(self, fold: Fold) -> bool:
        """Tell whether a fold is worth binning as a whole: other devices bin in their own way."""
        return self.config.ranker.device == "cpu" and are_worth_it(self.files(fold.train))

    def _bins(self, fold: Fold) -> Path | None:
        """Return the binned training split of a fold, where it has one."""
        if not self._has_bins(fold):
            return None
        return self.bins.of(self.files(fold.train), self.at(fold).bins, config=self.plan.ranker(fold))

    def train(self, of: FoldArm) -> FoldArm:
        """Step: prepared set -> retrained ranker; that of an arm that chooses again has been trained by then."""
        if of.arm.chooses_again:
            return of
        name = f"{self.plan.prefix(of.fold)}model/{of.arm.name}"
        files, settings = self.prepared_files(of), self.plan.ranker(of.fold, of.arm)
        vali = self.files(of.fold.vali) if self.config.ranker.early_stopping else []
        shares = self._keeps_everything(of) and self._shares_bins(of.fold)
        hard_gain = self.config.select.hard_gain
        gains = grades.gains(hard_gain) if of.arm.graded else []

        def work(out: list[Path]) -> Facts:
            facts = train.run(
                files, out[0], vali=vali, config=settings, seed=self.config.seed, cutoff=self.cutoff,
                arm=of.arm.name, bags=of.arm.bags, gains=gains, bins=self._bins(of.fold) if shares else None,
                threads=self.threads, trees_done=self._trees(name, of),
            )  # fmt: skip
            least, rows = 2 * (settings.min_rows_per_leaf or 1), facts["rows"] // of.arm.bags
            notice = (
                f"{name}: {rows:,} rows cannot fill two leaves of ranker.min_rows_per_leaf"
                f" = {settings.min_rows_per_leaf}, so the ranker is constant; set it lower"
            )
            return {**facts, "notices": [notice] if rows < least else []}

        self._step(
            name, work,
            inputs={"rows": files, "vali": vali},
            parameters={
                "ranker": settings.model_dump(), "seed": self.config.seed,
                **({"bags": of.arm.bags} if of.arm.bags > 1 else {}),
                **({"hard_gain": hard_gain} if of.arm.graded else {}),
                **({"cutoff": self.cutoff} if vali else {}), **({"bins": "of all rows"} if shares else {}),
            },
            outputs=[self.at(of.fold).model(of.arm.name)],
            worth=self.plan.arm_rows(of) * self.plan.arm_trees(of),
        )  # fmt: skip
        return of

    def evaluate(self, of: FoldArm) -> FoldArm:
        """Step: model -> METRICS of an arm on validation and test lists."""
        splits = self._evaluated(of.fold)
        model, cutoffs = self.at(of.fold).model(of.arm.name), self.config.evaluate.cutoffs
        self._step(
            f"{self.plan.prefix(of.fold)}metrics/{of.arm.name}",
            lambda out: evaluate.run(
                model,
                splits,
                out[0],
                arm=of.arm.name,
                fold=of.fold.number,
                cutoffs=cutoffs,
                threads=self.threads,
            ),
            inputs={"model": [model], **splits},
            parameters={"cutoffs": cutoffs, "fold": of.fold.number, "arm": of.arm.name},
            outputs=[self.at(of.fold).arm_metrics(of.arm.name)],
        )
        return of

    def _evaluated(self, fold: Fold) -> dict[str, list[Path]]:
        """Return the lists that the rankers of a fold are evaluated on."""
        return {"vali": self.files(fold.vali), "test": self.files(fold.test)}

    def choose(self, of: FoldArm) -> FoldArm:
        """Step: SELECTION of an arm, from SCORES or, for an arm that needs none, from JUDGMENTS."""
        return self.select(of) if of.arm.needs_scores else self._keep_all(of)

    def _keep_all(self, of: FoldArm) -> FoldArm:
        train_files = self.files(of.fold.train)
        keys, where = parts.read_keys(train_files), self._where(self.layout.dataset / of.fold.train[0])
        notices = select.too_long(keys, where)

        def work(out: list[Path]) -> Facts:
            facts = select.run_all(
                train_files, out[0], arm=of.arm, config=self.config.select, seed=self.config.seed
            )
            return {**facts, "notices": notices}

        self._step(
            f"{self.plan.prefix(of.fold)}selection/{of.arm.name}", work,
            inputs={"train": train_files},
            parameters={"arm": of.arm.name, "seed": self.config.seed},
            outputs=[self.at(of.fold).selection(of.arm.name)],
        )  # fmt: skip
        return of

    def collect(self, arms: Sequence[Arm]) -> None:
        """Step: METRICS of all arms and folds as one table (and per fold, for a source with folds)."""
        for fold in self.folds:
            self._together(
                self.plan.prefix(fold) + "metrics",
                [self.at(fold).arm_metrics(arm.name) for arm in arms], self.at(fold).metrics,
            )  # fmt: skip
        if len(self.folds) > 1:
            self._together("metrics", [self.at(fold).metrics for fold in self.folds], self.layout.metrics)

    def _together(self, name: str, files: list[Path], out: Path) -> None:
        order = [file.relative_to(self.layout.root).as_posix() for file in files]
        self._step(
            name,
            lambda made: evaluate.concat_metrics(files, made[0]),
            inputs={"metrics": files},
            parameters={"order": order},
            outputs=[out],
        )

    def compare(self, arms: Sequence[Arm]) -> None:
        """Step: METRICS -> SUMMARY."""
        there = {arm.name for arm in arms}
        facts = [self.arm_facts(arm) for arm in arms]
        for fact in facts:  # a control may not be asked for, and its training can fail
            fact["control"] = fact["control"] if fact["control"] in there else None
        settings: dict[str, Any] = {
            "seed": self.config.seed,
            "resamples": self.config.evaluate.resamples,
            "cutoff": self.cutoff,
            "prefer": self.preferred.name,
        }
        self._step(
            "summary",
            lambda out: compare.run(self.layout.metrics, pl.DataFrame(facts), out[0], **settings),
            inputs={"metrics": [self.layout.metrics]},
            parameters={**settings, "arms": facts},
            outputs=[self.layout.summary],
        )

    def report(self) -> None:
        """Step: everything -> report.html."""
        document: dict[str, Any] = {
            "dataset": self.dataset,
            "config": self.config.model_dump(mode="json"),
            "notices": self.notices(),
        }
        self._step(
            "report",
            lambda out: report.run(self.layout.summary, self.layout.metrics, out[0], **document),
            inputs={"summary": [self.layout.summary], "metrics": [self.layout.metrics]},
            parameters=document,
            outputs=[self.layout.report],
        )

    # ---- What the steps found out ----------------------------------------------------------------------

    def prepared_files(self, of: FoldArm) -> list[Path]:
        """Return the Parquet parts an arm trains on."""
        if self._keeps_everything(of):
            return self.files(of.fold.train)
        return parts.split_files(self.at(of.fold).prepared(of.arm.name).parent, [of.arm.name])

    def _keeps_everything(self, of: FoldArm) -> bool:
        return of.arm.keeps_everything(self._facts(of.fold, f"selection/{of.arm.name}"))

    def arm_facts(self, arm: Arm) -> dict[str, Any]:
        """Return an arm's row for the comparison: rows and seconds summed over the folds."""
        selected = [self._facts(fold, f"selection/{arm.name}") for fold in self.folds]
        trained = [self._facts(fold, f"model/{arm.name}") for fold in self.folds]

        def total(facts: list[Facts], key: str) -> float:
            return sum(float(f[key]) for f in facts)

        return {
            "arm": arm.name,
            "control": arm.control,
            "rows": int(total(selected, "rows")),
            "rows_fraction": total(selected, "rows") / total(selected, "of_rows"),
            "negatives_fraction": total(selected, "negatives") / total(selected, "of_negatives"),
            "train_seconds": round(total(trained, "train_seconds"), 3),
        }

    def notices(self) -> list[str]:
        """Return what a careful user should know, each once, in the order of the steps."""
        facts = {name: self.manifest.facts(name) or {} for name in sorted(set(self._steps))}
        found = list(self.dataset["notices"])
        for name in facts:
            found += facts[name].get("notices", [])
        short = {
            arm.name: sum(
                facts.get(f"{self.plan.prefix(fold)}selection/{arm.name}", {}).get("shortfall", 0)
                for fold in self.folds
            )
            for arm in self.arms
        }
        if any(short.values()):
            listed = ", ".join(f"{name} ({count:,})" for name, count in short.items() if count)
            found.append(
                f"fewer negatives than asked for, because of a guard, the strategy or the row limit: {listed}"
            )
        return list(dict.fromkeys(found))

    def _facts(self, fold: Fold, name: str) -> Facts:
        facts = self.manifest.facts(self.plan.prefix(fold) + name)
        if facts is None:
            raise ConfigError(f"{self.layout.root}: step {name!r} has not run yet")
        return facts

    def _where(self, split: Path) -> Path:
        """Return what to call the training data in a message: the source where there is one."""
        return split if self._source_path is None else self._source_path

    def stop(self) -> None:
        """Let no further step begin and end the trainings under way, for a run that ends before they do."""
        self._stopped = True
        child.end_all()

    # ---- Plumbing --------------------------------------------------------------------------------------

    def _trees(self, name: str, of: Fold | FoldArm) -> Callable[[int], None]:
        """Return a callback that turns trees done so far into work done since the last call."""
        if isinstance(of, FoldArm):
            rows = self.plan.arm_rows(of)
        else:  # the trees told are those of all rankers
            rows = self.plan.initial_rows(of) / self.plan.initial_rankers
        last = 0

        def tell(trees: int) -> None:
            nonlocal last
            self._observer(Event(name, "advance", rows * (trees - last)))
            last = trees

        return tell

    def _require_going(self, name: str) -> None:
        if self._stopped:
            raise TrainingError(f"{name}: not begun, because the run was stopped")

    def _step(
        self,
        name: str,
        work: Callable[[list[Path]], Facts],
        *,
        inputs: Mapping[str, Path | Sequence[Path]],
        parameters: Mapping[str, Any],
        outputs: Sequence[Path],
        worth: float = 0.0,
    ) -> Done:
        self._require_going(name)
        self._steps.append(name)
        self._observer(Event(name, "start", worth))
        done = self.manifest.do(name, work, inputs=inputs, parameters=parameters, outputs=outputs)
        self._observer(Event(name, "done" if done.ran else "kept", worth))
        return done
