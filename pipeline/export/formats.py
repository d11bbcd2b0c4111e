"""Hand an arm to other tools: its prepared set as LETOR or LightGBM text, or its rankings for trec_eval.

===========  ============================================================================================
``letor``    ``train.txt.gz``, ``vali.txt.gz``, ``test.txt.gz``: ``label qid:ID 1:value ... #docid = X``;
             ``train.weights`` with a weight per line, where weights differ from 1; ``train.grades`` with a
             grade per line, for a graded arm
``lightgbm`` ``train.svm``, ``vali.svm``, ``test.svm``: ``label 0:value 1:value ...``, without ``qid``, which
             LightGBM's loader refuses; beside each ``.query`` (rows per query) and, where weights differ
             from 1, ``train.svm.weight``. ``lightgbm.Dataset("train.svm")`` finds both by itself. A graded
             arm has ``train.svm.grades``, to be set as the labels
``trec``     ``vali.qrels``, ``test.qrels``: ``qid 0 docid label``; ``vali.run``, ``test.run``: ``qid Q0
             docid rank score tag``, scored by the arm's model, the tag being the arm's name
===========  ============================================================================================

A bagged arm has a training set per bag: ``train-1``, ``train-2`` and so on in place of ``train``.

Every feature of every row is written, zeros too: LightGBM takes the format from the first lines, and cannot
when these hold nothing but zeros. A float32 is written as the shortest decimal number that is it. Beside the
files lies ``export.json``, which says what they were made from.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.config import parse, read_toml
from pipeline.core.errors import ConfigError, StorageError, did_you_mean
from pipeline.core.files import atomic_write, require_replaceable, sha256
from pipeline.core.paths import RunPaths
from pipeline.core.records import Facts, read_records
from pipeline.core.tables import features_of
from pipeline.dataset import letor, parts
from pipeline.dataset.folds import Fold
from pipeline.export import trec
from pipeline.negatives import arms as arm_names
from pipeline.ranker.predict import predict
from pipeline.run.scope import ArmScope, Dataset, FoldScope

Format = Literal["letor", "lightgbm", "trec"]
Advance = Callable[[int], None]

CARD: Final = "export.json"
_ROWS: Final = 1 << 16  # rows formatted at once; bounded by cells as well
_CELLS: Final = 1 << 20


@dataclass(frozen=True)
class Export:
    """What to hand over, from files that the run's records vouch for."""

    root: Path
    item: ArmScope
    train: list[Path]  # parts of the prepared set; of the training split for an arm that keeps every row
    held_out: dict[str, list[Path]]  # parts of the validation and test lists
    model: Path
    gains: list[float]  # of a graded arm's grades

    @property
    def sets(self) -> dict[str, list[Path]]:
        """The training sets by name: one, or one per bag."""
        if self.item.arm.bags == 1:
            return {"train": self.train}
        return {f"train-{bag}": [file] for bag, file in enumerate(self.train, start=1)}


def plan(root: Path, *, arm: str, fold: int | None = None) -> Export:
    """Find the files of an arm; raises as :func:`run` does."""
    run = RunPaths(root)
    if not run.config.is_file():
        raise ConfigError(f"{root}: not a run (no config.toml); start with `ranksieve run SOURCE`")
    config = parse(read_toml(run.config), where=str(run.config))
    at = FoldScope(run, _fold(run, fold), config)
    of = ArmScope(at, arm_names.parse(_arm(run, arm)))
    held_out = {"vali": at.files(at.fold.vali), "test": at.files(at.fold.test)}
    return Export(root, of, of.prepared, held_out, at.paths.model(of.arm.name), of.gains)


def _fold(run: RunPaths, number: int | None) -> Fold:
    folds = {fold.number: fold for fold in Dataset.of(run).folds}
    there = f"folds {min(folds)} to {max(folds)}" if len(folds) > 1 else "one fold"
    if number is None and len(folds) > 1:
        raise ConfigError(f"{run.root}: this run has {there}; choose one with --fold")
    wanted = min(folds) if number is None else number
    if wanted not in folds:
        raise ConfigError(f"--fold {wanted}: this run has {there}")
    return folds[wanted]


def _arm(run: RunPaths, name: str) -> str:
    """Return the name of an arm that the run has selected."""
    outputs = [Path(output) for record in read_records(run.root).values() for output in record.outputs]
    known = sorted({output.stem for output in outputs if output.parent.name == "selection"})
    if not known:
        raise ConfigError(f"{run.root}: no arm is selected yet; run `ranksieve select {run.root}`")
    if name not in known:
        raise ConfigError(f"{run.root}: no arm {name!r}.{did_you_mean(name, known)}")
    return name


def run(
    root: Path,
    out: Path,
    *,
    arm: str,
    kind: Format,
    fold: int | None = None,
    threads: int = 1,
    advance: Advance = lambda _: None,
) -> Facts:
    """Write an arm in another tool's format; a row group at a time, all files or none.

    ``out`` is replaced if it is empty or an earlier export. ``fold`` counts from 1 and is None where the run has
    one; ``threads`` score for ``trec``; ``advance`` is told the rows written since the last call.

    Returns:
        What ``export.json`` says: ``run, arm, fold, format, rows`` by split, ``notices`` and ``files``.

    Raises:
        ConfigError: No such run, arm, fold or format, or ``out`` holds something else.
        StorageError: A file of the run is missing or not what the run wrote, or ``out`` cannot be written.
        TableError: A query or document id that the format cannot carry.
    """
    if kind not in _WRITERS:
        raise ConfigError(f"--format {kind}: no such format.{did_you_mean(kind, list(_WRITERS))}")
    export = plan(root, arm=arm, fold=fold)
    out = out.resolve()
    require_replaceable(out, card=CARD)
    _require_intact(export, kind)
    splits = export.held_out if kind == "trec" else export.sets | export.held_out
    with atomic_write(out) as [made]:
        made.mkdir()
        notices = _WRITERS[kind](export, made, threads, advance)
        facts = {
            "run": str(root),
            "arm": arm,
            "fold": export.item.at.fold.number,
            "format": kind,
            "rows": {split: parts.count_rows(files) for split, files in splits.items()},
            "notices": notices,
            "files": sorted([*(file.name for file in made.iterdir()), CARD]),
        }
        (made / CARD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _require_intact(export: Export, kind: Format) -> None:
    """Raise when a file to be read is missing or not what the records say the run wrote."""
    root = export.root
    remedy = f"`ranksieve train {root} --arms {export.item.arm.name}` makes it"
    first = {"model": [export.model]} if kind == "trec" else {"prepared set": export.train}
    wanted = first | export.held_out
    for what, files in wanted.items():
        if not files or not all(file.is_file() for file in files):
            raise StorageError(f"{root}: no {what} of {export.item} here; {remedy}")
    recorded = {name: sha for record in read_records(root).values() for name, sha in record.outputs.items()}
    directories = {file.parent for what, files in wanted.items() for file in files if what != "model"}
    if lost := [n for n in recorded if (root / n).parent in directories and not (root / n).is_file()]:
        raise StorageError(f"{root / lost[0]}: not there; {remedy} again")
    for file in (file for files in wanted.values() for file in files):
        if sha256(file) != recorded.get(file.relative_to(root).as_posix()):
            raise StorageError(f"{file}: not what the run wrote; {remedy} again")


def _batches(files: Sequence[Path], advance: Advance) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches small enough to become text at once."""
    for table in parts.row_groups(files):
        rows = max(1, min(_ROWS, _CELLS // table.num_columns))
        for batch in table.to_batches(rows):
            yield batch
            advance(batch.num_rows)


def _letor(export: Export, out: Path, _threads: int, advance: Advance) -> list[str]:
    for split, files in (export.sets | export.held_out).items():
        letor.write_letor(_batches(files, advance), out / f"{split}.txt.gz", sparse=False)
    return _beside(export, out, weights=".weights", grades=".grades")


def _lightgbm(export: Export, out: Path, _threads: int, advance: Advance) -> list[str]:
    for split, files in (export.sets | export.held_out).items():
        with (out / f"{split}.svm").open("wb") as stream:
            for batch in _batches(files, advance):
                stream.write(svm_text(batch))
        lengths = parts.read_keys(files)["qid"].rle().struct.field("len")
        lengths.to_frame().write_csv(out / f"{split}.svm.query", include_header=False)
    return _beside(export, out, weights=".svm.weight", grades=".svm.grades")


def svm_text(batch: pa.RecordBatch) -> bytes:
    """Return ``label 0:value 1:value ...`` lines, index 0 being feature ``f1``.

    Args:
        batch: ``label`` and features, none null; other columns are left out.
    """
    columns: list[Any] = [batch["label"].cast(pa.int64()).cast(pa.string())]
    for index, name in enumerate(features_of(batch.schema.names)):
        columns += [f" {index}:", batch[name].cast(pa.string())]
    lines = pc.binary_join_element_wise(*columns, "\n", "")
    _, offsets, characters = lines.buffers()
    return bytes(characters[: int(np.frombuffer(offsets, np.int32)[len(lines)])])


def _trec(export: Export, out: Path, threads: int, advance: Advance) -> list[str]:
    notices = []
    for split, files in export.held_out.items():
        scored = predict([export.model], files, threads=threads)
        notices += trec.write(scored, files, out / split, tag=export.item.arm.name)
        advance(scored.height)
    return notices


_WRITERS: Final = {"letor": _letor, "lightgbm": _lightgbm, "trec": _trec}


def _beside(export: Export, out: Path, *, weights: str, grades: str) -> list[str]:
    """Write what goes beside each training set, in files of these suffixes; returns what to say of them."""
    notices = []
    for name, files in export.sets.items():
        if "weight" in parts.schema_of(files).names:
            weight = _column(files, "weight")
            if (weight != 1).any():
                weight.to_frame().write_csv(out / f"{name}{weights}", include_header=False)
        if export.gains:
            grade = _column(files, "grade")
            grade.to_frame().write_csv(out / f"{name}{grades}", include_header=False)
            highest = max(int(grade.to_numpy().max()), 1)
            gains = ",".join(f"{gain:g}" for gain in export.gains[: highest + 1])
            notices.append(
                f"labels are as judged; the arm trains on the grades in {name}{grades} instead, with LightGBM's"
                f" label_gain={gains}"
            )
    if len(export.sets) > 1:
        notices.append(
            f"{export.item.arm.name} trains a ranker on each of its {len(export.sets)} training sets and adds"
            " their scores up"
        )
    return notices


def _column(files: Sequence[Path], name: str) -> pl.Series:
    return pl.concat([pl.Series(name, table[name]) for table in parts.row_groups(files, columns=[name])])
