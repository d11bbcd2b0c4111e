"""The LETOR kernel as plain Python, so that branches can be seen and every read of memory is checked.

Compiled, the kernel reads by address and without bounds; here the same source runs with the numbers of NumPy
and raises IndexError where it would read, or write, outside of what it was given.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

from pipeline.dataset import letor_code
from pipeline.dataset import letor_kernel as compiled_kernel


class _Memory:
    """The block that is read: its bytes and the address the kernel believes them to be at."""

    def __init__(self) -> None:
        self.data, self.base = b"", 0

    def byte_at(self, address: int) -> int:
        offset = address - self.base
        if offset < 0:
            raise IndexError(f"a byte is read {-offset} before the block")
        return self.data[offset]

    def word_at(self, address: int) -> np.uint64:
        offset = int(address - self.base)
        if not 0 <= offset <= len(self.data) - 8:
            raise IndexError(f"a word is read at {offset} of a block of {len(self.data)} bytes")
        return np.uint64(int.from_bytes(self.data[offset : offset + 8], "little"))


def zeros_below(word: np.uint64) -> np.uint64:
    """How many zero bits are below the lowest that is set; 64 when none is."""
    number = int(word)
    return np.uint64((number & -number).bit_length() - 1 if number else 64)


@cache
def module() -> ModuleType:
    """Return a second copy of the kernel's module, its functions not compiled."""
    return load(Path(compiled_kernel.__file__).read_text(encoding="utf-8"))


def load(source: str) -> ModuleType:
    """Return ``source``, that of the kernel or a changed one, as a module whose functions are not compiled."""
    copy = ModuleType("interpreted_letor_kernel")
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        exec(compile(source, compiled_kernel.__file__, "exec"), vars(copy))  # noqa: S102 - the project's own
    finally:
        numba.config.DISABLE_JIT = before
    memory, parse = _Memory(), copy.parse

    def parse_checked(text: np.ndarray, *rest: Any) -> Any:
        memory.data, memory.base = text.tobytes(), text.ctypes.data
        with np.errstate(over="ignore"):  # as compiled: unsigned words wrap, large numbers become infinity
            return parse(text, *rest)

    parse_checked.__wrapped__ = parse
    vars(copy).update(
        byte_at=memory.byte_at, word_at=memory.word_at, zeros_below=zeros_below, parse=parse_checked
    )
    return copy


@contextmanager
def kernel() -> Iterator[None]:
    """Let the reader use the interpreted kernel meanwhile."""
    compiled = letor_code.parse, letor_code.survey
    letor_code.parse, letor_code.survey = module().parse, module().survey
    try:
        yield
    finally:
        letor_code.parse, letor_code.survey = compiled
