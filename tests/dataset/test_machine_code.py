"""Kernels kept as machine code: made once, found again, and made anew where they would be wrong."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline.dataset.machine_code import Kernel

SOURCE = """
from pipeline.core.compiled import carray, part


@part
def total(values):
    result = 0.0
    for value in values:
        result += value
    return result


def add(values, size, factor, into):
    carray(into, (1,))[0] = total(carray(values, (size,))) * factor


def ask(into):
    if carray(into, (1,))[0] < 0:
        raise ValueError
    carray(into, (1,))[0] = 1
"""
TYPES = "float64* int64 float64 float64*"
PROGRAM = """
import sys
import numpy as np
from pipeline.dataset.machine_code import Kernel

kernel, into = Kernel("small_kernel", {"add": %r}), np.zeros(1)
was_kept = kernel.is_kept()
kernel.functions()["add"](np.arange(4.0).ctypes.data, 4, 0.5, into.ctypes.data)
print(into[0], was_kept, "numba" in sys.modules)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return an empty directory for machine code, and a module of kernels that is found."""
    (tmp_path / "small_kernel.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "small_kernel", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ranksieve"


def result(kernel: Kernel) -> float:
    """Return half the sum of 0 to 3 as the kernel finds it."""
    into, values = np.zeros(1), np.arange(4.0)
    kernel.functions()["add"](values.ctypes.data, 4, 0.5, into.ctypes.data)
    return into[0]


def in_a_process(place) -> list[str]:
    """Return what a process of its own finds: the result, whether code was kept, whether numba was imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place.parents[1]), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM % TYPES], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_made_once(place):
    """The first process compiles; the next finds the file, needs no compiler and computes the same."""
    assert not Kernel("small_kernel", {"add": TYPES}).is_kept()
    assert result(Kernel("small_kernel", {"add": TYPES})) == 3.0
    assert [file.suffix for file in place.iterdir()] == [".code"]
    assert in_a_process(place) == ["3.0", "True", "False"]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_file(place, damage):
    """A file that was cut or changed is not run: it is made anew."""
    result(Kernel("small_kernel", {"add": TYPES}))
    [file] = place.iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if damage is None else damage)
    assert not Kernel("small_kernel", {"add": TYPES}).is_kept()
    assert in_a_process(place) == ["3.0", "False", "True"]
    assert in_a_process(place) == ["3.0", "True", "False"]


def test_changed_source(place):
    """What is kept of another source, or for other types, is not taken."""
    kernel = Kernel("small_kernel", {"add": TYPES})
    result(kernel)
    assert Kernel("small_kernel", {"add": TYPES}).is_kept()
    assert not Kernel("small_kernel", {"add": TYPES, "ask": "float64*"}).is_kept()
    source = place.parents[1] / "small_kernel.py"
    source.write_text(SOURCE.replace("* factor", "* -factor"), encoding="utf-8")
    assert not Kernel("small_kernel", {"add": TYPES}).is_kept()
    assert in_a_process(place) == ["-3.0", "False", "True"]


def test_no_place_to_keep_it(place, monkeypatch):
    """Where nothing can be written, the kernel works as well."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/cache")
    kernel = Kernel("small_kernel", {"add": TYPES})
    assert result(kernel) == 3.0
    assert not Kernel("small_kernel", {"add": TYPES}).is_kept()
    assert not place.exists()


def test_not_kept_where_it_needs_its_process(place):
    """Code that may raise calls into the interpreter, and would not load elsewhere: it runs, and no file is made."""
    kernel, into = Kernel("small_kernel", {"ask": "float64*"}), np.zeros(1)
    kernel.functions()["ask"](into.ctypes.data)
    assert into[0] == 1.0
    assert not place.exists()
