"""Make ``data/digits``: a small, real ranking set from scikit-learn's handwritten digits.

A query is an image, its candidates are other images of the same split, and a candidate is relevant (label 1)
when it shows the same digit. The features compare the two images. The same bytes come out every time: pixels
are integers, sums stay integers, what is divided or rooted is rounded before it is written, no BLAS takes
part, and the random stream is NumPy's frozen ``RandomState``.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, CC BY 4.0; the 1,797 images of its test file, as scikit-learn ships them.
"""

import argparse
import gzip
import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SEED: Final = 20
CANDIDATES: Final = 120
# First image, one past the last image, queries. Splits are stretches of the source's own order: for 54 % of
# the images the nearest one by pixel distance stands within 100 places (chance: 11 %), most likely by the
# same writer, and a random split would often put the two on different sides.
SPLITS: Final = {"train": (0, 1077, 300), "vali": (1077, 1437, 100), "test": (1437, 1797, 100)}
SOURCE_SHA256: Final = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def load_images() -> tuple[Ints, Ints]:
    """Return the images (1797 x 8 x 8, ink 0 to 16) and their digits (1797).

    Raises:
        ValueError: scikit-learn ships other pixels, labels or another order than this set was made from.
    """
    source = load_digits()
    images, digits = source.images.astype(np.int64), source.target.astype(np.int64)
    found = hashlib.sha256(images.astype("u1").tobytes() + digits.astype("u1").tobytes()).hexdigest()
    if found != SOURCE_SHA256:
        raise ValueError(f"sklearn.datasets.load_digits has SHA-256 {found}, expected {SOURCE_SHA256}")
    return images, digits


def draw_pairs(first: int, stop: int, queries: int, rng: np.random.RandomState) -> tuple[Ints, Ints]:
    """Draw queries and their candidates among images ``first`` to ``stop - 1``, in shuffled row order.

    Returns:
        Image numbers of query and candidate, one pair a row (``queries * CANDIDATES`` each). A query is
        never its own candidate.
    """
    images = np.arange(first, stop)
    query = rng.permutation(images)[:queries]
    order = rng.random_sample((queries, len(images)))
    order[query[:, None] == images] = 2.0  # behind every draw, which is below 1
    candidate = images[np.argsort(order, axis=1, kind="stable")[:, :CANDIDATES]]
    shuffled = rng.permutation(candidate.size)
    return np.repeat(query, CANDIDATES)[shuffled], candidate.ravel()[shuffled]


def _blur(images: Ints) -> Ints:
    """Weigh each pixel 4, its neighbours 2 and its diagonal neighbours 1; paper around the edge is blank."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred: Ints = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return blurred


def _centre(images: Ints, axis: int) -> Floats:
    """Return the centre of mass along the other axis, in pixels."""
    centre: Floats = (images.sum(axis=axis) * np.arange(8)).sum(axis=1) / images.sum(axis=(1, 2))
    return centre


def _quadrants(a: Ints, b: Ints) -> Ints:
    """Return the L1 distance of each quadrant, at the best of the nine shifts of ``b`` by up to a pixel."""
    padded = np.pad(b, ((0, 0), (1, 1), (1, 1)))
    shifts = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    sums = [np.abs(a - s).reshape(-1, 2, 4, 2, 4).sum(axis=(2, 4)).reshape(-1, 4) for s in shifts]
    best: Ints = np.min(sums, axis=0)
    return best


def compare(a: Ints, b: Ints) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Compare images pairwise.

    Args:
        a: Query images, n x 8 x 8.
        b: Candidate images, n x 8 x 8.

    Returns:
        Feature name to its text format and its n values, in the order of the columns. Larger means less
        alike, except for ``correlation``.
    """
    gap = a - b
    ink_a, ink_b, dot = a.sum(axis=(1, 2)), b.sum(axis=(1, 2)), (a * b).sum(axis=(1, 2))
    aa, bb = (a * a).sum(axis=(1, 2)), (b * b).sum(axis=(1, 2))
    spread = (64 * aa - ink_a**2) * (64 * bb - ink_b**2)
    edges = {f"edges_{n}": np.abs(np.diff(gap, axis=x)).sum(axis=(1, 2)) for n, x in (("y", 1), ("x", 2))}
    whole = {f"quadrant_{i}": column for i, column in enumerate(_quadrants(a, b).T, start=1)}
    whole |= {f"row_{i}": column for i, column in enumerate(np.abs(gap.sum(axis=2)).T, start=1)}
    whole |= {f"column_{i}": column for i, column in enumerate(np.abs(gap.sum(axis=1)).T, start=1)}
    whole |= edges | {
        "ink": np.abs(ink_a - ink_b),
        "l1": np.abs(gap).sum(axis=(1, 2)),
        "l2": np.rint(np.sqrt((gap * gap).sum(axis=(1, 2)))),
        "linf": np.abs(gap).max(axis=(1, 2)),
        "l2_blurred": np.rint(np.sqrt((_blur(gap) ** 2).sum(axis=(1, 2))) / 16),
    }
    # Adding 0 turns -0.0 into 0.0, which would be written as "-0.00".
    return {name: ("%d", values) for name, values in whole.items()} | {
        "correlation": ("%.2f", ((64 * dot - ink_a * ink_b) / np.sqrt(spread)).round(2) + 0),
        "centre_x": ("%.1f", np.abs(_centre(a, 1) - _centre(b, 1)).round(1)),
        "centre_y": ("%.1f", np.abs(_centre(a, 2) - _centre(b, 2)).round(1)),
    }


def write_split(path: Path, images: Ints, digits: Ints, query: Ints, candidate: Ints) -> None:
    """Write one gzip LETOR file, the same bytes every time."""
    features = compare(images[query], images[candidate])
    columns = [f"{i}:{style}" for i, (style, _) in enumerate(features.values(), start=1)]
    line = " ".join(["%d qid:%d", *columns, "#docid = digit-%04d"])
    label = digits[query] == digits[candidate]
    table = np.column_stack([label, query, *(values for _, values in features.values()), candidate])
    # Neither the time nor the file's name goes into the header.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        np.savetxt(packed, table, fmt=line)


def main(arguments: list[str] | None = None) -> None:
    """Write ``train``, ``vali`` and ``test.txt.gz`` to the directory ``--out``."""
    parser = argparse.ArgumentParser(description="Make the digits ranking set.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits", help="directory")
    out: Path = parser.parse_args(arguments).out
    images, digits = load_images()
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(SEED)
    for split, (first, stop, queries) in SPLITS.items():
        write_split(out / f"{split}.txt.gz", images, digits, *draw_pairs(first, stop, queries, rng))


if __name__ == "__main__":
    main()
