"""Scores by the trees of a LightGBM model, without LightGBM.

LightGBM follows one row after the other from node to node. Here each node is asked about all rows at once, and the
numbers of their leaves are put together from the bottom up, by arithmetic on whole columns. The scores are
LightGBM's to the last bit, as the values, the bounds and the order of the sums are.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MOST_LEAVES: Final = 128
"""Leaves of a tree, at most: with more there is little to gain."""
_ROWS: Final = 1 << 16
"""Rows at a time, so that they stay in the processor's cache."""
_DEFAULT_LEFT, _NAN_MISSING, _UNKNOWN = 2, 8, 1 | 4
"""Bits of ``decision_type``; unknown here are categories, and zeros for missing values."""

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tree:
    """A regression tree: its nodes, of which the first is the root, and its leaves.

    Attributes:
        features: Number of the feature that a node compares; empty for a tree of one leaf.
        bounds: A row goes right if its value is above the bound.
        missing_right: Whether a missing value goes right.
        children: Left and right child of a node: a later node, or ``~leaf``.
        values: Of the leaves.
    """

    features: Sequence[int]
    bounds: Sequence[np.float32]
    missing_right: Sequence[bool]
    children: Sequence[tuple[int, int]]
    values: Floats


def parse(model: str, *, features: int) -> list[Tree] | None:
    """Return the trees of a model in LightGBM's text.

    None if the model is to be left to LightGBM, because it is of another kind, for another number of features, or
    damaged.
    """
    head, *texts = model.split("\nend of trees\n")[0].split("\nTree=")
    fields = _fields(head)
    if "\naverage_output\n" in head or "\nend of trees\n" not in model:
        return None
    try:
        if int(fields["num_tree_per_iteration"]) != 1 or int(fields["max_feature_idx"]) + 1 != features:
            return None
        trees = [_tree(_fields(text)) for text in texts]
        complete = 0 < len(trees) == len(fields["tree_sizes"].split())
    except (KeyError, ValueError):
        return None
    return trees if complete else None


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _tree(fields: Mapping[str, str]) -> Tree:
    """Return a tree; raises ``ValueError`` if it is of another kind or damaged."""
    kinds, features, lefts, rights = (
        [int(word) for word in fields[name].split()]
        for name in ("decision_type", "split_feature", "left_child", "right_child")
    )
    bounds = [float(word) for word in fields["threshold"].split()]
    values = np.array(fields["leaf_value"].split(), dtype=np.float64)
    if len(values) > MOST_LEAVES or fields["is_linear"] != "0" or any(kind & _UNKNOWN for kind in kinds):
        raise ValueError("a tree of another kind")
    children = list(zip(lefts, rights, strict=True))
    root = 0 if children else ~0
    if sorted([root, *lefts, *rights]) != [*range(-len(values), 0), *range(len(children))] or any(
        0 <= child <= node for node, pair in enumerate(children) for child in pair
    ):
        raise ValueError("nodes and leaves that are no tree")
    # Where no value was missing in training, one that is counts as 0.
    missing_right = [
        not kind & _DEFAULT_LEFT if kind & _NAN_MISSING else bound < 0
        for kind, bound in zip(kinds, bounds, strict=True)
    ]
    return Tree(features, [_round_down(bound) for bound in bounds], missing_right, children, values)


def _round_down(bound: float) -> np.float32:
    """Return the largest single precision number that is not above ``bound``, as features are single precision."""
    with np.errstate(over="ignore"):
        near = np.float32(bound)
    return near if float(near) <= bound else np.nextafter(near, np.float32(-np.inf))


def features_of(trees: Iterable[Tree]) -> set[int]:
    """Return the numbers of the features that trees compare."""
    return {feature for tree in trees for feature in tree.features}


def add(score: Floats, trees: Sequence[Tree], columns: Mapping[int, Column], *, threads: int = 1) -> None:
    """Add to each row's score, in place, what trees give it, one tree after the other.

    Args:
        score: float64 [rows].
        trees: The trees.
        columns: The features they compare, float32 [rows] each, by number.
        threads: Threads; the scores do not depend on it.
    """
    step = min(_ROWS, max(1, -(-len(score) // threads)))

    def add_block(first: int) -> None:
        rows = slice(first, first + step)
        _add(score[rows], trees, {number: column[rows] for number, column in columns.items()})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add_block, range(0, len(score), step)))


def _add(score: Floats, trees: Sequence[Tree], columns: Mapping[int, Column]) -> None:
    given = np.empty(len(score))
    for tree in trees:
        if tree.features:
            # Clipping, which changes nothing, saves looking for numbers that are out of range.
            tree.values.take(_leaves(tree, 0, columns).astype(np.intp), mode="clip", out=given)
            score += given
        else:
            score += tree.values[0]


def _leaves(tree: Tree, node: int, columns: Mapping[int, Column]) -> Any:
    """Return the number of each row's leaf below a node; a single number if the node is a leaf."""
    if node < 0:
        return np.uint8(~node)
    value, bound = columns[tree.features[node]], tree.bounds[node]
    goes_right = ~(value <= bound) if tree.missing_right[node] else value > bound
    left, right = (_leaves(tree, child, columns) for child in tree.children[node])
    # Arithmetic, as choosing with np.where takes many times as long.
    return (left ^ right) * goes_right.view(np.uint8) ^ left
