"""The LETOR reader, compiled and as plain Python, beside a slow reference; the fuzzer's parts without Atheris."""

import random
from pathlib import Path

import pytest

from pipeline.dataset import letor_kernel as compiled_kernel
from tests.fuzz import interpreted, oracle, reference
from tests.fuzz import letor as fuzzer

SEEDS = fuzzer.seeds()


@pytest.mark.parametrize("data", SEEDS, ids=range(len(SEEDS)))
def test_kept_inputs(data):
    """What the fuzzer kept is read alike by both kernels and the reference, however blocks cut it."""
    oracle.check(data)
    oracle.check_every_cut(data)


def test_fuzzing_in_small():
    """Changed inputs are read as the reference reads them; most of them have rows."""
    draw, accepted, data = random.Random(5), 0, SEEDS[-1]
    for _ in range(150):
        data = fuzzer.mutated(data, 300, draw.randrange(2**32), lambda data, _: data) or draw.choice(SEEDS)
        oracle.check(data, quick=True)
        accepted += isinstance(reference.read(data, sentinel=None, head=4096), list)
    assert accepted > 50


def test_reference_by_hand():
    """One row with all there is: label 2, id 7, a document, 0.5 and -0.0 as bits, and a value that is missing."""
    (row,) = reference.read(
        b"\n# x\n2.0 qid:7 9:-999 1:0.5 2:-0 # DocID = A b\r\n", sentinel=-999.0, head=4096
    )
    bits = {9: 0x7FC00000, 1: 0x3F000000, 2: 0x80000000}
    assert row == reference.Row(label=2, qid="7", integer=True, doc_id="A", bits=bits)
    assert reference.read(b"1 qid:1 1:1\n1 qid:1 2:1 2:1\n", sentinel=None, head=4096) == reference.Bad(
        "is repeated as", 2, 13
    )


FAULTS = {
    "limit": ("index > limit:", "index >= limit:", b"1 qid:1 65536:x"),
    "zero": ("if index == 0:", "if index < 0:", b"1 qid:1 0:1"),
    "repeat": ("if last_row[column] == row + 1:", "if False:", b"1 qid:1 2:1 2:1"),
    "memory": ("text[i] != 113 or text[i + 1] != 105 or", "text[i + 3] != 58 or", b"1 "),
    "sign": ("value = -value if negative else value", "value = +value", b"1 qid:1 1:-2"),
    "end": ("mantissa <= _EXACT and _is_end(text[i]):", "mantissa <= _EXACT:", b"1 qid:1 1:1e5"),
    "inexact": ("mantissa <= _EXACT", "True", b"1 qid:1 1:103.35155868530273"),
    "halfway": ("if np.float32(low) != np.float32(high):", "if False:", b"1 qid:1 1:181953645039811818e-24"),
    "decimals": ("digits += decimals", "digits += 0", b"1 qid:1 1:0.0000000000000000000"),
    "long": ("power += 1 - decimal", "power += 1", b"1 qid:1 1:1.0000000000000000000001"),
    "label": ("text[i] == 46:", "text[i] == 44:", b"1, qid:1"),
    "id": ("> (8 if negative else 7)", "> 8", b"1 qid:9223372036854775808"),
    "zeros": ("(negative or i + 1 < stop)", "negative", b"1 qid:007"),
    "key": ("if not _is_word", "if True or not _is_word", b"1 qid:1 #mydocid = 3"),
    "space": ("(9 <= c <= 13 and c != 10)", "(9 <= c <= 12 and c != 10)", b"1 qid:1 1:1 \r\n"),
    "comment": ("if digits and _is_end(text[i]):", "if digits:", b"1 qid:1 1:1e5x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_kernel_shows(fault):
    """With one thing wrong in the kernel, an input made for it is read otherwise, or not at all."""
    old, new, data = FAULTS[fault]
    source = Path(compiled_kernel.__file__).read_text(encoding="utf-8")
    assert old in source
    oracle.check(data)
    faulty = interpreted.load(source.replace(old, new))
    with pytest.raises((oracle.MismatchError, IndexError, OverflowError)):
        oracle.check(data, kernel=faulty)
