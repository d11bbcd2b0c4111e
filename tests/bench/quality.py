"""What each way to prepare a training set gives on real sets: ``make bench-quality``.

The directory named by ``RANKSIEVE_DATA`` holds one folder per set. Every set is run with three seeds; NDCG@10
is of test lists, with the queries of all folds pooled, averaged over the seeds query by query. The baseline is
`all` with the settings that were best on the validation lists, and the arm that would be recommended gets the
same choice of settings. Runs lie in a directory of their own and are taken up again where they ended.
"""

import argparse
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from flows.stages import run_pipeline
from pipeline.core.config import override, parse
from pipeline.evaluation import paired
from pipeline.negatives.arms import parse as parse_arm
from pipeline.run.start import processors

SETS = ("webis_clueweb09", "cranfield", "nfcorpus", "ohsumed", "mq2008")
SEEDS = (1, 2, 3)
ARMS = (
    "all",
    "random-5",
    "random-10",
    "random-20",
    "random-5-bag4",
    "random-10-bag4",
    "top-20",
    "semi-hard-20",
    "margin-20",
    "softmax-20",
    "popularity-20",
    "distance-weighted-20",
    "ohem-20",
    "false-positive-20",
    "mixed-20",
    "mixed-unweighted-20",
    "mixed-20-guard75",
    "mixed-10-guard75",
    "mixed-10-guard75-bag2",
    "mixed-10-guard100-bag2",
    "mixed-5-guard75-bag4",
    "mixed-10-guard75-bag4",
    "mixed-10-guard75-graded",
    "false-positive-20-guard75-rounds3",
    "mixed-20-guard75-dynamic10",
    "top-20-guard75-dynamic5",
)
PREFERRED = "mixed-10-guard75-bag2"
AXES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("ranker.leaves=7",), ("ranker.leaves=15",), ("ranker.leaves=31",)),
    (("ranker.min_rows_per_leaf=50",),),
    (("ranker.truncation=10",),),
    (("ranker.trees=200",), ("ranker.trees=200", "ranker.learning_rate=0.05")),
)
"""Settings of the ranker to choose by validation, an axis after the other: for `all` and the preferred arm alike."""
CUTOFF = 10
CHOSEN = "what is recommended"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Arms of one set, averaged over the seeds: NDCG per query and split, share of rows, training seconds.

    ``recommended`` has the arm that each seed's run recommends.
    """

    ndcg: Mapping[str, Mapping[str, Floats]]
    rows: Mapping[str, float]
    seconds: Mapping[str, float]
    recommended: Sequence[str]


def run(source: Path, root: Path, arms: Sequence[str], settings: Sequence[str]) -> Path:
    """Run the job on one set, or what is missing of it; returns its directory."""
    config = parse(override({}, settings))
    run_pipeline(source, root, config=config, threads=processors(), arms=arms, command="bench-quality")
    return root


def measure(
    source: Path,
    out: Path,
    arms: Sequence[str],
    settings: Sequence[str] = (),
    *,
    seeds: Sequence[int] = SEEDS,
) -> Measured:
    """Run one set with every seed and put the seeds together."""
    name = "-".join(
        [source.name, *(s.replace("ranker.", "") for s in settings), *(arms if len(arms) == 1 else ())]
    )
    roots = [run(source, out / f"{name}-{seed}", arms, [*settings, f"seed={seed}"]) for seed in seeds]
    metrics, summary = (pl.concat(frames) for frames in zip(*map(_results, roots), strict=True))
    means = (
        metrics.filter(pl.col("cutoff") == CUTOFF)
        .drop_nulls("ndcg")
        .group_by("arm", "split", "fold", "qid")
        .agg(pl.col("ndcg").mean())
        .sort("fold", "qid")
    )
    facts = (
        summary.filter(cutoff=CUTOFF, split="test")
        .group_by("arm")
        .agg(pl.col("rows_fraction", "train_seconds").mean())
    )
    by = means.partition_by("split", "arm", as_dict=True)
    names = [*arms, *([CHOSEN] if ("test", CHOSEN) in by else [])]
    return Measured(
        {split: {arm: by[split, arm]["ndcg"].to_numpy() for arm in names} for split in ("vali", "test")},
        dict(zip(facts["arm"], facts["rows_fraction"], strict=True)),
        dict(zip(facts["arm"], facts["train_seconds"], strict=True)),
        summary.filter(pl.col("recommended"), pl.col("arm") != CHOSEN, cutoff=CUTOFF, split="test")[
            "arm"
        ].to_list(),
    )


def _results(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return METRICS and SUMMARY of a run, what it recommends once more as an arm of its own."""
    metrics, summary = (pl.read_parquet(root / f"{name}.parquet") for name in ("metrics", "summary"))
    chosen = summary.filter("recommended")
    if chosen.is_empty():
        return metrics, summary
    again = metrics.filter(arm=chosen["arm"][0]).with_columns(arm=pl.lit(CHOSEN))
    return pl.concat([metrics, again]), pl.concat([summary, chosen.with_columns(arm=pl.lit(CHOSEN))])


def tuned(source: Path, out: Path, arm: str, *, seeds: Sequence[int]) -> tuple[Sequence[str], Floats]:
    """Choose an arm's settings on validation lists, with every seed; returns them and its NDCG on test."""
    seeds = seeds[:1] if arm == "all" else seeds  # nothing is drawn for it

    def vali(settings: Sequence[str]) -> float:
        return float(measure(source, out, (arm,), settings, seeds=seeds).ndcg["vali"][arm].mean())

    chosen: tuple[str, ...] = ()
    best = vali(chosen)
    for axis in AXES:
        tried = {(*chosen, *settings): vali((*chosen, *settings)) for settings in axis}
        leader = max(tried, key=lambda settings: tried[settings])
        if tried[leader] > best:
            chosen, best = leader, tried[leader]
    return chosen, measure(source, out, (arm,), chosen, seeds=seeds).ndcg["test"][arm]


def difference(values: Floats, base: Floats) -> str:
    """Return the mean difference with its interval and p, and its share of the base."""
    change = (values - base)[:, None]
    low, high = paired.bootstrap(change, seed=1, resamples=10_000)
    p = paired.sign_flip(change, seed=1, resamples=10_000)[0]
    mean = change.mean()
    return f"{mean:+.3f} [{low[0]:+.3f}, {high[0]:+.3f}] {mean / base.mean():+.1%} p={p:.3f}"


def table(name: str, found: Measured) -> Iterable[str]:
    """Yield the lines of one set's table."""
    test = found.ndcg["test"]
    yield f"\n### {name}: {len(test['all'])} test queries\n"
    yield "| arm | NDCG@10 | against `all` | against `random` at the same budget | rows | training s |"
    yield "|---|---|---|---|---|---|"
    for arm, values in test.items():
        against = [
            difference(values, test[other]) if other != arm and other in test else ""
            for other in ("all", None if arm == CHOSEN else parse_arm(arm).control)
        ]
        yield (
            f"| {arm} | {values.mean():.4f} | {against[0]} | {against[1]} | {found.rows[arm]:.1%} |"
            f" {found.seconds[arm]:.1f} |"
        )
    recommended = ", ".join(f"`{arm}`" for arm in found.recommended)
    yield f"\nRecommended, seed by seed, on the validation lists: {recommended or 'nothing'}"


def main() -> None:
    """Run the sets and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--arms", nargs="+", default=ARMS, type=lambda name: parse_arm(name).name)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--tuned", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    data = os.environ.get("RANKSIEVE_DATA")
    if not data:
        raise SystemExit("set RANKSIEVE_DATA to a directory with one folder per set")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {processors()} processors, seeds {options.seeds}"
    )
    for name in options.sets:
        source = Path(data) / name
        if not source.is_dir():
            print(f"\n### {name}: not in {data}, skipped")
            continue
        found = measure(source, options.out, options.arms, seeds=options.seeds)
        for line in table(name, found):
            print(line, flush=True)
        if not options.tuned:
            continue
        best = {arm: tuned(source, options.out, arm, seeds=options.seeds) for arm in ("all", PREFERRED)}
        for arm, (settings, values) in best.items():
            chosen = ", ".join(settings) or "the defaults"
            print(f"\n`{arm}` with the settings best on validation ({chosen}): {values.mean():.4f}")
        change = difference(best[PREFERRED][1], best["all"][1])
        print(f"\n`{PREFERRED}` against `all`, both so: {change}")
        for arm in (PREFERRED, CHOSEN):
            if arm in found.ndcg["test"]:
                change = difference(found.ndcg["test"][arm], best["all"][1])
                print(f"\n{arm} with the default settings against `all` so: {change}", flush=True)


if __name__ == "__main__":
    main()
