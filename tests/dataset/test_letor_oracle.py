"""Every value of real sets as scikit-learn's loader reads it, where RANKSIEVE_DATA names a directory of them."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_svmlight_file

from pipeline.core.tables import feature_names
from pipeline.dataset.letor import read_letor

DATA = os.environ.get("RANKSIEVE_DATA")
FILES = sorted(Path(DATA).rglob("*.txt*")) if DATA else []
LETOR = [
    file for file in FILES if file.name.removesuffix(".gz").endswith(".txt") and file.name != "features.txt"
]


@pytest.mark.skipif(not DATA, reason="RANKSIEVE_DATA is not set")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", LETOR, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_value_is_as_scikit_learn_reads_it(file: Path) -> None:
    """Labels and query ids are equal, and every feature has the bits of scikit-learn's double as float32."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        values, labels, queries = load_svmlight_file(stream, query_id=True, zero_based=False)
    row, width = 0, 0
    for batch in read_letor(file):
        rows = slice(row, row + batch.num_rows)
        width = len(batch.schema.names) - 2 - ("doc_id" in batch.schema.names)
        ours = np.column_stack([batch[name].to_numpy() for name in feature_names(width)])
        with np.errstate(over="ignore"):
            theirs = values[rows].toarray().astype(np.float32)
        # scikit-learn keeps no zeros, and so no sign of one.
        np.testing.assert_array_equal(
            (ours + np.float32(0)).view(np.uint32), theirs[:, :width].view(np.uint32)
        )
        assert not theirs[:, width:].any()
        np.testing.assert_array_equal(batch["label"].to_numpy(), labels[rows])
        np.testing.assert_array_equal(batch["qid"].to_numpy(), queries[rows])
        row += batch.num_rows
    assert row == len(labels)
