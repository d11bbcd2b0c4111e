"""SUMMARY in plain language: what won, what lost, by how much, and what to keep."""

from typing import Any, Final

import polars as pl

from pipeline.evaluation.paired import ALPHA

BASELINE: Final = "all"  # the arm that trains on every row
COLLAPSE: Final = 0.3  # relative loss of NDCG from which a significantly worse arm is called collapsed
_MOST_NAMED: Final = 4  # arms that a sentence names before it counts the rest

_Row = dict[str, Any]


def verdict(summary: pl.DataFrame, *, cutoff: int = 10) -> list[str]:
    """Return at most five sentences: what the test lists of SUMMARY show at a cutoff, and what to keep.

    An arm is better or worse when its Holm-adjusted p against `all` is below 0.05.
    """
    rows = summary.filter(split="test", cutoff=cutoff).to_dicts()
    if not rows:
        return [f"There is no test result at cutoff {cutoff}."]
    if rows[0]["ndcg"] is None:
        return [
            f"None of the {rows[0]['queries']:,} test queries has a relevant document: NDCG says nothing."
        ]
    base = next((row for row in rows if row["arm"] == BASELINE), None)
    if base is None:
        return _alone(rows, cutoff)
    others = [row for row in rows if row is not base]
    judged = base["queries"] - base["queries_empty"]
    start = (
        f"Trained on everything, `{BASELINE}` reaches NDCG@{cutoff} {base['ndcg']:.3f} "
        f"on {judged:,} test queries with a relevant document."
    )
    if not others:
        return [start, "There is no other arm to compare."]
    vali = summary.filter(split="vali", cutoff=cutoff).to_dicts()
    return [start, *_differences(others, base), *_recommendation(rows, base, cutoff, vali)]


def _alone(rows: list[_Row], cutoff: int) -> list[str]:
    """Give the figures of arms without `all` to compare with, and say how to compare."""
    judged = rows[0]["queries"] - rows[0]["queries_empty"]
    rest = f", and {len(rows) - _MOST_NAMED} more arms" if len(rows) > _MOST_NAMED else ""
    figures = "; ".join(_figures(row) for row in rows[:_MOST_NAMED])
    chance = [
        f"`{row['arm']}` {row['delta_random']:+z.3f} ({_p(row['p_random'])})"
        for row in rows
        if row["delta_random"] is not None
    ]
    sentences = [f"NDCG@{cutoff} on {judged:,} test queries with a relevant document: {figures}{rest}."]
    if chance:
        sentences.append(f"Against random negatives in the same number: {', '.join(chance[:_MOST_NAMED])}.")
    names = ",".join([BASELINE, *(row["arm"] for row in rows)])
    return [
        *sentences,
        f"Whether {'this is' if len(rows) == 1 else 'one of these is'} better or worse than training on "
        f"everything is not known: to compare, add `{BASELINE}` to the arms (`--arms {names}`).",
    ]


def _figures(row: _Row) -> str:
    """Return an arm's NDCG with its interval, its rows and the time they took."""
    seconds = "" if row["train_seconds"] is None else f" in {row['train_seconds']:.1f} s"
    interval = "" if row["low"] is None else f" (95% interval {row['low']:.3f} to {row['high']:.3f})"
    return f"`{row['arm']}` {row['ndcg']:.3f}{interval}, trained on {_rows(row)}{seconds}"


def _differences(others: list[_Row], base: _Row) -> list[str]:
    """Name the arms that differ significantly from `all`, or say that none does."""
    significant = sorted((row for row in others if _significant(row)), key=lambda row: -abs(row["delta"]))
    won = [row for row in significant if row["delta"] > 0]
    lost = [row for row in significant if row["delta"] < 0]
    if not won and not lost:
        cheapest = min(others, key=lambda r: r["rows"])
        return [
            f"No arm differs significantly from `{BASELINE}`, which does not prove them equal; the cheapest "
            f"that is not significantly worse is `{cheapest['arm']}` with {_rows(cheapest)}."
        ]
    return [_listed("better", won, base), _listed("worse", lost, base)]


def _recommendation(rows: list[_Row], base: _Row, cutoff: int, vali: list[_Row]) -> list[str]:
    """Name the arm chosen on validation and give its test figures."""
    keep = next((row for row in rows if row["recommended"]), None)
    if keep is None:
        return ["No recommendation: there is no validation result to decide on."]
    if keep is base:
        everything = (
            f"Keep everything (`{BASELINE}`): on validation no smaller arm came close enough to the best."
        )
        return [everything + _cheapest(rows, base, vali)]
    interval = f"95% interval {keep['delta_low']:+z.3f} to {keep['delta_high']:+z.3f}"
    change = _change(keep, base, interval, f"Holm-adjusted {_p(keep['p_holm'])}")
    sentences = [
        f"Keep `{keep['arm']}`, chosen on validation{_doubt(keep)}: {_rows(keep)}, "
        f"test NDCG@{cutoff} {change}{_time(keep, base)}."
    ]
    if keep["delta_random"] is not None:
        chance = "" if keep["p_random"] < ALPHA else ", not significant"
        sentences.append(
            f"Against its random control: {keep['delta_random']:+z.3f} ({_p(keep['p_random'])}{chance})."
        )
    return sentences


def _cheapest(rows: list[_Row], base: _Row, vali: list[_Row]) -> str:
    """Name the arm with the fewest rows that is not significantly worse on validation."""
    worse = {row["arm"] for row in vali if row["p"] is not None and row["p"] < ALPHA and row["delta"] < 0}
    left = [row for row in rows if row is not base and row["arm"] not in worse]
    if not left:
        return " Every other arm is significantly worse there."
    arm = min(left, key=lambda row: row["rows"])
    return (
        f" The cheapest that is not significantly worse there is `{arm['arm']}`{_doubt(arm)}: {_rows(arm)}, test NDCG"
        f" {_change(arm, base)}{_time(arm, base)}."
    )


def _doubt(row: _Row) -> str:
    return "; on test it is worse, so think twice" if _significant(row) and row["delta"] < 0 else ""


def _significant(row: _Row) -> bool:
    return bool(row["p_holm"] is not None and row["p_holm"] < ALPHA)


def _listed(word: str, rows: list[_Row], base: _Row) -> str:
    """Name the arms that are better or worse, the largest changes first."""
    if not rows:
        return f"No arm is significantly {word} than `{BASELINE}`."
    named = [f"`{row['arm']}` {_change(row, base, *_collapsed(row, base))}" for row in rows[:_MOST_NAMED]]
    rest = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return f"Significantly {word} than `{BASELINE}`: {', '.join(named)}{rest}."


def _change(row: _Row, base: _Row, *notes: str) -> str:
    """Return the difference to `all`; in brackets its share of `all`, unless that is 0, and the notes."""
    relative = [f"{row['delta'] / base['ndcg']:+z.1%}"] if base["ndcg"] > 0 else []
    details = ", ".join([*relative, *notes])
    return f"{row['delta']:+z.3f}" + (f" ({details})" if details else "")


def _collapsed(row: _Row, base: _Row) -> list[str]:
    return ["collapsed"] if -row["delta"] > COLLAPSE * base["ndcg"] else []


def _rows(row: _Row) -> str:
    return f"{row['rows']:,} rows ({row['rows_fraction']:.1%} of the training rows)"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _time(row: _Row, base: _Row) -> str:
    """Return how much training time changes; empty where it is not known."""
    new, old = row["train_seconds"], base["train_seconds"]
    if new is None or not old:
        return ""
    word = "less" if new <= old else "more"
    return f", {abs(1 - new / old):.0%} {word} training time ({new:.1f} s against {old:.1f} s)"
